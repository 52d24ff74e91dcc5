// What a program sees when the device fails it: every allocation and every launch of a training
// step and of a sampling call fails once, each in a process of its own. A failure must arrive
// as multistage::error, never end the program; after it another try succeeds where the device
// still works, and says that the context is lost where it does not. The failing is done by
// runtime.cpp (see README.md).
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <multistage/cuda.hpp>

extern "C" unsigned emu_findings();  // how many faults of the program runtime.cpp has found

namespace {

namespace ms = multistage;
using model = ms::multi_decoder<ms::song_unet{.resolution = 4,
                                              .channels = 1,
                                              .encoder_channels = 8,
                                              .channel_mult = {1, 2},
                                              .num_blocks = 1,
                                              .attn_resolutions = {2}},
                                ms::decoders{8, 16},
                                ms::edm_schedule,
                                ms::cuda>;
constexpr ms::shape extents{6, 4, 4, 1};

/// A model and its trainer, made anew by each try.
struct run {
  std::vector<float> images = [] {
    std::vector<float> made(std::size_t(extents.size()));
    for (std::size_t i = 0; i < made.size(); ++i)
      made[i] = float(i % 7) / 7 - 0.5f;
    return made;
  }();
  model net{ms::partition({0.5}), ms::seed{1}};
  ms::trainer<float, ms::cuda> trainer{net, std::span<const float>(images), extents,
                                       ms::trainer_options{.batch_size = 4}};

  /// A number that every weight, image and random word goes into.
  double result() {
    double sum = trainer.step().gradient_norm;
    const auto drawn = ms::sample(net, ms::edm_heun{.num_steps = 2}, {.seeds = "0-1"});
    for (const auto x : drawn.images)
      sum += std::abs(double(x));
    return sum;
  }
};

struct failure {
  const char* variable;  ///< of the environment: which allocation or launch fails
  bool device_survives;  ///< whether another try must succeed
};
constexpr failure failures[] = {{"EMU_FAIL_MALLOC", true},
                                {"EMU_REFUSE_LAUNCH", true},
                                {"EMU_FAIL_LAUNCH", false}};

enum status { as_it_should = 0, nothing_failed = 3, wrong = 4 };

/// One failure, in a process of its own. @param right what an undisturbed run gives.
int child(const failure& f, double right) {
  std::unique_ptr<run> first;
  try {
    first = std::make_unique<run>();
    const double got = first->result();
    ms::cuda().synchronize();
    return got == right ? nothing_failed : wrong;
  } catch (const ms::error& e) {
    const bool lost = std::strstr(e.what(), "context is lost") != nullptr;
    if (lost == f.device_survives)
      return std::printf("  message: %s\n", e.what()), wrong;
  }
  try {
    // The trainer that met the failure goes on, where the device does.
    if (first && f.device_survives && !std::isfinite(first->result()))
      return wrong;
    first.reset();
    const double got = run().result();
    if (!f.device_survives)
      return std::puts("  a lost context was not noticed"), wrong;
    return got == right ? as_it_should
                        : (std::printf("  %.17g for %.17g\n", got, right), wrong);
  } catch (const ms::error& e) {
    const bool lost = std::strstr(e.what(), "context is lost") != nullptr;
    return !f.device_survives && lost ? as_it_should
                                      : (std::printf("  again: %s\n", e.what()), wrong);
  }
}

/// Runs `body` in a child; its exit status, or minus the signal that ended it.
template <class F>
int in_child(const F& body) {
  std::fflush(nullptr);
  const pid_t id = fork();
  if (id == 0) {
    int s = wrong;
    try {
      s = body();
    } catch (const std::exception& e) {
      std::printf("  not an error of the library: %s\n", e.what());
    }
    std::fflush(nullptr);
    _exit(s);
  }
  int s = 0;
  waitpid(id, &s, 0);
  return WIFEXITED(s) ? WEXITSTATUS(s) : -WTERMSIG(s);
}

}  // namespace

/// @param argv with "all" every launch fails in its turn, else every one at first and then
/// fewer and fewer; allocations always all.
int main(int argc, char**) {
  int channel[2];
  if (pipe(channel) != 0)
    return 2;
  double right = 0;
  const int plain = in_child([&] {
    const double r = run().result();
    if (emu_findings() > 0)
      return 2;
    return write(channel[1], &r, sizeof r) == sizeof r ? 0 : 2;
  });
  if (plain != 0 || read(channel[0], &right, sizeof right) != sizeof right ||
      !std::isfinite(right))
    return std::printf("an undisturbed run ends with %d\n", plain), 1;
  int bad = 0;
  for (const failure& f : failures) {
    const bool all = argc > 1 || std::strcmp(f.variable, "EMU_FAIL_MALLOC") == 0;
    int at = 1;
    int walked = 0;
    for (int s = as_it_should; s != nothing_failed; at += all ? 1 : 1 + at / 4, ++walked) {
      s = in_child([&] {
        setenv(f.variable, std::to_string(at).c_str(), 1);
        return child(f, right);
      });
      if (s != as_it_should && s != nothing_failed)
        ++bad, std::printf("%s=%d ends with %d\n", f.variable, at, s);
    }
    std::printf("%s: %d failures walked\n", f.variable, walked - 1);
    if (walked < 12)
      ++bad, std::puts("  too few to be true");
  }
  return bad == 0 ? 0 : 1;
}
