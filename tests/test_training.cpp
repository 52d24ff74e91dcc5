// The trainer: that it learns, repeats itself bit by bit, resumes, stops on what is not finite,
// and refuses what cannot train.
#include <cmath>
#include <filesystem>
#include <multistage/io.hpp>
#include <multistage/metrics/frechet_distance.hpp>
#include <multistage/stages/interval_clustering.hpp>
#include <multistage/training/gradient_affinity.hpp>

#include "support.hpp"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MULTISTAGE_COUNT_ALLOCATIONS
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <new>

namespace {
int allocations = 0;  // of tensors and scratch: aligned pieces, and pages from the system
}
void* operator new(std::size_t n, std::align_val_t a) {
  ++allocations;
  void* p = std::aligned_alloc(std::size_t(a),
                               (n + std::size_t(a) - 1) / std::size_t(a) * std::size_t(a));
  if (p == nullptr)
    throw std::bad_alloc();
  return p;
}
void operator delete(void* p, std::align_val_t) noexcept {
  std::free(p);
}
void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
  std::free(p);
}
extern "C" void* mmap(void* address,
                      std::size_t n,
                      int protection,
                      int flags,
                      int file,
                      off_t offset) {
  ++allocations;
  return reinterpret_cast<void*>(
      ::syscall(SYS_mmap, address, n, protection, flags, file, offset));
}
#endif

namespace {

using test::directory;
using test::message;

constexpr ms::song_unet tiny{.resolution = 4,
                             .channels = 1,
                             .encoder_channels = 8,
                             .channel_mult = {1, 2},
                             .num_blocks = 1,
                             .attn_resolutions = {2}};
constexpr ms::decoders three{{12, 8, 4}};
const ms::partition boundaries({0.5, 20.0});

/// Bars of 4x4: half the images have a bright row, half a bright column, with a little noise.
std::vector<float> images(ms::index_t n = 40) {
  std::vector<float> v = test::normals<float>(n * 16, 6);
  for (ms::index_t i = 0; i < n * 16; ++i) {
    const ms::index_t image = i / 16;
    const ms::index_t row = i / 4 % 4;
    const ms::index_t column = i % 4;
    v[i] =
        std::clamp(0.1f * v[i] + ((image % 2 ? row : column) == image / 2 % 4 ? 0.8f : -0.6f),
                   -1.0f, 1.0f);
  }
  return v;
}
template <class Backend = ms::cpu>
ms::dynamic_model<float, Backend> model(Backend b = Backend(), std::uint64_t seed = 1) {
  return {b, {tiny, three, {}}, boundaries, seed};
}
template <class Model>
auto train(Model& m, ms::trainer_options o, const std::vector<float>& v = images()) {
  return ms::trainer{m, std::span<const float>(v),
                     ms::shape{ms::index_t(v.size()) / 16, 4, 4, 1}, std::move(o)};
}
const ms::trainer_options usual{.learning_rate = 2e-3,
                                .lr_rampup_kimg = 0.1,
                                .batch_size = 16,
                                .least_stage_share = 0.1,
                                .seed = 4};

}  // namespace

TEMPLATE_TEST_CASE("the loss of every stage falls", "", BACKENDS) {
  auto m = model<TestType>();
  auto t = train(m, usual);
  std::vector<double> early(3, 0.0), late(3, 0.0), early_rows(3, 0.0), late_rows(3, 0.0);
  for (int i = 0; i < 400; ++i) {
    const auto r = t.step();
    CHECK(r.step == i + 1);
    for (int s = 0; s < 3; ++s)
      if (r.rows[s] > 0) {
        if (i < 40)
          early[s] += r.loss[s] * double(r.rows[s]), early_rows[s] += double(r.rows[s]);
        if (i >= 360)
          late[s] += r.loss[s] * double(r.rows[s]), late_rows[s] += double(r.rows[s]);
      }
  }
  for (int s = 0; s < 3; ++s) {
    INFO("stage " << s << ": " << early[s] / early_rows[s] << " -> " << late[s] / late_rows[s]);
    // At stage 2's noise levels the best guess is the mean image, and little can be won beyond
    // it.
    CHECK(late[s] / late_rows[s] < (s == 2 ? 0.97 : 0.8) * early[s] / early_rows[s]);
  }
  CHECK(t.images_seen() == 400 * 16);
}

#ifdef MULTISTAGE_COUNT_ALLOCATIONS
TEST_CASE("steps and evaluations take no memory for tensors after the first ones") {
  auto m = model(ms::cpu(1));
  auto t = train(m, usual);
  allocations = 0;
  for (int i = 0; i < 8; ++i)
    t.step();
  CHECK(allocations > 0);  // the counter counts
  allocations = 0;
  for (int i = 0; i < 30; ++i)
    t.step();
  CHECK(allocations == 0);
  ms::cpu& b = m.backend();
  ms::tensor<double, ms::cpu> x(b, m.images(6)), d(b, m.images(6));
  const auto evaluate = [&](double sigma) {
    m.denoise(std::as_const(x).view(), std::vector<double>(6, sigma), d.view());
  };
  for (const double sigma : {0.1, 5.0, 50.0})
    evaluate(sigma);
  allocations = 0;
  for (const double sigma : {0.1, 0.2, 5.0, 50.0})
    evaluate(sigma);
  CHECK(allocations == 0);
}
#endif

TEST_CASE("rows are drawn from stages by their probabilities") {
  auto m = model();
  auto t = train(m, usual);
  double sum = 0;
  for (double p : t.probabilities()) {
    CHECK(p >= 0.1 - 1e-12);
    sum += p;
  }
  CHECK(sum == Approx(1));
  std::vector<double> rows(3, 0.0);
  for (int i = 0; i < 100; ++i) {
    const auto r = t.step();
    for (int s = 0; s < 3; ++s)
      rows[s] += double(r.rows[s]);
  }
  for (int s = 0; s < 3; ++s)
    CHECK(std::fabs(rows[s] / 1600 - t.probabilities()[s]) < 0.05);  // four standard deviations
  auto o = usual;
  o.stage_probabilities = {0, 1, 0};
  o.least_stage_share = 0;
  auto only = train(m, o);
  CHECK(only.step().rows == std::vector<ms::index_t>{0, 16, 0});
}

TEST_CASE("a decoder without rows is left alone") {
  auto m = model();
  auto o = usual;
  o.stage_probabilities = {1, 0, 0};
  o.least_stage_share = 0;
  auto t = train(m, o);
  const auto before = m.weights().to_host();
  t.step();
  t.step();
  const auto after = m.weights().to_host();
  for (const ms::parameter& p : m.network().parameters)
    if (p.segment >= 2)
      CHECK(std::equal(before.begin() + p.offset, before.begin() + p.offset + p.size(),
                       after.begin() + p.offset));
  CHECK(t.counters().updates == std::vector<ms::index_t>{2, 2, 0, 0});
  CHECK(before != after);
}

TEMPLATE_TEST_CASE("a step done in parts has the bits of the step done at once", "", BACKENDS) {
  ms::song_unet net = tiny;
  net.label_dim = 2;
  net.dropout = 0.3;
  const auto v = images();
  std::vector<int> classes;
  for (int i = 0; i < 40; ++i)
    classes.push_back(i % 2);
  struct outcome {
    std::vector<float> gradient;
    std::vector<float> weights;
    std::vector<double> losses;
  };
  const auto run = [&](ms::index_t batch, ms::index_t micro_batch, bool checkpoint) {
    ms::trainer_options o = usual;
    o.batch_size = batch;
    o.micro_batch = micro_batch;
    o.label_dropout = 0.2;
    o.augmented = 64;
    o.checkpoint_activations = checkpoint;
    ms::dynamic_model<float, TestType> m(TestType(), {net, three, {}}, boundaries, 1);
    ms::trainer t{m, std::span<const float>(v), ms::shape{40, 4, 4, 1}, o,
                  std::span<const int>(classes)};
    outcome found;
    for (int i = 0; i < 3; ++i)
      for (const double loss : t.step().loss)
        found.losses.push_back(loss);
    found.gradient = t.gradient().to_host();
    found.weights = m.weights().to_host();
    return found;
  };
  const outcome whole = run(70, 0, false);  // no multiple of a piece, stages cut anywhere
  for (const float g : whole.gradient)
    REQUIRE(std::isfinite(g));
  for (const ms::index_t micro_batch : {16, 32, 48, 80})
    for (const bool checkpoint : {false, true}) {
      INFO("micro_batch " << micro_batch << ", checkpointing " << checkpoint);
      const outcome parts = run(70, micro_batch, checkpoint);
      CHECK(parts.losses == whole.losses);
      CHECK(parts.gradient == whole.gradient);
      CHECK(parts.weights == whole.weights);
    }
  CHECK(run(70, 0, true).weights == whole.weights);
  CHECK_THAT(message([&] { run(70, 24, false); }), Catch::Contains("micro_batch = 24"));
}

#ifdef MULTISTAGE_COUNT_ALLOCATIONS  // sanitizers keep memory of their own
TEST_CASE("a run keeps to the memory that it was given") {
  ms::song_unet net = tiny;
  net.resolution = 16;
  net.encoder_channels = 24;
  net.num_blocks = 2;
  const std::vector<float> v = test::normals<float>(20 * 256, 3);
  // The most memory that a process has which trains and saves, and how it did.
  struct outcome {
    double peak = 0;
    ms::index_t planned = 0;
    ms::index_t in_use = 0;  // of it, before
    ms::index_t micro_batch = 0;
    int checkpoint = 0;
  };
  const test::directory dir;
  const auto run = [&](ms::index_t memory) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        // Of this process, which a limit would be counted against and no limit would not: what
        // the tests before left behind.
        ms::release_freed_memory();
        ms::dynamic_model<float, ms::cpu> m(ms::cpu(2), {net, three, {}}, boundaries, 1);
        ms::trainer t{m, std::span<const float>(v), ms::shape{20, 16, 16, 1},
                      ms::trainer_options{.batch_size = 128, .memory = memory}};
        t.step();
        ms::save(dir / "m", t);
        const ms::memory_plan& plan = t.memory();
        const outcome found{0, plan.total(), plan.in_use, plan.micro_batch, plan.checkpoint};
        ::_exit(::write(ends[1], &found, sizeof found) == sizeof found ? 0 : 2);
      } catch (...) {
        ::_exit(1);
      }
    }
    int status = 0;
    struct rusage usage {};
    ::wait4(child, &status, 0, &usage);
    outcome found;
    if (status == 0)
      REQUIRE(::read(ends[0], &found, sizeof found) == sizeof found);
    ::close(ends[0]);
    ::close(ends[1]);
    found.peak = double(usage.ru_maxrss) * 1024;
    return found;
  };
  const outcome free = run(0);
  REQUIRE(free.micro_batch == 128);
  CHECK(free.peak <= double(free.planned));
  // Less and less, until what is left is refused.
  outcome last = free;
  while (true) {
    const ms::index_t memory = last.planned - (1 << 20);
    const outcome found = run(memory);
    if (found.micro_batch == 0)
      break;
    INFO("limit " << memory << ", planned " << found.planned << ", peak " << found.peak << ", "
                  << found.micro_batch << " rows, checkpointing " << found.checkpoint);
    CHECK(found.planned <= memory);
    CHECK(found.peak <= double(found.planned));
    // What a process has from the start differs by some pages; where it leaves less than the
    // last way took, the way must be another.
    if (memory - found.in_use < last.planned - last.in_use)
      CHECK((found.micro_batch < last.micro_batch || found.checkpoint > last.checkpoint));
    last = found;
  }
  CHECK(last.micro_batch == 16);
  CHECK(last.checkpoint == 1);
  CHECK(last.peak < 0.75 * free.peak);
}
#endif

TEST_CASE("training repeats itself for a seed, whatever the threads") {
  std::vector<float> first;
  for (int threads : {1, 2, 5}) {
    auto m = model(ms::cpu(threads));
    auto t = train(m, usual);
    for (int i = 0; i < 6; ++i)
      t.step();
    if (first.empty())
      first = m.weights().to_host();
    CHECK(m.weights().to_host() == first);
  }
  auto other = usual;
  other.seed = 5;
  auto m = model();
  auto t = train(m, other);
  for (int i = 0; i < 6; ++i)
    t.step();
  CHECK(m.weights().to_host() != first);
}

TEST_CASE("a resumed run equals an uninterrupted one bit by bit") {
  directory dir;
  auto whole = model();
  auto t = train(whole, usual);
  for (int i = 0; i < 9; ++i)
    t.step();

  auto first = model();
  auto a = train(first, usual);
  for (int i = 0; i < 4; ++i)
    a.step();
  ms::save(dir / "m.safetensors", a);
  auto second = model(ms::cpu(), 77);  // other initial weights, to be replaced
  auto b = train(second, usual);
  ms::resume(dir / "m.safetensors", b);
  for (int i = 0; i < 5; ++i)
    b.step();
  CHECK(second.weights().to_host() == whole.weights().to_host());
  CHECK(second.averaged_weights().to_host() == whole.averaged_weights().to_host());
  CHECK(b.first_moment().to_host() == t.first_moment().to_host());
  CHECK(b.counters().updates == t.counters().updates);
}

TEST_CASE(
    "stages can be trained for different lengths, together or one after the other, and "
    "resumed") {
  directory dir;
  auto o = usual;
  o.stage_kimg = {0.064, 0.032, 0.048};
  o.stage_probabilities = {1, 1, 1};
  {
    auto m = model();
    auto t = train(m, o);
    while (!t.done())
      t.step();
    for (int s = 0; s < 3; ++s) {
      CHECK(t.stage_images()[s] >= o.stage_kimg[s] * 1000);
      CHECK(t.stage_images()[s] < o.stage_kimg[s] * 1000 + 16);
    }
    CHECK_THAT(message([&] { t.step(); }), Catch::Contains("nothing is left to train"));
  }
  o.one_after_the_other = true;
  o.shared_kimg = 0.064;  // what the first stage made of the encoder stays
  auto whole = model();
  auto t = train(whole, o);
  std::vector<std::vector<ms::index_t>> rows;
  std::vector<float> shared;
  const auto [begin, end] = whole.network().parameter_range(0);
  for (int i = 0; i < 9; ++i) {
    rows.push_back(t.step().rows);
    const auto w = whole.weights().to_host();
    if (i == 3)
      shared.assign(w.begin() + begin, w.begin() + end);
    if (i > 3)
      CHECK(std::equal(shared.begin(), shared.end(), w.begin() + begin));
  }
  CHECK(t.done());
  for (int i = 0; i < 9; ++i)
    CHECK(rows[i][i < 4 ? 0 : i < 6 ? 1 : 2] == 16);
  auto first = model();
  auto a = train(first, o);
  for (int i = 0; i < 5; ++i)
    a.step();
  ms::save(dir / "m.safetensors", a);
  auto second = model(ms::cpu(), 77);
  auto b = train(second, o);
  ms::resume(dir / "m.safetensors", b);
  const ms::run_result r =
      ms::run(b, {.steps = 100}, [](const ms::loss_point&, double) { return true; });
  CHECK(r.images == 4 * 16);
  CHECK(second.weights().to_host() == whole.weights().to_host());
  o.stage_kimg.clear();
  CHECK_THAT(message([&] { train(second, o); }), Catch::Contains("needs stage_kimg"));
}

TEST_CASE("each stage's average has its own half-life") {
  auto m = model();
  auto o = usual;
  o.ema_rampup_ratio = 0;
  o.ema_halflife_kimg = 1e9;
  o.stage_ema_halflife_kimg = {0.016, 1e9, 1e9};  // a batch
  o.stage_probabilities = {1, 1, 1};
  auto t = train(m, o);
  const auto before = m.weights().to_host();
  t.step(), t.step();
  const auto now = m.weights().to_host();
  const auto average = m.averaged_weights().to_host();
  // The rate is 0 at the first step (its ramp begins there), so that the second alone moved the
  // weights, and the average half of their way.
  bool moved = false;
  for (const auto& p : m.network().parameters)
    for (ms::index_t i = p.offset; i < p.offset + p.size(); ++i) {
      REQUIRE(average[i] ==
              Approx(p.segment == 1 ? 0.5 * (double(before[i]) + double(now[i])) : before[i])
                  .margin(1e-7));  // float's rounding
      moved = moved || (p.segment == 1 && std::fabs(now[i] - before[i]) > 1e-5);
    }
  CHECK(moved);
}

TEST_CASE(
    "noise levels drawn by importance keep the loss's mean and favour bins of large losses") {
  ms::importance_sampler s({.bins = 4, .history = 3, .uniform = 0.1}, 2);
  for (int k = 0; k < 3; ++k)
    for (int bin = 0; bin < 4; ++bin)
      s.record(1, bin, bin + 1.0);
  CHECK(s.probabilities(0) == std::vector<double>(4, 0.25));  // has seen nothing
  const auto p = s.probabilities(1);
  for (int bin = 0; bin < 4; ++bin)
    CHECK(p[bin] == Approx(0.9 * (bin + 1) / 10.0 + 0.025));
  // The weighted mean of any function of u is its plain mean.
  double mean = 0;
  double share[4] = {0, 0, 0, 0};
  constexpr int n = 100'000;
  for (int i = 0; i < n; ++i) {
    const auto at = s.place(1, (i + 0.5) / n);
    CHECK((at.u > at.bin / 4.0 && at.u < (at.bin + 1) / 4.0));
    mean += at.weight * at.u * at.u / n;
    share[at.bin] += 1.0 / n;
  }
  CHECK(mean == Approx(1 / 3.0).epsilon(1e-4));
  for (int bin = 0; bin < 4; ++bin)
    CHECK(share[bin] == Approx(p[bin]).epsilon(1e-3));
  // In training, and across a resume.
  directory dir;
  auto o = usual;
  o.importance = {.bins = 3, .history = 2};
  auto whole = model();
  auto first = model();
  auto second = model(ms::cpu(), 77);
  auto t = train(whole, o);
  auto a = train(first, o);
  for (int i = 0; i < 12; ++i)
    t.step();
  for (int i = 0; i < 7; ++i)
    a.step();
  ms::save(dir / "m.safetensors", a);
  auto b = train(second, o);
  ms::resume(dir / "m.safetensors", b);
  for (int i = 0; i < 5; ++i)
    b.step();
  CHECK(second.weights().to_host() == whole.weights().to_host());
  auto plain = train(second, usual);
  CHECK_THAT(message([&] { ms::resume(dir / "m.safetensors", plain); }),
             Catch::Contains("other options") && Catch::Contains("importance."));
  CHECK_THAT(
      message([&] { ms::resume(dir / "m.safetensors", plain, {.other_options = true}); }),
      Catch::Contains("same bins"));
}

TEST_CASE(
    "gradients of near noise levels are more alike than those of far ones, and make stages") {
  ms::song_unet net = tiny;
  ms::dynamic_model<float, ms::cpu> m(ms::cpu(), {net, {.widths = {8}}, {}}, ms::partition(),
                                      1);
  auto t = train(m, usual);
  for (int i = 0; i < 60; ++i)
    t.step();
  const auto weights = m.weights().to_host();
  ms::gradient_affinity affinity({0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6}, 32);
  CHECK_THAT(message([&] { affinity.matrix(); }), Catch::Contains("nothing was collected"));
  affinity.collect(t);
  CHECK(m.weights().to_host() == weights);
  const auto after_one = affinity.matrix();
  for (int i = 0; i < 20; ++i)
    t.step();
  affinity.collect(t);
  const auto a = affinity.matrix();
  double near = 0;
  double far = 0;
  for (int i = 0; i < 10; ++i) {
    CHECK(a[i * 10 + i] == Approx(1).epsilon(1e-4));
    for (int j = 0; j < i; ++j)
      CHECK(a[i * 10 + j] == Approx(a[j * 10 + i]).margin(1e-6));
    if (i > 0)
      near += a[i * 10 + i - 1] / 9;
  }
  for (int i = 0; i < 3; ++i)
    far += a[i * 10 + 9 - i] / 3;
  INFO("near " << near << ", far " << far);
  CHECK(near > far + 0.2);
  CHECK(ms::cluster_by_gradient(a, 3).size() == 3);
  // Against the definition: the cosine of the gradients of two levels.
  const auto gradient = [&](double sigma) {
    t.differentiate(std::vector<double>(32, sigma));
    const auto v = t.gradient().to_host();
    return std::vector<double>(v.begin(), v.end());
  };
  ms::gradient_affinity fresh({0.1, 6.4}, 32);
  fresh.collect(t);
  const auto g = gradient(0.1);
  const auto h = gradient(6.4);
  CHECK(fresh.matrix()[1] ==
        Approx(test::dot(g, h) / std::sqrt(test::dot(g, g) * test::dot(h, h))).epsilon(1e-3));
}

TEST_CASE("with augmented dimensions the noise is Student's t") {
  // The loss of a network that knows nothing is that of c_skip and c_out alone; what is drawn
  // shows in x through its mean square: A / (A - 2) for A > 2.
  const auto mean_loss = [&](int augmented) {
    auto m = model();
    auto w = m.weights().to_host();
    std::fill(w.begin(), w.end(), 0.0f);
    m.backend().upload(w.data(), m.weights().data(), ms::index_t(w.size()));
    auto o = usual;
    o.augmented = augmented;
    const std::vector<float> grey(40 * 16, 0.0f);
    auto v = grey;
    v[0] = 1e-3f;  // a data set must vary
    auto t = train(m, o, v);
    double sum = 0;
    const std::vector<double> sigmas(4000, 10.0);
    for (const double l : t.differentiate(sigmas).loss)
      if (!std::isnan(l))
        sum += l;
    return sum;
  };
  const double gaussian = mean_loss(0);
  CHECK(mean_loss(10) / gaussian == Approx(10 / 8.0).epsilon(0.08));
  CHECK(mean_loss(200) / gaussian == Approx(200 / 198.0).epsilon(0.03));
}

TEST_CASE("a checkpoint rebuilds the model from the file alone, and draws the same pictures") {
  directory dir;
  auto m = model();
  auto t = train(m, usual);
  for (int i = 0; i < 5; ++i)
    t.step();
  ms::save(dir / "m.safetensors", t);
  auto again = ms::load(dir / "m.safetensors", ms::cpu());
  CHECK(again.stages() == m.stages());
  CHECK(again.parameter_count() == m.parameter_count());
  CHECK(ms::sample(again, ms::edm_heun{.num_steps = 3}, {.seeds = "0-2"}).images ==
        ms::sample(m, ms::edm_heun{.num_steps = 3}, {.seeds = "0-2"}).images);
  auto bare = model(ms::cpu(), 5);
  ms::load_weights(dir / "m.safetensors", bare);
  CHECK(bare.weights().to_host() == m.averaged_weights().to_host());
  const ms::io::safetensors f(dir / "m.safetensors");
  CHECK(f.entry("model.decs.1.4x4_block0.conv0.weight").extents ==
        std::vector<ms::index_t>{8, 24, 3, 3});  // upstream's layout
}

TEST_CASE("a model with classes learns them") {
  ms::song_unet net = tiny;
  net.label_dim = 2;
  ms::dynamic_model<float, ms::cpu> m(ms::cpu(), {net, three, {}}, boundaries, 1);
  const auto v = images();
  std::vector<int> classes;
  for (int i = 0; i < 40; ++i)
    classes.push_back(i % 2);  // bright rows, bright columns
  const ms::shape s{40, 4, 4, 1};
  CHECK_THAT(message([&] {
               ms::trainer t{m, std::span<const float>(v), s, usual};
             }),
             Catch::Contains("0 class labels for 40 images and a model of 2 classes"));
  auto wrong = classes;
  wrong[7] = 2;
  CHECK_THAT(
      message([&] {
        ms::trainer t{m, std::span<const float>(v), s, usual, std::span<const int>(wrong)};
      }),
      Catch::Contains("image 7 is of class 2"));
  ms::trainer t{m, std::span<const float>(v), s, usual, std::span<const int>(classes)};
  for (int i = 0; i < 600; ++i)
    t.step();
  // How bright the brightest row is against the brightest column tells the classes apart.
  for (int label : {0, 1}) {
    const auto drawn =
        ms::sample(m, ms::edm_heun{.num_steps = 12}, {.seeds = "0-31", .class_label = label})
            .images;
    double score = 0;
    for (int k = 0; k < 32; ++k) {
      double row = -9;
      double column = -9;
      for (int i = 0; i < 4; ++i) {
        double r = 0;
        double c = 0;
        for (int j = 0; j < 4; ++j)
          r += drawn[k * 16 + i * 4 + j], c += drawn[k * 16 + j * 4 + i];
        row = std::max(row, r);
        column = std::max(column, c);
      }
      score += (row - column) / 32;
    }
    INFO("label " << label << ", rows brighter by " << score);
    CHECK((label == 1 ? score > 1 : score < -1));
  }
}

TEST_CASE("gradient clipping bounds the step, and the average follows the weights") {
  auto m = model();
  auto o = usual;
  o.gradient_clip = 1e-3;
  o.adam = {0, 0, 1e9};  // Adam becomes plain descent with rate / 1e9
  o.learning_rate = 1e9;
  o.lr_rampup_kimg = 0;
  auto t = train(m, o);
  const auto before = m.weights().to_host();
  const auto r = t.step();
  CHECK(r.gradient_norm > 1e-2);
  const auto after = m.weights().to_host();
  double moved = 0;
  for (std::size_t i = 0; i < before.size(); ++i)
    moved += std::pow(double(after[i]) - before[i], 2);
  CHECK(std::sqrt(moved) == Approx(1e-3).epsilon(0.02));
}

TEST_CASE("a value that is not finite stops training, says where, and changes nothing") {
  directory dir;
  auto m = model();
  auto t = train(m, usual);
  t.step();
  ms::save(dir / "good.safetensors", t);
  // A weight of the shared encoder, and one of stage 1's decoder.
  for (const char* name :
       {"model.enc.2x2_block0.conv1.weight", "model.decs.1.2x2_in1.conv0.weight"}) {
    ms::resume(dir / "good.safetensors", t);
    const auto k = std::find(m.parameter_names().begin(), m.parameter_names().end(), name) -
                   m.parameter_names().begin();
    REQUIRE(k < std::ptrdiff_t(m.parameter_names().size()));
    auto w = m.weights().to_host();
    w[m.network().parameters[k].offset] = INFINITY;
    m.backend().upload(w.data(), m.weights().data(), ms::index_t(w.size()));
    const std::string text = message([&] {
      for (int i = 0; i < 20; ++i)
        t.step();
    });
    CHECK_THAT(text, Catch::Contains("not finite at step 2") && Catch::Contains(name) &&
                         Catch::Contains("sigma"));
    CHECK(m.weights().to_host() == w);
    CHECK(t.steps() == 1);
    if (std::string(name).find("decs.1") != std::string::npos)
      CHECK_THAT(text, Catch::Contains("stage 1"));
  }
  ms::resume(dir / "good.safetensors", t);
  CHECK(t.step().step == 2);
}

TEST_CASE("what cannot train is refused") {
  auto m = model();
  const auto fails = [&](std::vector<float> v, ms::shape s, ms::trainer_options o) {
    return message([&] { ms::trainer t{m, std::span<const float>(v), s, o}; });
  };
  CHECK_THAT(fails({}, {0, 4, 4, 1}, usual), Catch::Contains("no images"));
  CHECK_THAT(fails(std::vector<float>(32, 0.1f), {2, 4, 4, 1}, usual),
             Catch::Contains("equal"));
  auto nan = images();
  nan[17] = NAN;
  CHECK_THAT(fails(nan, {40, 4, 4, 1}, usual), Catch::Contains("value 1 of image 1 is nan"));
  CHECK_THAT(fails(images(), {20, 4, 8, 1}, usual),
             Catch::Contains("images are [20, 4, 8, 1], the model takes [20, 4, 4, 1]"));
  auto o = usual;
  o.batch_size = 0;
  CHECK_THAT(fails(images(), {40, 4, 4, 1}, o), Catch::Contains("batch_size = 0"));
  o = usual;
  o.learning_rate = NAN;
  CHECK_THAT(fails(images(), {40, 4, 4, 1}, o), Catch::Contains("learning_rate"));
  o = usual;
  o.stage_probabilities = {1, 1};
  CHECK_THAT(fails(images(), {40, 4, 4, 1}, o),
             Catch::Contains("2 stage_probabilities for 3 stages"));
  auto t = train(m, usual);
  CHECK_THAT(
      message([&] { ms::run(t, {}, [](const ms::loss_point&, double) { return true; }); }),
      Catch::Contains("the limit must name"));
}

TEST_CASE("a run ends at its limit or when told to") {
  auto m = model();
  auto t = train(m, usual);
  const auto r = ms::run(
      t, {.steps = 7}, [](const ms::loss_point&, double) { return true; }, 0);
  CHECK(t.steps() == 7);
  CHECK(r.history.size() == 7);
  CHECK(r.images == 7 * 16);
  ms::run(t, ms::kimg(0.2), [](const ms::loss_point&, double) { return true; });
  CHECK(t.images_seen() >= 200);
  CHECK(t.images_seen() < 216);
  const ms::index_t before = t.steps();
  ms::run(
      t, {.steps = 100}, [](const ms::loss_point&, double) { return false; }, 0);
  CHECK(t.steps() == before + 1);
  bool raised = false;
  const auto interrupted = ms::run(
      t, {.steps = 100},
      [&](const ms::loss_point&, double) {
        if (!std::exchange(raised, true))
          std::raise(SIGINT);  // Ctrl-C; a second one would end the process
        return true;
      },
      0);
  CHECK(interrupted.interrupted);
  CHECK(t.steps() == before + 3);  // it ends after the step in which it was noticed
}

TEST_CASE("checkpoints of another kind are refused with what differs") {
  directory dir;
  auto m = model();
  auto t = train(m, usual);
  t.step();
  ms::save(dir / "t.safetensors", t);
  ms::save(dir / "bare.safetensors", m);
  CHECK_THAT(message([&] { ms::resume(dir / "bare.safetensors", t); }),
             Catch::Contains("no training state"));
  ms::song_unet wide = tiny;
  wide.encoder_channels = 12;
  ms::dynamic_model<float, ms::cpu> other(ms::cpu(), {wide, three, {}}, boundaries, 1);
  auto o = train(other, usual);
  const std::string text = message([&] { ms::resume(dir / "t.safetensors", o); });
  CHECK_THAT(text,
             Catch::Contains("another model") &&
                 Catch::Contains("encoder_channels: the file has 8, the model 12") &&
                 Catch::Contains("misshapen") &&
                 Catch::Contains(
                     "model.enc.4x4_conv.weight has [8, 1, 3, 3], the network [12, 1, 3, 3]"));
  ms::dynamic_model<float, ms::cpu> moved(ms::cpu(), {tiny, three, {}},
                                          ms::partition({0.5, 21.0}), 1);
  auto p = train(moved, usual);
  CHECK_THAT(message([&] { ms::resume(dir / "t.safetensors", p); }),
             Catch::Contains("stage_boundaries"));
  auto seeded = usual;
  seeded.seed = 9;
  auto q = train(m, seeded);
  CHECK_THAT(message([&] { ms::resume(dir / "t.safetensors", q); }), Catch::Contains("seed 4"));
  const auto before = other.weights().to_host();
  CHECK_THAT(message([&] { ms::load_weights(dir / "t.safetensors", other); }),
             Catch::Contains("differ"));
  CHECK(other.weights().to_host() == before);
}

TEST_CASE("a cut checkpoint is refused wherever it is cut") {
  directory dir;
  auto m = model();
  auto t = train(m, usual);
  ms::save(dir / "t.safetensors", t);
  const auto bytes = ms::io::read_file(dir / "t.safetensors");
  for (std::size_t n :
       {std::size_t{0}, std::size_t{7}, std::size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    ms::io::write_file(dir / "cut.safetensors",
                       std::string_view(reinterpret_cast<const char*>(bytes.data()), n));
    const std::string text = message([&] { ms::resume(dir / "cut.safetensors", t); });
    CHECK_THAT(text, Catch::Contains("cut.safetensors") && Catch::Contains("byte"));
  }
}

TEST_CASE("the Frechet distance of Gaussians") {
  // Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2, with exact sample moments by
  // construction.
  const std::vector<double> a{1, 0, -1, 0, 0, 2, 0, -2};
  const std::vector<double> b{4, 0, 2, 0, 3, 1, 3, -1};
  // a: means 0, 0; variances 2/3, 8/3. b: means 3, 0; variances 2/3, 2/3.
  CHECK(ms::frechet_distance(a, b, 2) ==
        Approx(9 + std::pow(std::sqrt(8.0 / 3) - std::sqrt(2.0 / 3), 2)));
  CHECK(ms::frechet_distance(a, a, 2) == Approx(0).margin(1e-12));
  CHECK_THROWS_AS(ms::frechet_distance(std::vector<double>{1, 2}, b, 2), ms::value_error);
  // More dimensions than rows: covariances of low rank.
  const auto x = test::normals<double>(3 * 10, 1);
  CHECK(ms::frechet_distance(x, x, 10) ==
        Approx(0).margin(1e-6));  // square roots of eigenvalues that are rounding noise, 1e-15
}

TEST_CASE("noise levels stay in their stage and follow their distribution") {
  const ms::partition stages({0.3, 5.0});
  const ms::noise_level_draws all[] = {ms::log_normal_levels{}, ms::log_uniform_levels{},
                                       ms::time_uniform_levels<>{}, ms::time_kneed_levels<>{}};
  for (const auto& levels : all) {
    const auto p = levels.stage_probabilities(stages);
    double sum = 0;
    double below_one = 0;
    for (int s = 0; s < 3; ++s) {
      sum += p[s];
      double before = 0;
      for (int i = 1; i < 1000; ++i) {
        const double sigma = levels.draw(stages, s, i / 1000.0);
        REQUIRE(stages.stage(sigma) == s);
        REQUIRE(sigma > before);  // the inverse of a distribution function
        before = sigma;
        below_one += p[s] * (sigma <= 1) / 999;
      }
    }
    CHECK(sum == Approx(1));
    // The share below sigma = 1, by each distribution's own formula.
    const std::string name = levels.name();
    const double want = name == "log_uniform"    ? std::log(1 / 0.002) / std::log(80 / 0.002)
                        : name == "time_uniform" ? (ms::vp_schedule{}.t(1) - 1e-3) / (1 - 1e-3)
                        : name == "time_kneed"
                            ? (ms::vp_schedule{}.t(1) - 1e-3) / (1 - 1e-3) /
                                  (0.7 + 0.3 / 5)                      // 1 is below the knee
                            : 0.5 * std::erfc(-1.0 / std::sqrt(2.0));  // (0 + 1.2) / 1.2
    CHECK(below_one == Approx(want).margin(2e-3));
  }
}

TEST_CASE("a weight of one's own and stratified draws change what is trained") {
  const auto run = [](auto change) {
    auto m = model();
    ms::trainer_options o = usual;
    o.lr_rampup_kimg = 0;
    change(o);
    auto t = train(m, o);
    const auto r = t.step();
    t.step();
    return std::pair{r, m.weights().to_host()};
  };
  const auto plain = run([](auto&) {});
  const auto edm = run([](auto& o) { o.weight = ms::edm_weight{0.5}; });
  const auto velocity = run([](auto& o) { o.weight = ms::velocity_weight{}; });
  CHECK(edm.second == plain.second);
  CHECK(velocity.second != plain.second);
  const auto stratified = run([](auto& o) {
    o.stratified = true, o.least_stage_share = 0, o.stage_probabilities = {0.5, 0.25, 0.25};
  });
  CHECK(stratified.first.rows == std::vector<ms::index_t>{8, 4, 4});  // shares to the row
}

TEST_CASE("stages have rates of their own, and rate 0 freezes") {
  const auto run = [](double shared, std::vector<double> rates) {
    auto m = model();
    const auto before = m.weights().to_host();
    ms::trainer_options o = usual;
    o.lr_rampup_kimg = 0;
    o.shared_rate = shared;
    o.stage_rates = std::move(rates);
    auto t = train(m, o);
    t.step();
    const auto after = m.weights().to_host();
    std::vector<double> moved;
    for (int s = 0; s <= 3; ++s) {
      const auto [begin, end] = m.network().parameter_range(s);
      double most = 0;
      for (ms::index_t i = begin; i < end; ++i)
        most = std::max(most, std::fabs(double(after[i]) - double(before[i])));
      moved.push_back(most);
    }
    return moved;
  };
  const auto all = run(1, {});
  const auto some = run(0, {1, 0, 0.5});
  CHECK(some[0] == 0);
  CHECK(some[1] == all[1]);
  CHECK(some[2] == 0);
  CHECK(some[3] == Approx(all[3] / 2).epsilon(1e-3));  // Adam's first step is the rate
  CHECK_THAT(message([&] { run(1, {1, 1}); }), Catch::Contains("stage_rates"));
}
