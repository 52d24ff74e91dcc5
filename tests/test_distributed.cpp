// Processes under mpirun: exchanges in whole and in rounds, sums whose bits no number of
// processes changes, errors that all hear of. tests/CMakeLists.txt starts it on 1 to 4 of them.
#define CATCH_CONFIG_RUNNER
#include <cmath>
#include <cstring>
#include <multistage/data/shared_images.hpp>
#include <multistage/distributed/fixed_sum.hpp>
#include <multistage/distributed/mpi.hpp>
#include <multistage/distributed/run_together.hpp>
#include <multistage/distributed/together.hpp>
#include <multistage/multistage.hpp>
#include <multistage/stages/shared_optimal_denoiser.hpp>
#include <numeric>

#include "catch.hpp"
#include "distributed_session.hpp"

namespace ms = multistage;

namespace {

ms::mpi_session* session = nullptr;

/// Values that differ in magnitude, so that the order in which they are added shows.
std::vector<float> part(ms::index_t number, std::size_t size) {
  std::vector<float> values(size);
  for (std::size_t i = 0; i < size; ++i) {
    const double at = double(number) * double(size) + double(i);
    values[i] = float(std::sin(at) * std::exp(std::fmod(at * 7, 19) - 9));
  }
  return values;
}

/// The tree's sum as its definition has it: the left side is the largest power of two below
/// the number of parts.
float tree_sum(const std::vector<float>& summands) {
  if (summands.size() == 1)
    return summands[0];
  std::size_t left = 1;
  while (2 * left < summands.size())
    left *= 2;
  const auto cut = summands.begin() + std::ptrdiff_t(left);
  return tree_sum({summands.begin(), cut}) + tree_sum({cut, summands.end()});
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace

ms::mpi_communicator& world() {
  return session->world();
}

TEST_CASE("gathering keeps ranks' values apart, whatever their number, in rounds too") {
  for (const std::size_t most : {std::size_t(16), std::size_t(1) << 20}) {
    ms::mpi_communicator group(MPI_COMM_WORLD, {.timeout_seconds = 60, .most_at_once = most});
    const auto values_of = [](int rank) {
      std::vector<int> values(std::size_t(rank * 5));  // rank 0 has none
      std::iota(values.begin(), values.end(), 100 * rank);
      return values;
    };
    std::vector<int> expected;
    std::vector<std::string> texts;
    for (int rank = 0; rank < group.size(); ++rank) {
      const auto theirs = values_of(rank);
      expected.insert(expected.end(), theirs.begin(), theirs.end());
      texts.push_back(std::string(std::size_t(rank), 'x') + "\n");
    }
    const auto mine = values_of(group.rank());
    CHECK(ms::all_gather(group, std::span<const int>(mine)) == expected);
    CHECK(ms::all_gather(group, texts[std::size_t(group.rank())]) == texts);
    ms::process_group any_kind(group);
    for (int root = 0; root < group.size(); ++root)
      CHECK(ms::gather(any_kind, std::span<const int>(mine), root) ==
            (group.rank() == root ? expected : std::vector<int>()));
  }
}

TEST_CASE("a broadcast reaches all, from any root, in rounds too") {
  ms::mpi_communicator group(MPI_COMM_WORLD, {.timeout_seconds = 60, .most_at_once = 16});
  for (int root = 0; root < group.size(); ++root) {
    std::vector<int> values(25, group.rank());
    ms::broadcast(group, std::span(values), root);
    CHECK(values == std::vector<int>(25, root));
  }
}

TEST_CASE("an exchange brings each rank what is meant for it") {
  ms::mpi_communicator group(MPI_COMM_WORLD, {.timeout_seconds = 60, .most_at_once = 16});
  const int n = group.size();
  // rank a sends a + 2 b bytes of value 10 a + b to rank b
  std::vector<std::size_t> sent, received;
  std::vector<unsigned char> out, expected;
  for (int other = 0; other < n; ++other) {
    sent.push_back(std::size_t(group.rank() + 2 * other));
    out.insert(out.end(), sent.back(), static_cast<unsigned char>(10 * group.rank() + other));
    received.push_back(std::size_t(other + 2 * group.rank()));
    expected.insert(expected.end(), received.back(),
                    static_cast<unsigned char>(10 * other + group.rank()));
  }
  std::vector<unsigned char> in(expected.size());
  group.all_to_all(std::as_bytes(std::span(out)), sent, std::as_writable_bytes(std::span(in)),
                   received);
  CHECK(in == expected);
}

TEST_CASE("exchanges go on beside what a process computes, in the order of their start") {
  ms::process_group group(session->world());
  const int n = group.size();
  const bool late = group.rank() == 0;
  const auto compute = [] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  };
  const ms::group_traffic before = group.traffic();
  std::vector<int> ranks;
  int sum = 0;
  if (late)
    compute();
  group.start([&] { ranks = ms::values_of_all(group, group.rank()); });
  group.start([&] {  // of what the first brings
    for (const int of_rank : ms::values_of_all(group, ranks.back() + group.rank()))
      sum += of_rank;
  });
  if (!late)
    compute();
  group.finish();
  CHECK(ranks.back() == n - 1);
  CHECK(sum == n * (n - 1) + n * (n - 1) / 2);
  const ms::group_traffic used = group.traffic().since(before);
  CHECK(used.bytes == double(2 * (n - 1)) * sizeof(int));
  CHECK(used.hidden <= used.seconds);
  if (!late)
    CHECK(used.hidden > 0.15);  // they waited for rank 0 meanwhile
  // What fails is told at the end, and what was to come after it is not begun.
  bool begun = false;
  group.start([] { throw ms::file_error("the link is down"); });
  group.start([&] { begun = true; });
  CHECK_THROWS_WITH(group.finish(), Catch::Contains("the link is down"));
  CHECK_FALSE(begun);
  CHECK(ms::values_of_all(group, 1) == std::vector<int>(std::size_t(n), 1));
}

TEST_CASE("a sum in fixed order has the same bits on any number of processes") {
  auto& group = session->world();
  const std::size_t size = 37;
  for (const ms::index_t parts : {1, 2, 3, 5, 8, 13, 16, 31}) {
    ms::fixed_sum<float> sum(parts, ms::index_t(size));
    const ms::index_range mine = ms::share_of(parts, group.rank(), group.size());
    for (ms::index_t p = mine.begin; p < mine.end; ++p)
      sum.add(p, part(p, size));
    std::vector<float> expected;
    for (std::size_t i = 0; i < size; ++i) {
      std::vector<float> summands;
      for (ms::index_t p = 0; p < parts; ++p)
        summands.push_back(part(p, size)[i]);
      expected.push_back(tree_sum(summands));
    }
    CHECK(same_bits(sum.all_reduce(group), expected));
    const ms::index_range slice = ms::share_of(ms::index_t(size), group.rank(), group.size());
    CHECK(same_bits(sum.reduce_scatter(group),
                    {expected.begin() + slice.begin, expected.begin() + slice.end}));
  }
}

TEST_CASE("a sum refuses parts that are missing, come twice or have another size") {
  auto& group = session->world();
  ms::fixed_sum<double> sum(4, 3);
  CHECK_THROWS_WITH(sum.add(4, std::vector<double>(3)), Catch::Contains("part 4 of 4"));
  CHECK_THROWS_WITH(sum.add(0, std::vector<double>(2)), Catch::Contains("has 2 values"));
  sum.add(1, std::vector<double>(3));
  CHECK_THROWS_WITH(sum.add(1, std::vector<double>(3)), Catch::Contains("each once"));
  CHECK_THROWS_WITH(sum.all_reduce(group), Catch::Contains("added by no process"));
}

TEST_CASE("shares cover everything once, and differ by one at most") {
  for (const ms::index_t count : {0, 1, 7, 64})
    for (const int size : {1, 2, 3, 8}) {
      ms::index_t behind = 0;
      for (int rank = 0; rank < size; ++rank) {
        const ms::index_range s = ms::share_of(count, rank, size);
        CHECK(s.begin == behind);
        CHECK(s.size() >= count / size);
        CHECK(s.size() <= count / size + 1);
        behind = s.end;
      }
      CHECK(behind == count);
    }
}

TEST_CASE("what one process cannot do none does, and one says why") {
  auto& group = session->world();
  const int failing = group.size() - 1;
  std::string said;
  bool echo = false;
  try {
    ms::together(group, [&] {
      if (group.rank() == failing)
        throw ms::file_error("no space left");
    });
  } catch (const ms::echoed_error& e) {
    said = e.what();
    echo = true;
  } catch (const ms::error& e) {
    said = e.what();
  }
  CHECK_THAT(said, Catch::Contains("no space left"));
  CHECK(echo == (group.rank() != 0));
  if (failing > 0)
    CHECK_THAT(said, Catch::Contains("rank " + std::to_string(failing)));
  CHECK(ms::any(group, group.rank() == failing));
  CHECK_FALSE(ms::any(group, false));
}

TEST_CASE("processes with different settings are refused, with the lines that differ") {
  auto& group = session->world();
  CHECK_NOTHROW(ms::require_same(group, "options", "batch 64"));
  if (group.size() == 1)
    return;
  const std::string mine = group.rank() == 1 ? "seed 1\nbatch 32" : "seed 1\nbatch 64";
  try {
    ms::require_same(group, "options", mine);
    FAIL("was accepted");
  } catch (const ms::error& e) {
    CHECK_THAT(e.what(), Catch::Contains("rank 1: batch 32"));
    CHECK_THAT(e.what(), Catch::Contains("rank 0: batch 64"));
    CHECK_THAT(e.what(), !Catch::Contains("seed"));
  }
}

TEST_CASE("stages of a data set that processes share are those of one process") {
  auto& group = session->world();
  const ms::shape extents{50, 6, 6, 1};
  const ms::random_stream numbers(5);
  std::vector<float> values;
  for (ms::index_t i = 0; i < extents.size(); ++i)
    values.push_back(float(std::tanh(numbers.normal(std::uint64_t(i)))));
  const auto whole = ms::image_source::of(std::span<const float>(values), extents);
  const ms::optimal_denoiser<double, ms::cpu> alone(ms::cpu(), whole);
  using shared_denoiser = ms::shared_optimal_denoiser<double, ms::cpu, ms::mpi_communicator>;
  const ms::clustering_options options{.alpha = 0.9, .draws = 256};
  const auto expected = ms::cluster_by_optimal_denoiser(ms::cpu(), whole, options);
  const auto check_stages = [&](const auto& denoiser) {
    CHECK(denoiser.extents() == extents);
    const auto found = ms::cluster_by_optimal_denoiser(ms::cpu(), denoiser, options);
    CHECK(found.t1 == expected.t1);
    CHECK(found.t2 == expected.t2);
  };
  // shared out evenly; and all on the last process, the others having none
  const auto mine = ms::share_of(extents.rows, group.rank(), group.size());
  const bool last = group.rank() == group.size() - 1;
  for (const auto& own : {whole.part(mine.begin, mine.end), whole.part(0, last ? 50 : 0)}) {
    const shared_denoiser shared(ms::cpu(), group, own);
    // few queries, and more than a block of them; noise from far below to far above the images'
    for (const ms::index_t queries : {3, 300}) {
      const ms::shape some{queries, 6, 6, 1};
      ms::tensor<double, ms::cpu> x(ms::cpu(), some), one(ms::cpu(), some),
          all(ms::cpu(), some);
      std::vector<ms::index_t> which;
      std::vector<double> sigmas;
      for (ms::index_t q = 0; q < queries; ++q) {
        which.push_back(q * 7 % 50);
        sigmas.push_back(0.01 * std::pow(1e4, double(q) / double(queries)));
      }
      shared.gather(which, x.view());
      CHECK(x.data()[36] == double(values[7 * 36]));
      for (ms::index_t i = 0; i < some.size(); ++i)
        x.data()[i] += sigmas[std::size_t(i / 36)] * numbers.normal(std::uint64_t(5000 + i));
      alone(std::as_const(x).view(), sigmas, one.view());
      shared(std::as_const(x).view(), sigmas, all.view());
      double worst = 0;
      for (ms::index_t i = 0; i < some.size(); ++i)
        worst = std::max(worst, std::abs(one.data()[i] - all.data()[i]));
      CHECK(worst < 1e-12);
    }
    check_stages(shared);
  }
  // the same by what a program writes
  const ms::process_group any_kind(group);
  check_stages(
      ms::posterior_mean_of<double, ms::cpu>(ms::cpu(), own_rows(whole, any_kind), any_kind));
}

TEST_CASE("a data set that one process holds reaches all, with all that is known of it") {
  ms::process_group world = session->world();
  const int root = world.size() - 1;
  const std::vector<unsigned char> bytes{0, 51, 102, 153, 204, 255};
  const std::vector<float> tokens{1, -2, 3};
  for (const bool as_bytes : {true, false}) {
    ms::image_source here;
    const std::vector<float> values{-1, 0.5f, 2, -3, 1, 0};
    if (world.rank() == root) {
      const ms::shape extents{3, 1, 2, 1};
      here = as_bytes ? ms::image_source::of(std::span<const unsigned char>(bytes), extents)
                      : ms::image_source::of(std::span<const float>(values), extents);
      here = here.labelled({2, 0, 1}, 3);
      here.class_names = {"cat", "", "dog"};
      here.fingerprint = "0123";
      here.null_context = {7};
      here.context = std::make_shared<const ms::image_source>(
          ms::image_source::of(std::span<const float>(tokens), {3, 1, 1, 1}));
    }
    const ms::image_source all = ms::broadcast_images(world, here, root);
    CHECK(all.extents == ms::shape{3, 1, 2, 1});
    std::vector<float> rows(4);
    all.read(std::vector<ms::index_t>{2, 0}, rows.data());
    CHECK(rows == (as_bytes ? std::vector<float>{204 / 127.5f - 1, 1, -1, 51 / 127.5f - 1}
                            : std::vector<float>{1, 0, -1, 0.5f}));
    CHECK(bool(all.read_bytes) == as_bytes);
    CHECK(all.labels() == std::vector<int>{2, 0, 1});
    CHECK(all.class_names == std::vector<std::string>{"cat", "", "dog"});
    CHECK(all.fingerprint == "0123");
    CHECK(all.null_context == std::vector<float>{7});
    REQUIRE(all.context);
    float token = 0;
    all.context->read_block(1, 1, &token);
    CHECK(token == -2);
  }
}

namespace {
/// Eight pictures by a denoiser that is none of a model.
ms::sampling_result drawn(const ms::process_group& group,
                          ms::index_t batch,
                          std::function<bool(const ms::sampling_step&)> observer = {}) {
  const auto denoise = [](ms::view<const double> x, double sigma, ms::view<double> d) {
    for (ms::index_t i = 0; i < x.extents.size(); ++i)
      d.data[i] = std::sin(x.data[i]) / (1 + sigma * sigma);
  };
  ms::sampling_options options{.seeds = "3-9,100", .batch = batch, .processes = group};
  options.observer = std::move(observer);
  return ms::sample(denoise, {1, 2, 3, 1}, ms::edm_heun{.num_steps = 5, .s_churn = 10},
                    options);
}
}  // namespace

TEST_CASE("pictures that processes share out are those of one process, bit by bit") {
  const ms::process_group world = session->world();
  const ms::sampling_result alone = drawn({}, 64);
  REQUIRE(alone.extents == ms::shape{8, 2, 3, 1});
  for (const ms::index_t batch : {1, 3, 64}) {
    const ms::sampling_result shared = drawn(world, batch);
    CHECK(shared.extents == alone.extents);
    CHECK(same_bits(shared.images, alone.images));
    CHECK(shared.evaluations == alone.evaluations);
  }
}

TEST_CASE(
    "a process whose observer stops ends the pictures there, and one that fails ends all") {
  const ms::process_group world = session->world();
  const ms::sampling_result alone = drawn({}, 64);
  const auto first_of_last = ms::share_of(8, world.size() - 1, world.size()).begin;
  const bool is_last = world.rank() == world.size() - 1;
  const ms::sampling_result some =
      drawn(world, 1, [&](const ms::sampling_step&) { return !is_last; });
  REQUIRE(some.extents.rows == first_of_last + 1);  // the last one unfinished
  const auto finished = std::ptrdiff_t(6 * first_of_last);
  CHECK(same_bits(std::vector<double>(some.images.begin(), some.images.begin() + finished),
                  {alone.images.begin(), alone.images.begin() + finished}));
  const auto fails = [&](const ms::sampling_step&) -> bool {
    if (is_last)
      throw ms::numeric_error("is nan");
    return true;
  };
  CHECK_THROWS_WITH(drawn(world, 64, fails), Catch::Contains("is nan"));
}

TEST_CASE("a start without MPI is refused, with the command that has it") {
  char name[] = "train";
  char option[] = "--kimg";
  char* words[] = {name, option};
  CHECK_NOTHROW(ms::launch::check_start(2, words));
  ::setenv("WORLD_SIZE", "4", 1);
  ::setenv("RANK", "0", 1);
  CHECK_THROWS_WITH(ms::launch::check_start(2, words),
                    Catch::Contains("mpirun -n 4 train --kimg"));
  ::setenv("RANK", "3", 1);
  CHECK_THROWS_AS(ms::launch::check_start(2, words), ms::echoed_error);
  ::setenv("WORLD_SIZE", "1", 1);
  CHECK_NOTHROW(ms::launch::check_start(2, words));
  ::unsetenv("WORLD_SIZE");
  ::unsetenv("RANK");
}

TEST_CASE("a shared data set is held to what one is") {
  auto& group = session->world();
  using shared_denoiser = ms::shared_optimal_denoiser<double, ms::cpu, ms::mpi_communicator>;
  std::vector<float> values(4 * 9, 0.5f);
  const auto equal = ms::image_source::of(std::span<const float>(values), {4, 3, 3, 1});
  CHECK_THROWS_WITH(shared_denoiser(ms::cpu(), group, equal), Catch::Contains("are equal"));
  CHECK_THROWS_WITH(shared_denoiser(ms::cpu(), group, equal.part(0, 0)),
                    Catch::Contains("no process has any images"));
  if (group.rank() == group.size() - 1)
    values[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH(shared_denoiser(ms::cpu(), group, equal), Catch::Contains("is nan"));
}

int main(int argc, char** argv) {
  ms::mpi_session mpi(argc, argv, {.timeout_seconds = 60});
  session = &mpi;
  return Catch::Session().run(argc, argv);
}
