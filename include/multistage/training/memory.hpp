// The memory of a training run, known before it starts: what it needs, and how a step is done
// so that it stays within a limit. A step may be done in parts (micro_batch), and may keep less
// of the forward pass and make it again (checkpointing): neither changes a bit of the result.
// Parts cost little and come first; checkpointing costs one more forward pass.
//
// Counted are the process as it stands, the run's state (gradient, two moments, averages),
// activations, batches, kernels' scratch, the copies that a checkpoint is written from, and
// what the caller says that it takes beside the training (a run: its snapshots).
//
//   trainer_options{.memory = index_t{4} << 30};      // 4 GiB: how a step is done is found
#pragma once
#include <algorithm>
#include <bit>
#include <sstream>
#include <string>

#include "../core/processors.hpp"
#include "../distributed/process_group.hpp"
#include "../graph/cost.hpp"
#include "kept_averages.hpp"
#include "placement.hpp"
#include "step_shards.hpp"

#ifdef __linux__
#include <unistd.h>
#endif
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace multistage {

/// Bytes of memory that this process has; 0 where the system does not say.
MULTISTAGE_COLD inline index_t resident_memory() {
#ifdef __linux__
  long long all = 0;
  long long resident = 0;
  const std::string text = processors_detail::content("/proc/self/statm");
  if (std::sscanf(text.c_str(), "%lld %lld", &all, &resident) == 2)
    return index_t(resident) * index_t(::sysconf(_SC_PAGESIZE));
#endif
  return 0;
}

/// Gives freed memory back to the system, which would count it as the process's.
MULTISTAGE_COLD inline void release_freed_memory() {
#ifdef __GLIBC__
  ::malloc_trim(0);
#endif
}

/// How a step is done, and the bytes that a run takes with it.
struct memory_plan {
  index_t micro_batch = 0;  ///< rows at once
  bool checkpoint = false;  ///< whether activations are made again
  index_t in_use = 0;       ///< by the process, when it was planned; on the host
  index_t state = 0;        ///< gradient, moments, averages
  index_t activations = 0;  ///< of micro_batch rows
  index_t batches = 0;      ///< images, noise and labels, the next step's too
  index_t scratch = 0;      ///< of kernels; an estimate
  index_t saving = 0;       ///< what a checkpoint is written from; on the host
  index_t beside = 0;       ///< what the caller takes beside the training

  /// Of all of it, in the memory of the host where that is the backend's.
  index_t total() const {
    return in_use + state + activations + batches + scratch + saving + beside;
  }
  /// What was chosen, in a line.
  std::string text() const {
    std::ostringstream s;
    s.precision(3);
    const auto part = [&](const char* before, index_t bytes, const char* name) {
      s << before << double(bytes) / (1 << 20) << " MiB " << name;
    };
    s << micro_batch << " rows at once, activations " << (checkpoint ? "checkpointed" : "kept");
    part(": ", total(), "");
    part("= ", in_use, "in use");
    part(" + ", state, "state");
    part(" + ", activations, "activations");
    part(" + ", batches, "batches");
    part(" + ", scratch, "scratch");
    part(" + ", saving, "for saving");
    part(" + ", beside, "beside the training");
    return s.str();
  }
};

namespace detail {

/// What kernels take beside their operands: planes of a piece's images and gradients, 36
/// numbers for 16 each, in a share of the last cache (backend/cpu/winograd.hpp); patches of 9
/// pixels in each thread; transformed weights, 36 numbers for 9, and their panels. Sums of
/// shards are an array a level of their tree. @param shards evaluated at once
template <class Scalar, class Backend>
MULTISTAGE_COLD index_t scratch_bytes(dynamic_model<Scalar, Backend>& model, index_t shards) {
  index_t weight = 0;
  index_t row = 0;
  for (const parameter& p : model.network().parameters)
    weight = std::max(weight, p.size());
  for (const node& n : model.network().nodes)
    row = std::max(row, n.out().size());
  index_t threads = 1;
  if constexpr (requires(Backend & b) { b.threads(); })
    threads = model.backend().threads();
  constexpr index_t mebi = index_t{1} << 20;
  constexpr index_t piece = gradient_piece<Backend>;
  row *= index_t(sizeof(Scalar));
  const index_t planes = std::min(20 * mebi, 5 * piece * row);
  const index_t of_thread = 2 * mebi + 2 * row + std::min(4 * mebi, 9 * piece * row);
  const index_t levels = std::bit_width(std::uint64_t(std::max(shards, index_t{1}) - 1));
  return 4 * mebi + planes + threads * of_thread + 9 * weight * index_t(sizeof(Scalar)) +
         levels * model.engine().largest_parameters() * index_t(sizeof(Scalar));
}

/// Rows of a step that a process evaluates, about: all have as much to do, and shards are not
/// cut. @param piece of which they are made up
inline index_t rows_of_process(const trainer_options& o,
                               const process_group& processes,
                               index_t piece) {
  const index_t shards = std::min(o.shards, divide_up(o.batch_size, piece));
  const index_t own = divide_up(shards, processes.size()) * divide_up(o.batch_size, shards);
  return std::min(o.batch_size, round_up(own, piece));
}
/// Sums of shards that wait for their other side, whole gradients: of rows that are evaluated
/// so many at a time, and of what a process has of the tree where it shares it.
inline index_t waiting_sums(const trainer_options& o,
                            index_t shards,
                            const process_group& processes,
                            index_t own_rows,
                            index_t at_once) {
  index_t sums = processes.size() > 1 ? 1 : 0;
  if (at_once < own_rows)
    for (index_t of = 2; of < 2 * shards; of *= 2)
      sums += of * divide_up(o.batch_size, shards) > at_once ? 1 : 0;
  return sums;
}

/// Parameters of the segments that a process has.
MULTISTAGE_COLD inline index_t own_elements(const graph& network,
                                            const trainer_options& o,
                                            const process_group& processes) {
  if (processes.size() == 1)
    return network.parameter_elements;
  const auto hosts =
      stage_placement{o.stage_begins}.hosts_of_segments(network.segments, processes.size());
  index_t own = 0;
  for (int segment = 0; segment < network.segments; ++segment) {
    const auto [begin, end] = network.parameter_range(segment);
    if (hosts[std::size_t(segment)].contains({processes.rank(), processes.rank() + 1}))
      own += end - begin;
  }
  return own;
}
/// What a run takes with steps done in this way.
template <class Scalar, class Backend>
MULTISTAGE_COLD memory_plan memory_of(dynamic_model<Scalar, Backend>& model,
                                      const trainer_options& o,
                                      const process_group& processes,
                                      index_t micro_batch,
                                      bool checkpoint) {
  const index_t flat = model.network().parameter_elements * index_t(sizeof(Scalar));
  const index_t kept = index_t(o.average_stds.size() + o.average_halflives_kimg.size());
  const index_t image = model.images(1).row_size() + model.label_dim(input_slot::context);
  memory_plan p{.micro_batch = micro_batch, .checkpoint = checkpoint};
  model.engine().set_checkpointing(checkpoint);
  p.in_use = Backend::on_host ? resident_memory() : 0;
  const index_t rows = rows_of_process(o, processes, gradient_piece<Backend>);
  const index_t shards = std::min(o.shards, divide_up(o.batch_size, gradient_piece<Backend>));
  const bool alone = processes.size() == 1;
  const index_t share = o.shard_state ? processes.size() : 1;  // of moments and averages
  const index_t own = own_elements(model.network(), o, processes) * index_t(sizeof(Scalar));
  p.state = (1 + waiting_sums(o, shards, processes, rows, micro_batch)) * own +
            (2 + kept + (model.has_average() && alone ? 0 : 1)) * own / share +
            (o.adam.weight_decay > 0 ? model.network().parameter_elements : 0);
  p.activations = model.activation_bytes(micro_batch, true);
  p.batches = 3 * micro_batch * image * index_t(sizeof(Scalar)) +
              6 * rows * image * index_t(sizeof(float));  // this step's and the next's
  p.scratch = scratch_bytes(model, shards + model.stage_count());
  p.saving = Backend::on_host ? (6 + kept) * flat : 0;
  p.beside = o.memory_beside;
  return p;
}
}  // namespace detail

/// How steps are done by trainer_options: micro_batch, checkpoint_activations and memory. The
/// model's engine is left as the plan says. @param processes that share the rows of a step.
/// @throws value_error when memory is not enough, saying what the least is
template <class Scalar, class Backend>
MULTISTAGE_COLD memory_plan plan_memory(dynamic_model<Scalar, Backend>& model,
                                        const trainer_options& o,
                                        const process_group& processes = {}) {
  constexpr index_t piece = gradient_piece<Backend>;
  require<value_error>(o.micro_batch % piece == 0 || o.micro_batch >= o.batch_size,
                       "trainer: micro_batch = ", o.micro_batch, " is no multiple of ", piece,
                       ", the rows over which backend ", Backend::name, " sums gradients");
  const index_t own = detail::rows_of_process(o, processes, piece);
  const index_t most = o.micro_batch > 0 ? std::min(o.micro_batch, own) : own;
  if (o.memory == 0)
    return detail::memory_of(model, o, processes, most, o.checkpoint_activations);
  release_freed_memory();
  memory_plan p;
  for (int again = o.checkpoint_activations ? 1 : 0; again < 2; ++again)
    for (index_t parts = 1, rows = most;; ++parts) {
      p = detail::memory_of(model, o, processes, rows, again == 1);
      if (p.total() <= o.memory)
        return p;
      if (o.micro_batch > 0 || rows <= piece)
        break;
      rows = std::min(rows - 1, round_up(divide_up(most, parts + 1), piece));
      rows = std::max(rows / piece * piece, piece);
    }
  fail<value_error>("trainer: memory = ", o.memory, " bytes are not enough; the least is ",
                    p.total(), ", ", p.text(),
                    "; give more, or a smaller network or batch_size");
}

}  // namespace multistage
