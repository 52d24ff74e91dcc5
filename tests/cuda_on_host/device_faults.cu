// What a program sees when the device fails it. A model is made, trained for a step and
// sampled; in each of these stages every allocation fails once, and the first launch of every
// kernel is refused once and faults once, each in a process of its own. A failure must arrive
// as multistage::error, never end the program; after it another try succeeds where the device
// still works, and says that the context is lost where it does not. The failing is done by the
// runtime (see README.md).
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <multistage/cuda.hpp>

extern "C" {
/// How many faults of the program the runtime has found.
unsigned emu_findings();
/// The n-th "allocation", "launch" (refused) or "kernel" (faults) from now on fails; 0 is none.
void emu_fail(const char* what, unsigned long n);
/// For each kernel that was launched since the last call, the number of its first launch.
unsigned emu_first_launches(unsigned long* numbers, unsigned most);
}

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

enum stage { making, training, sampling, stages };
constexpr const char* stage_names[stages] = {"making", "training", "sampling"};

/// A model's life.
class program {
 public:
  /// Does what the stage is, anew if it was done before.
  /// @return a number that all of what it made goes into.
  double operator()(stage s) {
    double sum = 0;
    if (s == making) {
      trainer_.reset();
      net_ = std::make_unique<model>(ms::partition({0.5}), ms::seed{1});
      trainer_ = std::make_unique<ms::trainer<float, ms::cuda>>(
          *net_, std::span<const float>(images_), extents,
          ms::trainer_options{.batch_size = 4});
    } else if (s == training) {
      sum = trainer_->step().gradient_norm;
    } else {
      const auto drawn = ms::sample(*net_, ms::edm_heun{.num_steps = 1}, {.seeds = "0-1"});
      for (const float x : drawn.images)
        sum += std::abs(double(x));
    }
    for (const float w : net_->weights().to_host())
      sum += std::abs(double(w));
    ms::cuda().synchronize();
    return sum;
  }

 private:
  std::vector<float> images_ = [] {
    std::vector<float> made(std::size_t(extents.size()));
    for (std::size_t i = 0; i < made.size(); ++i)
      made[i] = float(i % 7) / 7 - 0.5f;
    return made;
  }();
  std::unique_ptr<model> net_;
  std::unique_ptr<ms::trainer<float, ms::cuda>> trainer_;
};

/// What an undisturbed program does.
struct course {
  double results[stages];
  unsigned kernels[stages];  ///< that are launched, and the first launch of each:
  unsigned long launches[stages][256];
};

struct failure {
  const char* what;
  bool device_survives;  ///< whether another try must succeed
};
constexpr failure failures[] = {{"allocation", true}, {"launch", true}, {"kernel", false}};

enum status { as_it_should = 0, nothing_failed = 3, wrong = 4 };

/// What the program does after a failure in stage `at`.
status after(const failure& f, program& p, stage at, const course& right) {
  try {
    // Made again is seen to be right when it trains.
    for (int s = at; s <= std::max<int>(at, training); ++s)
      if (const double got = p(stage(s)); f.device_survives && got != right.results[s])
        return std::printf("  %.17g for %.17g\n", got, right.results[s]), wrong;
    return f.device_survives ? as_it_should : wrong;
  } catch (const ms::error& e) {
    const bool lost = std::strstr(e.what(), "context is lost") != nullptr;
    return !f.device_survives && lost ? as_it_should
                                      : (std::printf("  again: %s\n", e.what()), wrong);
  }
}

/// The n-th of what can fail does so in a stage.
status fails(const failure& f, unsigned long n, program& p, stage at, const course& right) {
  emu_fail(f.what, n);
  try {
    return p(at) == right.results[at] ? nothing_failed : wrong;
  } catch (const ms::error& e) {
    const bool lost = std::strstr(e.what(), "context is lost") != nullptr;
    if (lost == f.device_survives)
      return std::printf("  message: %s\n", e.what()), wrong;
  }
  return after(f, p, at, right);
}

/// Runs `body` in a child; its exit status, or minus the signal that ended it.
int in_child(const std::function<int()>& body) {
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

/// All failures of a kind in the stage that the program is about to enter.
/// @return how many were wrong.
int walk(const failure& f, program& p, stage at, const course& right) {
  int bad = 0;
  int walked = 0;
  const auto fail_at = [&](unsigned long n) {
    const int s = in_child([&] { return fails(f, n, p, at, right); });
    if (s == as_it_should)
      ++walked;
    else if (s != nothing_failed)
      ++bad, std::printf("%s: %s %lu ends with %d\n", stage_names[at], f.what, n, s);
    return s != nothing_failed;
  };
  if (std::strcmp(f.what, "allocation") == 0) {
    for (unsigned long n = 1; fail_at(n);)
      ++n;
  } else {
    for (unsigned k = 0; k < right.kernels[at]; ++k)
      if (!fail_at(right.launches[at][k]))
        ++bad, std::puts("  a launch that did not come again");
  }
  std::printf("%s: %d times an error as it should be for a failed %s\n", stage_names[at],
              walked, f.what);
  // Made, a model is filled by the host; what follows allocates and launches.
  if (walked < (at == making ? 0 : 12))
    ++bad, std::puts("  too few to be true");
  return bad;
}

}  // namespace

int main() {
  auto* const right =
      static_cast<course*>(mmap(nullptr, sizeof(course), PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0));  // with the child
  const int plain = in_child([&] {
    program p;
    for (int s = making; s < stages; ++s) {
      right->results[s] = p(stage(s));
      right->kernels[s] = emu_first_launches(right->launches[s], 256);
    }
    return emu_findings() > 0 ? 2 : 0;
  });
  if (plain != 0)
    return std::printf("an undisturbed program ends with %d\n", plain), 1;
  int bad = 0;
  program p;
  for (int s = making; s < stages; ++s) {
    for (const failure& f : failures)
      bad += walk(f, p, stage(s), *right);
    if (p(stage(s)) != right->results[s] || !std::isfinite(right->results[s]))
      ++bad, std::printf("%s: another result\n", stage_names[s]);
  }
  return bad == 0 ? 0 : 1;
}
