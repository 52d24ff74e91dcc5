// Threads and what surrounds them: how many a process may keep busy, the mode they compute in,
// fork, and objects that serve one of them at a time.
#include <sched.h>
#include <sys/wait.h>

#include <atomic>
#include <cfenv>
#include <ctime>
#include <fstream>
#include <multistage/core/processors.hpp>
#include <thread>

#include "support.hpp"

namespace {

/// A system's files as a control group sees them.
struct fake_system {
  test::directory folder;
  const std::string root = folder / "root";
  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root + path).parent_path());
    std::ofstream(root + path) << text;
  }
  double quota() const {
    return ms::processors_detail::quota(root);
  }
};
const char* const version2 =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

constexpr ms::song_unet tiny{.resolution = 8,
                             .channels = 1,
                             .encoder_channels = 16,
                             .channel_mult = {1, 2},
                             .num_blocks = 1,
                             .attn_resolutions = {4}};
template <class Backend>
ms::dynamic_model<float, Backend> make_model(const Backend& b) {
  return {b, ms::configuration{tiny, {{16, 8}}, {}}, ms::partition({1.0}), 1};
}
template <class Backend>
std::vector<double> denoised(ms::dynamic_model<float, Backend>& m, double scale) {
  Backend& b = m.backend();
  std::vector<double> values = test::normals<double>(6 * 64, 3);
  for (double& v : values)
    v *= scale;
  const ms::tensor<double, Backend> x(b, m.images(6), values);
  ms::tensor<double, Backend> d(b, m.images(6));
  m.denoise(x.view(), std::vector<double>(6, 0.5), d.view());
  return d.to_host();
}
/// Ends the child of a fork with what `f` returns; a child that hangs is killed by its alarm.
int status_of_child(const std::function<int()>& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    int status = 99;
    try {
      status = f();
    } catch (const ms::state_error&) {
      status = 7;
    } catch (...) {
    }
    ::_exit(status);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

}  // namespace

TEST_CASE("control groups of version 2: the least quota of a group and those above it") {
  const fake_system s;
  CHECK(s.quota() == HUGE_VAL);  // no files at all
  s.write("/proc/self/mountinfo", version2);
  s.write("/proc/self/cgroup", "0::/batch/job_17\n");
  CHECK(s.quota() == HUGE_VAL);
  s.write("/sys/fs/cgroup/batch/job_17/cpu.max", "max 100000\n");
  CHECK(s.quota() == HUGE_VAL);
  s.write("/sys/fs/cgroup/batch/job_17/cpu.max", "650000 100000\n");
  CHECK(s.quota() == 6.5);
  s.write("/sys/fs/cgroup/batch/cpu.max", "400000 200000\n");
  CHECK(s.quota() == 2);
  s.write("/sys/fs/cgroup/cpu.max", "50000 100000\n");
  CHECK(s.quota() == 0.5);
  CHECK(ms::usable_processors(s.root) == 1);
  s.write("/sys/fs/cgroup/cpu.max", "nonsense\n");
  CHECK(s.quota() == 2);
}

TEST_CASE("control groups in a container: the mount's root is the container's group") {
  const fake_system s;
  s.write(
      "/proc/self/mountinfo",
      "40 30 0:30 /docker/ab12 /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup "
      "rw,cpu,cpuacct\n"
      "41 30 0:31 /docker/ab12 /sys/fs/cgroup/cpuset ro,nosuid - cgroup cgroup rw,cpuset\n");
  s.write("/proc/self/cgroup", "5:cpuset:/docker/ab12\n4:cpu,cpuacct:/docker/ab12\n");
  s.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  s.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  CHECK(s.quota() == HUGE_VAL);
  s.write("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n");
  CHECK(s.quota() == 2.5);
  s.write("/proc/self/cgroup", "4:cpu,cpuacct:/docker/ab12/inner\n");
  s.write("/sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_period_us", "50000\n");
  s.write("/sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us", "100000\n");
  CHECK(s.quota() == 2);
  // A name that only begins alike, and a path out of the namespace: the mount's own root
  // counts.
  s.write("/proc/self/cgroup", "4:cpu,cpuacct:/docker/ab12x\n");
  CHECK(s.quota() == 2.5);
  s.write("/proc/self/cgroup", "4:cpu,cpuacct:/../other\n");
  CHECK(s.quota() == 2.5);
}

TEST_CASE("0 threads: as many as the affinity allows") {
  cpu_set_t before;
  REQUIRE(::sched_getaffinity(0, sizeof before, &before) == 0);
  const int usual = ms::usable_processors();
  CHECK(usual <= CPU_COUNT(&before));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
    if (CPU_ISSET(i, &before))
      CPU_SET(i, &one);
  REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(ms::usable_processors() == 1);
  CHECK(ms::cpu(0).threads() == 1);
  REQUIRE(::sched_setaffinity(0, sizeof before, &before) == 0);
  CHECK(ms::cpu(0).threads() == usual);
}

TEST_CASE("threads beyond the processors sleep while they wait") {
  const int many = 4 * ms::usable_processors() + 1;
  const ms::cpu b(many);
  std::atomic<int> late{0};
  const std::clock_t begin = std::clock();
  // One task sleeps; nobody may spend the time of the others by looking.
  b.pool().parallel_for(many, [&](ms::index_t i) {
    if (i == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(500)), ++late;
  });
  const double spent = double(std::clock() - begin) / CLOCKS_PER_SEC;
  CHECK(late == 1);
  CHECK(spent < 0.25);  // of 0.5 s by each of the others
}

#if defined(__x86_64__)
TEST_CASE("a thread that wakes when its pool ends does not take up the last job again") {
  std::atomic<bool> over{true};
  std::atomic<long> late{0};
  for (int k = 0; k < 3'000; ++k) {
    ms::thread_pool pool(4);
    over = false;
    pool.parallel_for(3, [&](ms::index_t) { late += over ? 1 : 0; });
    over = true;
  }
  CHECK(late == 0);
}

TEST_CASE("a pool's threads compute in their caller's mode, each of them") {
  ms::thread_pool pool(4);
  const auto products = [&] {  // one of each thread: no task ends before all have begun
    std::vector<float> found(4);
    std::atomic<int> begun{0};
    pool.parallel_for(4, [&](ms::index_t i) {
      for (++begun; begun < 4;)
        std::this_thread::yield();
      volatile float x = 3e-20f;
      found[std::size_t(i)] = x * 1e-20f;
    });
    return found;
  };
  const float tiny = products()[0];
  CHECK((tiny > 2.99e-40f && tiny < 3.01e-40f));
  const unsigned before = _mm_getcsr();
  for (int i = 0; i < 3; ++i) {
    _mm_setcsr(before | 0x8000);
    const std::vector<float> flushed = products();
    _mm_setcsr(before);
    CHECK(flushed == std::vector<float>(4, 0.0f));
    CHECK(products() == std::vector<float>(4, tiny));
  }
}

TEMPLATE_TEST_CASE("threads compute in their caller's mode", "", BACKENDS) {
  TestType b(4);
  constexpr ms::index_t n = 1 << 16;
  const auto compute = [&] {  // products that are denormal, and quotients that are rounded
    ms::tensor<float, TestType> x(b, {1, 1, 1, n}, std::vector<float>(std::size_t(n), 3e-20f)),
        y(b, {1, 1, 1, n});
    ms::ops::linear_combination<TestType, float>(b, n, y.data(), {{1e-20f, x.data()}});
    ms::ops::linear_combination<TestType, float>(b, n, x.data(), {{1 / 3.0f, x.data()}});
    const std::vector<float> all = y.to_host();
    const std::vector<float> others = x.to_host();
    CHECK(std::count(all.begin(), all.end(), all[0]) == n);
    CHECK(std::count(others.begin(), others.end(), others[0]) == n);
    return std::pair{all[0], others[0]};
  };
  const auto usual = compute();  // the threads are there from here on
  CHECK((usual.first > 2.99e-40f && usual.first < 3.01e-40f));
  const unsigned before = _mm_getcsr();
  for (int i = 0; i < 5; ++i) {
    _mm_setcsr(before | 0x8040);  // flush to zero, denormals are zero
    const auto flushed = compute();
    _mm_setcsr(before);
    CHECK(flushed.first == 0);
    CHECK(compute() == usual);
    std::fesetround(FE_UPWARD);
    const auto up = compute();
    std::fesetround(FE_DOWNWARD);
    const auto down = compute();
    std::fesetround(FE_TONEAREST);
    CHECK(up.second > down.second);
    CHECK(compute() == usual);
  }
}
#endif

TEMPLATE_TEST_CASE("a network's bits do not depend on which thread has which mode",
                   "",
                   BACKENDS) {
  auto m = make_model(TestType(4));
  const auto usual = denoised(m, 1);
#if defined(__x86_64__)
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);
  const auto first = denoised(m, 1e-38);
  for (int i = 0; i < 20; ++i)
    CHECK((denoised(m, 1e-38) == first));
  _mm_setcsr(before);
#endif
  CHECK((denoised(m, 1) == usual));
}

TEST_CASE("a model in use by one thread is refused to another") {
  const ms::cpu b(2);
  auto m = make_model(b);
  const std::vector<float> images = [] {
    std::vector<float> v = test::normals<float>(10 * 64, 1);
    for (float& x : v)
      x = std::clamp(x, -1.0f, 1.0f);
    return v;
  }();
  ms::trainer trainer{
      m, std::span<const float>(images), ms::shape{10, 8, 8, 1}, {.batch_size = 4}};
  const auto elsewhere = [](const std::function<void()>& f) {
    std::string text;
    std::thread([&] { text = test::message(f); }).join();
    return text;
  };
  const auto sample = [&] {
    ms::sample(m, ms::edm_heun{.num_steps = 2}, {.seeds = "0"});
  };
  int asked = 0;
  ms::sample(m, ms::edm_heun{.num_steps = 2},
             {.seeds = "0", .observer = [&](const ms::sampling_step&) {
                ++asked;
                CHECK_THAT(elsewhere([&] { denoised(m, 1); }),
                           Catch::Contains("model: is in use by another thread"));
                CHECK_THAT(elsewhere(sample), Catch::Contains("in use by another thread"));
                CHECK_THAT(elsewhere([&] { trainer.step(); }),
                           Catch::Contains("in use by another thread"));
                CHECK_THAT(elsewhere([&] { m.weights(); }),
                           Catch::Contains("in use by another thread"));
                denoised(m, 1);  // the user itself may
                return true;
              }});
  CHECK(asked > 0);
  CHECK(elsewhere(sample) == "nothing");  // free again
  CHECK(trainer.steps() == 0);
  trainer.step();

  // Two at once: each either computes what one alone computes, or is told.
  const auto want = denoised(m, 1);
  std::atomic<int> right{0};
  std::atomic<int> wrong{0};
  std::atomic<int> told{0};
  const auto many = [&] {
    for (int i = 0; i < 200; ++i)
      try {
        denoised(m, 1) == want ? ++right : ++wrong;
      } catch (const ms::state_error&) {
        ++told;
      }
  };
  std::thread other(many);
  many();
  other.join();
  CHECK(wrong == 0);
  CHECK(right + told == 400);
  CHECK(right > 0);

  // An exception frees it too.
  CHECK_THROWS_AS(m.denoise({}, std::vector<double>(3, 1.0), {}), ms::error);
  CHECK(elsewhere(sample) == "nothing");
}

TEMPLATE_TEST_CASE("models of two threads may share a backend", "", ms::cpu, ms::thrust_cpp) {
  const TestType b(2);
  auto one = make_model(b);
  auto two = make_model(b);
  const auto want = denoised(one, 1);
  const auto far = denoised(two, 3);
  bool same = true;
  std::thread other([&] {
    for (int i = 0; i < 100; ++i)
      same = same && denoised(two, 3) == far;
  });
  bool here = true;
  for (int i = 0; i < 100; ++i)
    here = here && denoised(one, 1) == want;
  other.join();
  CHECK(same);
  CHECK(here);
}

TEST_CASE("an optimal denoiser in use is refused too") {
  const ms::cpu b(1);
  const auto images = test::random_tensor<double>(b, {600, 1, 1, 4}, 1);
  const ms::image_source source{{600, 1, 1, 4},
                                [&](std::span<const ms::index_t> rows, float* to) {
                                  for (const ms::index_t row : rows)
                                    to = std::copy_n(images.data() + row * 4, 4, to);
                                  std::this_thread::sleep_for(std::chrono::milliseconds(200));
                                }};
  const ms::optimal_denoiser<double, ms::cpu> best(b, source);
  const auto ask = [&] {
    const ms::tensor<double, ms::cpu> x(b, {1, 1, 1, 4});
    ms::tensor<double, ms::cpu> d(b, {1, 1, 1, 4});
    best(x.view(), std::vector<double>{1.0}, d.view());
  };
  std::thread first(ask);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  CHECK_THAT(test::message(ask),
             Catch::Contains("optimal_denoiser: is in use by another thread"));
  first.join();
  ask();
}

#if !defined( \
    __SANITIZE_THREAD__)  // ThreadSanitizer does not follow threads into a child of fork
TEST_CASE("a child of fork computes on threads of its own") {
  auto m = make_model(ms::cpu(3));
  const auto want = denoised(m, 1);
  const auto right = [&] {
    return denoised(m, 1) == want ? 5 : 6;
  };
  CHECK(status_of_child(right) == 5);
  CHECK(status_of_child([&] { return status_of_child(right); }) == 5);  // and its child
  CHECK((denoised(m, 1) == want));

  // While another thread is at work in the pool, which holds its mutex.
  auto busy = make_model(m.backend());
  std::atomic<bool> stop{false};
  std::atomic<bool> begun{false};
  std::thread other([&] {
    while (!stop)
      denoised(busy, 1), begun = true;
  });
  while (!begun)
    std::this_thread::yield();
  for (int i = 0; i < 20; ++i)
    CHECK(status_of_child(right) == 5);
  // Of a model that the other thread was in the middle of, the child is told, or it was just
  // free.
  for (int i = 0; i < 20; ++i) {
    const int status = status_of_child([&] { return denoised(busy, 1) == want ? 5 : 6; });
    CHECK((status == 5 || status == 7));
  }
  stop = true;
  other.join();

  // Pools end with the child, too: theirs are the parent's threads.
  CHECK(status_of_child([] {
          { const ms::cpu unused(4); }
          return 5;
        }) == 5);
  auto own = std::make_unique<ms::thread_pool>(3);
  CHECK(status_of_child([&] {
          own.reset();
          return 5;
        }) == 5);
#if !defined(__SANITIZE_ADDRESS__)  // which reports the parent's memory as lost
  CHECK(status_of_child([&] {
          std::exit(5);  // the shared pool of default handles is destroyed
          return 6;
        }) == 5);
#endif
}

TEST_CASE("a task that forks: its child is told that the others are lost") {
  ms::thread_pool pool(2);
  std::atomic<int> status{-1};
  const auto caller = std::this_thread::get_id();
  bool child = false;
  try {
    pool.parallel_for(200, [&](ms::index_t) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (std::this_thread::get_id() != caller || status >= 0 || child)
        return;
      const pid_t id = ::fork();
      child = id == 0;
      if (child) {
        ::alarm(60);
        return;
      }
      int s = 0;
      ::waitpid(id, &s, 0);
      status = WIFEXITED(s) ? WEXITSTATUS(s) : 1000 + WTERMSIG(s);
    });
  } catch (const ms::state_error&) {
    if (child)
      ::_exit(7);
    throw;
  }
  if (child)
    ::_exit(6);
  CHECK(status == 7);
}

#if defined(_OPENMP)
TEST_CASE("OpenMP's threads do not outlive fork, and the child is told") {
  auto m = make_model(ms::thrust_omp(3));
  const auto want = denoised(m, 1);
  CHECK(status_of_child([&] { return denoised(m, 1) == want ? 5 : 6; }) == 7);
  CHECK((denoised(m, 1) == want));
}
#endif
#endif
