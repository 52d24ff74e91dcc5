// Memory and threads that cannot be had, on demand: replaces the allocation functions, mmap and
// pthread_create of the program that includes this, and walks through the allocations of an
// action.
#pragma once
#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <optional>
#include <thread>
#include <type_traits>

#include "support.hpp"

// Those that take memory in ways of their own: Thrust's systems differ in their threads alone.
#if defined(_OPENMP) && !defined(MULTISTAGE_TEST_CPU_ALONE)
#define FAULT_BACKENDS ms::cpu, ms::eigen, ms::thrust_omp
#else
#define FAULT_BACKENDS BACKENDS
#endif

namespace fault {

std::atomic<long> until{0};  // allocations, or threads, until the one that fails; 0: none does
std::atomic<bool> lasts{false};  // whether those after it fail too
std::atomic<bool> struck{false};
std::atomic<int> threads_left{-1};  // that can be started; below 0: any number

bool strikes() {
  if (until.load() <= 0)
    return lasts.load() && struck.load();
  if (until.fetch_sub(1) != 1)
    return false;
  struck = true;
  return true;
}
void arm(long n, bool lasting) {
  struck = false;
  lasts = lasting;
  until = n;
}
/// Returns whether anything failed.
bool disarm() {
  lasts = false;
  until = 0;
  return struck;
}

}  // namespace fault

extern "C" void* __real_malloc(std::size_t n);
/// The linker puts this where this program's own code (Eigen's headers) calls malloc.
extern "C" void* __wrap_malloc(std::size_t n) {
  return fault::strikes() ? nullptr : __real_malloc(n);
}
[[gnu::noinline]] void* operator new(std::size_t n) {
  void* const p = fault::strikes() ? nullptr : __real_malloc(n ? n : 1);
  if (p == nullptr)
    throw std::bad_alloc();
  return p;
}
[[gnu::noinline]] void* operator new(std::size_t n, std::align_val_t a) {
  const std::size_t align = std::size_t(a);
  const std::size_t whole = (n + align - 1) / align * align;
  void* const p = fault::strikes() ? nullptr : std::aligned_alloc(align, whole);
  if (p == nullptr)
    throw std::bad_alloc();
  return p;
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
  std::free(p);
}
extern "C" void* mmap(void* address,
                      std::size_t n,
                      int protection,
                      int flags,
                      int file,
                      off_t offset) {
  if (file < 0 && fault::strikes())
    return MAP_FAILED;
  return reinterpret_cast<void*>(
      ::syscall(SYS_mmap, address, n, protection, flags, file, offset));
}
extern "C" int pthread_create(pthread_t* thread,
                              const pthread_attr_t* attributes,
                              void* (*run)(void*),
                              void* argument) {
  using function = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const function real = reinterpret_cast<function>(::dlsym(RTLD_NEXT, "pthread_create"));
  if (fault::threads_left.load() == 0)
    return EAGAIN;
  if (fault::threads_left.load() > 0)
    --fault::threads_left;
  return real(thread, attributes, run, argument);
}

namespace {

constexpr ms::song_unet tiny{.resolution = 4,
                             .channels = 1,
                             .encoder_channels = 8,
                             .channel_mult = {1, 2},
                             .num_blocks = 1,
                             .attn_resolutions = {2}};
constexpr ms::decoders three{{12, 8, 4}};
const ms::shape picture{1, 4, 4, 1};

template <class Backend>
using model_of = ms::dynamic_model<float, Backend>;
template <class Backend>
std::unique_ptr<model_of<Backend>> make_model(const Backend& b) {
  return std::make_unique<model_of<Backend>>(b, ms::configuration{tiny, three, {}},
                                             ms::partition({0.5, 20.0}), 1);
}
std::vector<float> pictures(ms::index_t n) {
  std::vector<float> v = test::normals<float>(n * 16, 6);
  for (float& x : v)
    x = std::clamp(0.5f * x, -1.0f, 1.0f);
  return v;
}
template <class T>
void append(std::vector<double>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

template <class Backend>
struct training {
  std::vector<float> images = pictures(20);
  std::unique_ptr<model_of<Backend>> model;
  std::optional<ms::trainer<float, Backend>> trainer;
  explicit training(const Backend& b) : model(make_model(b)) {}
  void start() {
    trainer.emplace(*model, std::span<const float>(images), ms::shape{20, 4, 4, 1},
                    ms::trainer_options{.learning_rate = 2e-3,
                                        .lr_rampup_kimg = 0,
                                        .batch_size = 8,
                                        .importance = {.bins = 2},
                                        .seed = 4});
  }
  /// All that a run carries on, after one more step.
  std::vector<double> state() {
    trainer->step();
    std::vector<double> all{double(trainer->steps()), trainer->images_seen()};
    append(all, model->weights().to_host());
    append(all, model->averaged_weights().to_host());
    append(all, trainer->first_moment().to_host());
    append(all, trainer->second_moment().to_host());
    append(all, trainer->counters().importance);
    return all;
  }
};

/// Fails the allocations of `act` one after the other, alone or with all that follow. After a
/// failure `act` is done again; what `look` sees then must be what it sees when nothing fails.
/// Each try is a thread of its own, whose scratch is as new as the objects. Returns how many
/// allocations there were, about. @param each so many of the first are all tried where
/// MULTISTAGE_THOROUGH is in the environment (tests/run.sh --thorough); else a few of them
template <class Backend, class Make, class Act, class Look>
long walk(int threads, bool lasting, Make make, Act act, Look look, long each = 100) {
  std::vector<double> undisturbed;
  const bool thorough = std::getenv("MULTISTAGE_THOROUGH") != nullptr;
  const long dense = thorough ? each : std::min(each, 40L);
  // 0: nothing fails. Where there are many (Eigen's expressions take memory a tile), some are
  // passed over behind the first.
  for (long n = 0;; n += n < dense ? 1 : n / (dense > 100 ? 20 : 5)) {
    bool struck = false;
    bool failed = false;
    std::string other;
    std::vector<double> seen;
    std::thread([&] {
      try {
        auto object = make(Backend(threads));
        if (n > 0)
          fault::arm(n, lasting);
        try {
          act(object);
        } catch (const std::bad_alloc&) {
          failed = true;
        }
        struck = fault::disarm();
        if (failed)
          act(object);
        seen = look(object);
      } catch (const std::exception& e) {
        fault::disarm();
        other = e.what();
      }
    }).join();
    INFO("allocation " << n << (lasting ? " and all that follow" : "") << ", " << threads
                       << " threads; " << other);
    REQUIRE(other.empty());
    REQUIRE(!seen.empty());
    if (n == 0)
      undisturbed = seen;
    else
      REQUIRE((seen == undisturbed));  // in brackets: thousands of numbers would be printed
    if (n > 0 && !struck)
      return n - 1;
  }
}
/// One failure on one thread, and one that lasts on several.
template <class Backend, class Make, class Act, class Look>
void walk_all(long least, Make make, Act act, Look look) {
  CHECK(walk<Backend>(1, false, make, act, look) >= least);
  CHECK(walk<Backend>(3, true, make, act, look) >= least);
}

}  // namespace
