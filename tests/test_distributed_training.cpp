// Training on several processes: bits of one process, whatever their number and threads;
// checkpoints that any number of processes goes on from; what one process meets, all hear of.
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <multistage/distributed/mpi.hpp>
#include <multistage/io.hpp>
#include <multistage/multistage.hpp>

#include "catch.hpp"
#include "distributed_session.hpp"

namespace ms = multistage;

namespace {

using network = ms::dynamic_model<float, ms::cpu>;
using trainer = ms::trainer<float, ms::cpu>;

ms::song_unet tiny() {
  ms::song_unet net{.resolution = 4,
                    .channels = 1,
                    .encoder_channels = 8,
                    .channel_mult = {1, 2},
                    .num_blocks = 1,
                    .attn_resolutions = {2}};
  net.label_dim = 2;
  net.dropout = 0.2;
  return net;
}

network model(int threads = 1, std::uint64_t seed = 1) {
  return {ms::cpu(threads),
          {tiny(), ms::decoders{{12, 8, 4}}, {}},
          ms::partition({0.5, 20.0}),
          seed};
}
/// 40 images of two classes.
ms::image_source images() {
  const ms::random_stream numbers(6);
  std::vector<int> classes;
  std::vector<float> values;
  for (ms::index_t i = 0; i < 40 * 16; ++i)
    values.push_back(float(std::tanh(numbers.normal(std::uint64_t(i)))));
  for (int i = 0; i < 40; ++i)
    classes.push_back(i % 2);
  const auto held = std::make_shared<const std::vector<float>>(std::move(values));
  ms::image_source set =
      ms::image_source::of(std::span<const float>(*held), ms::shape{40, 4, 4, 1});
  set.read = [held, read = set.read](std::span<const ms::index_t> rows, float* to) {
    read(rows, to);
  };
  return set.labelled(classes, 2);
}
/// All that losses, draws and updates can hang on.
const ms::trainer_options usual{.learning_rate = 2e-3,
                                .adam = {.weight_decay = 0.01},
                                .lr_rampup_kimg = 0.1,
                                .average_stds = {0.1},
                                .batch_size = 150,  // no multiple of a shard
                                .gradient_clip = 0.5,
                                .importance = {.bins = 4, .history = 2},
                                .augmented = 64,
                                .label_dropout = 0.2,
                                .least_stage_share = 0.05,
                                .seed = 4};

/// What a training has come to.
struct outcome {
  std::vector<float> values;    // weights, average, moments, gradient, further average
  std::vector<double> numbers;  // losses, norms, what importance learnt
};
bool operator==(const outcome& a, const outcome& b) {
  const auto same = [](const auto& x, const auto& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof x[0]) == 0;
  };
  return same(a.values, b.values) && same(a.numbers, b.numbers);
}
void make_steps(trainer& t, int steps, outcome& to) {
  for (int i = 0; i < steps; ++i) {
    const ms::step_report report = t.step();
    to.numbers.insert(to.numbers.end(), report.loss.begin(), report.loss.end());
    to.numbers.push_back(report.gradient_norm);
  }
}
void look(trainer& t, outcome& to) {
  const auto add = [&](const std::vector<float>& some) {
    to.values.insert(to.values.end(), some.begin(), some.end());
  };
  t.complete_average();
  add(t.model().weights().to_host());
  add(t.model().averaged_weights().to_host());
  for (const auto* values : {&t.first_moment(), &t.second_moment(), &t.averages()[0].weights})
    add(t.update().whole(*values));
  const auto learnt = t.counters().importance;
  to.numbers.insert(to.numbers.end(), learnt.begin(), learnt.end());
}
outcome trained(const ms::trainer_options& o, ms::process_group processes, int threads) {
  network m = model(threads);
  trainer t(m, images(), o, std::move(processes), ms::mirror{});
  outcome found;
  make_steps(t, 4, found);
  look(t, found);
  return found;
}
/// The first processes of all, as a group of their own.
std::optional<ms::process_group> first_of_all(int size) {
  MPI_Comm part;
  const int rank = ms::process_group(world()).rank();
  MPI_Comm_split(MPI_COMM_WORLD, rank < size ? 0 : MPI_UNDEFINED, rank, &part);
  if (part == MPI_COMM_NULL)
    return std::nullopt;
  return ms::mpi_communicator(part, {.timeout_seconds = 60});
}
/// How much of what lies in whole pages is in memory, as the system sees it. Pages may be huge
/// ones, which bring what lies beside them.
double resident_share(const float* begin, const float* end) {
  constexpr std::uintptr_t page = std::uintptr_t{2} << 20;
  const auto first = (reinterpret_cast<std::uintptr_t>(begin) + page - 1) / page * page;
  const auto behind = reinterpret_cast<std::uintptr_t>(end) / page * page;
  REQUIRE(first < behind);
  std::vector<unsigned char> pages((behind - first) / std::uintptr_t(::getpagesize()));
  REQUIRE(::mincore(reinterpret_cast<void*>(first), behind - first, pages.data()) == 0);
  double there = 0;
  for (const unsigned char p : pages)
    there += p & 1;
  return there / double(pages.size());
}
/// A folder that all processes see.
struct shared_folder {
  std::string path;
  shared_folder() {
    std::int64_t process = ::getpid();  // the first's names it
    const auto named = [&] {
      return (std::filesystem::temp_directory_path() /
              ("multistage-distributed-" + std::to_string(process)))
          .string();
    };
    if (world().rank() == 0)
      std::filesystem::create_directories(named());
    ms::broadcast(world(), std::span(&process, 1));
    path = named();
  }
  ~shared_folder() {
    world().barrier();
    if (world().rank() == 0)
      std::filesystem::remove_all(path);
  }
};
template <class F>
std::string said_by(F&& f) {
  try {
    f();
  } catch (const ms::error& e) {
    return e.what();
  }
  return "nothing";
}

}  // namespace

TEST_CASE("training has the same bits on any number of processes and threads") {
  ms::trainer_options o = usual;
  const outcome expected = trained(o, {}, 1);
  for (const ms::index_t micro_batch : {0, 16, 48})
    for (const bool shard_state : {false, true}) {
      o.micro_batch = micro_batch;
      o.shard_state = shard_state;
      CHECK(trained(o, world(), 1 + world().rank() % 3) == expected);
    }
  o = usual;
  // each row a stage of its own, or shards of more than a piece
  for (const ms::index_t shards : {std::max(4, world().size()), 64}) {
    o.shards = shards;
    o.importance = {};
    o.stratified = true;
    CHECK(trained(o, world(), 2) == trained(o, {}, 2));
  }
}

TEST_CASE("decoders that live on processes of their own are trained as by one process") {
  const int n = world().size();
  if (n == 1)
    return;
  const outcome expected = trained(usual, {}, 1);
  std::vector<double> anywhere;  // stages are cut wherever a process begins
  for (int rank = 1; rank < n; ++rank)
    anywhere.push_back(3.0 * rank / n + 0.1);
  const std::vector<double> by_stage = n == 2   ? std::vector{1.0}
                                       : n == 3 ? std::vector{1.0, 2.0}
                                                : std::vector{0.5, 1.0, 2.0};
  for (const auto& begins : {anywhere, by_stage})
    for (const bool shard_state : {false, true}) {
      ms::trainer_options o = usual;
      o.stage_begins = begins;
      o.shard_state = shard_state;
      CHECK(trained(o, world(), 1) == expected);
    }
  // what one process alone has never travels: of two, what stages share is all that is sent
  if (n != 2)
    return;
  ms::trainer_options o{
      .batch_size = 128, .stratified = true, .stage_probabilities = {0.5, 0.5, 0}};
  o.stage_begins = {1};
  network m = model();
  trainer t(m, images(), o, world());
  const double mine = t.step().traffic.bytes;
  double all = 0;
  for (const double sent : ms::all_gather(world(), std::span(&mine, 1)))
    all += sent;
  const auto [begin, end] = m.network().parameter_range(0);
  const double shared = double(end - begin) * sizeof(float);
  CHECK(all >= 2 * shared);
  CHECK(all <= 2 * shared + 2e4);
}

TEST_CASE("a process holds weights and gradients of its own decoders alone") {
  const int n = world().size();
  if (n != 3)
    return;  // it takes seconds
  ms::song_unet net = tiny();
  net.encoder_channels = 64;
  network m{ms::cpu(1), {net, ms::decoders{{96, 96, 96}}, {}}, ms::partition({0.5, 20.0}), 1};
  ms::trainer_options o{.batch_size = 64, .least_stage_share = 0.2};
  o.stage_begins = {0.5, 2.0};
  trainer t(m, images(), o, world());
  t.step();
  const ms::stage_placement places{o.stage_begins};
  const auto kept = [&](ms::tensor<float, ms::cpu>& values) {
    for (int stage = 0; stage < 3; ++stage) {
      const auto [begin, end] = m.network().parameter_range(stage + 1);
      const bool is_here =
          places.hosts(stage, n).contains({world().rank(), world().rank() + 1});
      const double share = resident_share(values.data() + begin, values.data() + end);
      CHECK(share == (is_here ? 1.0 : 0.0));
    }
  };
  kept(m.weights());
  kept(t.gradient());
  t.complete_average();
  t.step();
  kept(m.weights());
}

TEST_CASE("a placement is planned by what a step costs") {
  // Decoder 0 costs as much as all else, 1 and 2 a quarter each; half the rows are stage 0's.
  ms::placement_costs c{.shared_macs = 1e9, .shared_bytes = 1e8, .rows = 100};
  c.stages = {{0.5, 2e9, 4e8}, {0.25, 1e9, 1e8}, {0.25, 1e9, 1e8}};
  c.macs_per_second = 1e12;
  c.bytes_per_second = 1e15;
  const auto fast = ms::plan_placement(c, 3);
  CHECK(fast.best().everywhere());
  // 3 passes of 100 rows: (0.5 * 3 + 0.5 * 2) GMACs a row, on 3 processes
  CHECK(fast.compared.front().computing == Approx(0.25));
  CHECK(fast.compared.front().bytes == Approx(7e8 * 2 * 2 / 3));
  c.bytes_per_second = 1e8;
  const auto slow = ms::plan_placement(c, 3);
  CHECK(slow.compared.front().name == "stage parallel");
  CHECK(slow.best().begins == std::vector{1.0, 2.0});
  // decoder 0's rows, two standard deviations more than 50 of 100
  CHECK(slow.compared.front().computing == Approx(0.45 * (1 + 2 * std::sqrt(0.5 / 50))));
  CHECK(slow.compared.front().bytes == Approx(1e8 * 2 * 2 / 3));
  CHECK_THAT(slow.text, Catch::Contains("decoder 0 on process 0, 1, 2"));
  // Two more processes go where most is to do.
  const auto more = ms::plan_placement(c, 5);
  for (const auto& p : more.compared)
    if (p.name == "stage parallel") {
      CHECK(p.placement.hosts(0, 5).size() == 3);
      CHECK(p.placement.hosts(1, 5).begin == 3);
    }
  const network m = model();
  const auto own = ms::costs_of(m.network(), {0.5, 0.25, 0.25}, 64);
  CHECK(own.shared_macs + own.stages[1].macs == double(ms::cost_of_stage(m.network(), 1).macs));
  CHECK(own.stages[0].bytes > own.stages[2].bytes);
  CHECK_THROWS_WITH(check(ms::stage_placement{{1.0, 0.5}}, 3, 3), Catch::Contains("ascend"));
  CHECK_THROWS_WITH(check(ms::stage_placement{{1.0}}, 3, 3), Catch::Contains("each but"));
}

TEST_CASE("gradients of shards are added up as the tree says") {
  // Five shards of 14 rows: (0 + 1) + (2 + 3), and 4 behind them.
  ms::trainer_options o{.batch_size = 70, .seed = 3};
  network m = model();
  trainer t(m, images(), o, world());
  const std::vector<double> sigmas(70, 0.1);
  t.differentiate(sigmas);
  const std::vector<float> found = t.gradient().to_host();
  std::vector<std::vector<float>> of_shard;
  network alone = model();
  for (int shard = 0; shard < 5; ++shard) {
    // the rows of the others have no loss, and so no gradient
    ms::denoising_objective objective(alone, o);
    std::vector<ms::training_row> rows(70);
    for (std::size_t r = 0; r < rows.size(); ++r)
      rows[r] = {
          .image = ms::index_t(r), .sigma = 0.1, .weight = int(r) / 14 == shard ? 1.0 : 0.0};
    ms::batch_reader reader(images(), {}, {.labels = true});
    const ms::image_batch batch = reader.read({3, 0}, 70);
    const ms::tensor<float, ms::cpu> shown(ms::cpu(1), ms::shape{70, 4, 4, 1}, batch.images);
    ms::tensor<float, ms::cpu> gradient(ms::cpu(1), alone.weights().extents());
    objective.differentiate({shown.data(), rows, batch.classes}, {3, 0}, gradient);
    of_shard.push_back(gradient.to_host());
  }
  // all rows are of stage 0: those of other decoders are not defined
  const auto [begin, end] = m.network().parameter_range(1);
  std::size_t different = 0;
  for (ms::index_t k = begin; k < end; ++k) {
    const auto g = [&](std::size_t shard) {
      return of_shard[shard][std::size_t(k)];
    };
    different += found[std::size_t(k)] != ((g(0) + g(1)) + (g(2) + g(3))) + g(4) ? 1 : 0;
  }
  CHECK(different == 0);
}

TEST_CASE("a run goes on with any number of processes as if nothing had happened") {
  const shared_folder folder;
  const std::string path = folder.path + "/model.safetensors";
  outcome expected;
  network whole = model();
  trainer uninterrupted(whole, images(), usual);
  make_steps(uninterrupted, 8, expected);
  look(uninterrupted, expected);

  outcome found;
  const int most = world().size();
  for (const int size : {most, std::max(most - 2, 1), std::max(most - 1, 1), 1}) {
    const auto group = first_of_all(size);
    if (group) {
      network m = model();
      ms::trainer_options o = usual;
      o.shard_state = size % 2 == 0;
      trainer t(m, images(), o, *group);
      if (!found.numbers.empty())
        ms::resume(path, t);
      make_steps(t, 2, found);
      ms::save(path, t);
      if (t.steps() == 8)
        look(t, found);
    }
    // those that are not in the next group, too, hear what the losses were
    const double ended = group ? 1 : 0;
    REQUIRE(ms::all_gather(world(), std::span<const double>(&ended, 1)).size() ==
            std::size_t(most));
    found.numbers = ms::all_gather(
        world(), std::span<const double>(found.numbers.data(),
                                         world().rank() == 0 ? found.numbers.size() : 0));
  }
  if (world().rank() == 0)
    CHECK(found == expected);
}

TEST_CASE("a run that goes back after a value that is not finite does so on all processes") {
  const shared_folder folder;
  const auto run_with = [&](ms::process_group processes, const std::string& name) {
    network m = model();
    ms::trainer_options o = usual;
    trainer t(m, images(), o, std::move(processes));
    ms::run_checkpoint kept{.path = folder.path + name};
    kept.on_nan = ms::on_non_finite::back;
    outcome found;
    int windows = 0;
    ms::run(
        t, {.steps = 6}, kept,
        [&](const ms::loss_point& p, double) {
          found.numbers.insert(found.numbers.end(), p.loss.begin(), p.loss.end());
          if (++windows == 3)  // once: what follows is not finite
            m.weights().data()[m.network().parameter_range(1)[0]] =
                std::numeric_limits<float>::quiet_NaN();
          return true;
        },
        0);
    look(t, found);
    return found;
  };
  // each process has a file of its own for its run alone
  const outcome expected = run_with({}, "/alone" + std::to_string(world().rank()));
  CHECK(run_with(world(), "/all") == expected);
}

TEST_CASE("a signal to one process ends the run of all") {
  const shared_folder folder;
  network m = model();
  trainer t(m, images(), usual, world());
  const int last = world().size() - 1;
  const ms::run_result r = ms::run(
      t, {.steps = 50}, {.path = folder.path + "/model"},
      [&](const ms::loss_point& p, double) {
        if (p.step == 2 && world().rank() == last)
          std::raise(SIGTERM);
        return true;
      },
      0);
  CHECK(r.signal == SIGTERM);
  CHECK(t.steps() == 3);
  CHECK(std::filesystem::exists(folder.path + "/model"));
}

TEST_CASE("what one process cannot read ends the step of all, and it can be asked for again") {
  const int last = world().size() - 1;
  bool broken = false;
  ms::image_source set = images();
  set.read = [&, read = set.read](std::span<const ms::index_t> rows, float* to) {
    if (broken && world().rank() == last)
      throw ms::file_error("the disk is gone");
    read(rows, to);
  };
  network m = model();
  trainer t(m, set, usual, world());
  outcome found;
  make_steps(t, 1, found);
  broken = true;
  std::string said;
  for (int i = 0; i < 2 && said.empty(); ++i)  // the next step's images may be there already
    if (const std::string s = said_by([&] { make_steps(t, 1, found); }); s != "nothing")
      said = s;
  CHECK_THAT(said, Catch::Contains("the disk is gone"));
  broken = false;
  make_steps(t, int(3 - t.steps()), found);
  network one = model();
  trainer alone(one, images(), usual);
  outcome expected;
  make_steps(alone, 3, expected);
  CHECK(found == expected);
}

TEST_CASE("what one process cannot evaluate ends the step of all, gradients on their way") {
  const int last = world().size() - 1;
  ms::index_t left = -1;  // evaluations until it fails; below 0 it never does
  ms::trainer_options o = usual;
  o.micro_batch = 16;  // so that it fails behind parts of whose gradients some are sent
  o.weight = [&](double sigma) {
    if (world().rank() == last && left >= 0 && left-- == 0)
      throw ms::state_error("no weight for this level");
    return ms::edm_weight{}(sigma);
  };
  network m = model();
  trainer t(m, images(), o, world());
  outcome found;
  make_steps(t, 1, found);
  for (const ms::index_t of_row : {0, 17, 20}) {
    left = of_row;
    CHECK_THAT(said_by([&] { make_steps(t, 1, found); }), Catch::Contains("no weight for"));
  }
  left = -1;
  make_steps(t, 2, found);
  network one = model();
  trainer alone(one, images(), o);
  outcome expected;
  make_steps(alone, 3, expected);
  CHECK(found == expected);
}

TEST_CASE("processes that would not train the same are refused, naming what differs") {
  if (world().size() == 1)
    return;
  const bool other = world().rank() == 1;
  const auto refused = [&](const ms::trainer_options& o, std::uint64_t seed) {
    network m = model(1, seed);
    return said_by([&] { trainer t(m, images(), o, world()); });
  };
  ms::trainer_options o = usual;
  o.learning_rate += other ? 1e-12 : 0;
  CHECK_THAT(refused(o, 1), Catch::Contains("learning_rate = 0.002"));
  CHECK_THAT(refused(usual, other ? 2 : 1), Catch::Contains("rank 1: weights"));
  o = usual;
  o.batch_size = 16;
  CHECK_THAT(refused(o, 1), Catch::Contains("more shards"));
  o.micro_batch = 16 * world().rank();  // only how
  o.batch_size = usual.batch_size;
  CHECK(refused(o, 1) == "nothing");
}

TEST_CASE("a step says what it sent: as a ring's all-reduce where each process has one sum") {
  const int n = world().size();
  if (n == 3)
    return;  // of 8 shards two processes have two sums
  network m = model();
  trainer t(m, images(), {.batch_size = 128, .stage_probabilities = {1, 0, 0}}, world());
  const ms::step_report report = t.step();
  double all = 0;
  for (const double sent : ms::all_gather(world(), std::span(&report.traffic.bytes, 1)))
    all += sent;
  double gradient = 0;  // of what stages share, and of the decoder of stage 0
  for (const int segment : {0, 1}) {
    const auto [begin, end] = m.network().parameter_range(segment);
    gradient += double(end - begin) * sizeof(float);
  }
  constexpr double losses_and_the_like = 2e4;
  CHECK(all >= 2 * (n - 1) * gradient);
  CHECK(all <= 2 * (n - 1) * gradient + (n - 1) * losses_and_the_like);
  CHECK((n == 1 || report.traffic.seconds > 0));
  CHECK(report.traffic.hidden <= report.traffic.seconds);
}
