// Training steps on several processes: mpirun -n 4 scaling [ROWS [STEPS]]. Of each placement:
// seconds a step, and of processors on rank 0 (the least of all steps), the share of them in
// exchanges (waiting for others included) and how many seconds of exchanges went on beside
// computing, what left the busiest process, what plan_placement says of that, and the moments
// and averages that a process keeps. Strong scaling: the same ROWS (128) on 1, 2, 4 processes;
// weak: ROWS that grow with them. Alone (without mpirun) it compares shards with one chain of
// additions.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <multistage/distributed/run_together.hpp>
#include <multistage/multistage.hpp>

namespace ms = multistage;

namespace {

using network = ms::dynamic_model<float, ms::cpu>;

network model() {
  const ms::song_unet net{.resolution = 16,
                          .channels = 3,
                          .encoder_channels = 32,
                          .channel_mult = {1, 2},
                          .num_blocks = 2,
                          .attn_resolutions = {8}};
  return {ms::cpu(1), {net, ms::decoders{{64, 32, 16}}, {}}, ms::partition({0.5, 4.0}), 1};
}
ms::image_source images() {
  static const std::vector<float> values = [] {
    const ms::random_stream numbers(1);
    std::vector<float> v;
    for (ms::index_t i = 0; i < 64 * 16 * 16 * 3; ++i)
      v.push_back(float(std::tanh(numbers.normal(std::uint64_t(i)))));
    return v;
  }();
  return ms::image_source::of(std::span<const float>(values), ms::shape{64, 16, 16, 3});
}
/// The largest of all processes' values.
double most(ms::process_group& world, double mine) {
  double largest = mine;
  for (const double theirs : ms::values_of_all(world, mine))
    largest = std::max(largest, theirs);
  return largest;
}

/// Prints what a step takes.
void measure(const char* name,
             ms::process_group& world,
             const ms::trainer_options& o,
             int steps,
             double predicted) {
  network net = model();
  ms::trainer trainer{net, images(), o, world};
  trainer.step();  // takes memory
  const ms::group_traffic before = world.traffic();
  const auto begin = std::chrono::steady_clock::now();
  double processor = 1e9;
  for (int i = 0; i < steps; ++i) {
    const std::clock_t before_step = std::clock();
    trainer.step();
    processor = std::min(processor, double(std::clock() - before_step) / CLOCKS_PER_SEC);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  const ms::group_traffic used = world.traffic().since(before);
  const auto& update = trainer.update();
  const ms::index_t kept = trainer.first_moment().size() + trainer.second_moment().size() +
                           (update.is_shared_out() ? trainer.update().average().size()
                                                   : net.averaged_weights().size());
  const double bytes = most(world, used.bytes / steps);
  const double state = most(world, double(kept) * sizeof(float));
  if (world.rank() == 0)
    std::printf(
        "%-24s %6.3f s a step, %6.3f s of processors, %3.0f %% exchanging, %6.3f s hidden, "
        "sent %6.2f MiB (model %6.2f), state %6.2f MiB\n",
        name, took.count() / steps, processor, 100 * used.waiting() / took.count(),
        used.hidden / steps, bytes / (1 << 20), predicted / (1 << 20), state / (1 << 20));
}

int compare(ms::process_group world, ms::index_t rows, int steps) {
  ms::trainer_options o{.batch_size = rows, .least_stage_share = 0.05};
  std::vector<double> probabilities;
  {
    network net = model();
    probabilities = ms::stage_quotas(o, net.stages()).probabilities();
    const auto plan = ms::plan_placement(
        ms::costs_of(net.network(), probabilities, double(rows)), world.size());
    if (world.rank() == 0)
      std::printf("%d processes, %lld rows\n%s", world.size(), static_cast<long long>(rows),
                  plan.text.c_str());
    for (const ms::planned_placement& p : plan.compared) {
      o.stage_begins = p.placement.begins;
      measure(p.name.c_str(), world, o, steps, p.bytes);
      o.shard_state = true;
      measure("  with shard_state", world, o, steps, p.bytes);
      o.shard_state = false;
    }
  }
  if (world.size() == 1) {
    o.shards = 1;
    measure("one chain of additions", world, o, steps, 0);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const ms::index_t rows = argc > 1 ? std::atoi(argv[1]) : 128;
  const int steps = argc > 2 ? std::atoi(argv[2]) : 5;
  return ms::run_together(argc, argv,
                          [&](ms::process_group world) { return compare(world, rows, steps); });
}
