// The gradient of a step whose rows several processes evaluated: each has the sums of some
// blocks of shards, which are the nodes of one tree; what is left of the tree is added up by
// whoever gets the values, in the tree's order. So the bits are those of one process.
//
// Parameters go in buckets of one segment each, as soon as backward is through with them and
// beside what is left of it: decoders in their order, then what stages share, the last
// parameters of each first. Of a bucket every process that has the segment
// gets its share of the elements from all others, adds it up, and hands the sum round: 2 (n -
// 1) / n of the gradient leave a process that has one block, as in a ring's all-reduce. A
// decoder that one process alone has (placement.hpp) is added up there; nothing is sent.
#pragma once
#include "../distributed/process_group.hpp"
#include "parameter_share.hpp"
#include "placement.hpp"
#include "segments.hpp"
#include "step_shards.hpp"

namespace multistage {

/// The rows of a batch, sorted by stage, that reach a segment.
inline index_range rows_of_segment(const routing& route, int segment) {
  index_range rows;
  for (std::size_t s = 0; s < route.rows_by_stage.size(); ++s) {
    const index_t n = route.rows_by_stage[s];
    if (segment == 0 || int(s) == segment - 1)
      rows.end += n;
    else if (int(s) < segment - 1)
      rows = {rows.begin + n, rows.end + n};
  }
  return rows;
}

/// Who gets the sum of a gradient: each process its share of every bucket, those that have a
/// segment all of it, or all processes all of it.
enum class gradient_for { shares, hosts, all };

/// Sums of blocks on all processes. Keeps memory for the blocks of this one behind the first,
/// which lies in the gradient itself.
template <class Scalar, class Backend>
class gradient_exchange {
 public:
  /// @param trained must outlive this. @param places where its decoders are
  gradient_exchange(dynamic_model<Scalar, Backend>& trained,
                    process_group group,
                    const stage_placement& places = {})
      : model_(trained),
        group_(std::move(group)),
        hosts_(places.hosts_of_segments(trained.network().segments, group_.size())) {}

  /// Where this process puts the sum of its k-th block.
  Scalar* block(std::size_t k, tensor<Scalar, Backend>& gradient) {
    if (k == 0)
      return gradient.data();
    while (further_.size() < k)
      further_.emplace_back(model_.backend(), gradient.extents());
    return further_[k - 1].data();
  }
  /// Begins a step. Of the segments that the batch reaches sums of all blocks will be there, in
  /// the gradient, when it is finished. @param gradient must last until then. @param wanted_by
  /// who gets it
  void begin(tensor<Scalar, Backend>& gradient,
             const step_shards& cut,
             const routing& route,
             gradient_for wanted_by) {
    parcels_.clear();
    next_ = 0;
    if (group_.size() == 1)
      return;
    gradient_ = &gradient;
    wanted_by_ = wanted_by;
    const int segments = model_.network().segments;
    for (int k = 1; k <= segments; ++k) {
      const int segment = k % segments;  // decoders first
      if (!reaches(route, segment))
        continue;
      const auto of =
          std::make_shared<const tree>(tree_of(cut, rows_of_segment(route, segment)));
      const std::ptrdiff_t first = std::ssize(parcels_);
      for_each_bucket(model_.network(), segment, [&](const index_range& bucket) {
        parcels_.push_back({segment, bucket, of});
      });
      std::reverse(parcels_.begin() + first, parcels_.end());
    }
    const std::size_t blocks = cut.blocks_of_process(group_.rank()).size();
    if (blocks > 1)
      block(blocks - 1, gradient);
    complete(1, model_.network().parameter_elements);
  }
  /// What this process has of a segment is complete from an element on, and of all decoders
  /// before it: that travels from now on, where memory is the host's; elsewhere backward would
  /// have to wait for copies.
  void complete(int segment, index_t from) {
    if (!Backend::on_host)
      return;
    const auto place = [&](int of) {
      return of == 0 ? model_.network().segments : of;
    };
    const auto is_there = [&](const parcel& p) {
      return p.of->own_numbers.empty() || place(p.segment) < place(segment) ||
             (p.segment == segment && p.bucket.begin >= from);
    };
    while (next_ < parcels_.size() && is_there(parcels_[next_]))
      start(parcels_[next_++]);
  }
  /// Ends a step: sends what was not complete, and waits for everything. @throws
  /// communication_error
  void finish() {
    while (next_ < parcels_.size())
      start(parcels_[next_++]);
    group_.finish();
  }
  /// Gives the processes that have a segment, or all, what each has in its share of the
  /// segment's buckets.
  void hand_round(tensor<Scalar, Backend>& values, int segment, bool to_all) {
    for_each_bucket(model_.network(), segment, [&](const index_range& bucket) {
      hand_round(values, segment, bucket, to_all);
    });
  }
  /// The processes that have a segment.
  const index_range& hosts(int segment) const {
    return hosts_[std::size_t(segment)];
  }

 private:
  /// A segment's tree: its shards, and the blocks of all processes that have some of them.
  struct tree {
    index_range shards;
    std::vector<index_range> blocks;       // in order
    std::vector<std::size_t> of_rank;      // how many blocks each process has
    std::vector<std::size_t> own_numbers;  // this process's, as `block` numbers them
  };
  /// A bucket on its way.
  struct parcel {
    int segment;
    index_range bucket;
    std::shared_ptr<const tree> of;
  };
  void start(const parcel& p) {
    group_.start(
        [this, p] {
          reduce_scatter(*gradient_, *p.of, p.segment, p.bucket);
          if (wanted_by_ != gradient_for::shares)
            hand_round(*gradient_, p.segment, p.bucket, wanted_by_ == gradient_for::all);
        },
        Backend::on_host);
  }
  tree tree_of(const step_shards& cut, const index_range& rows) const {
    tree made{shards_of(rows, cut.begins()), {}, {}, {}};
    for (int rank = 0; rank < group_.size(); ++rank) {
      const std::vector<index_range> all = cut.blocks_of_process(rank);
      const std::size_t before = made.blocks.size();
      for (std::size_t k = 0; k < all.size(); ++k) {
        if (common(all[k], made.shards).size() == 0)
          continue;
        made.blocks.push_back(all[k]);
        if (rank == group_.rank())
          made.own_numbers.push_back(k);
      }
      made.of_rank.push_back(made.blocks.size() - before);
    }
    return made;
  }
  /// Adds up this process's share of a bucket.
  void reduce_scatter(tensor<Scalar, Backend>& gradient,
                      const tree& of,
                      int segment,
                      const index_range& bucket) {
    const std::size_t ranks = std::size_t(group_.size());
    const bool travels = hosts(segment).size() > 1;
    const index_range mine = share_of_bucket(bucket, hosts(segment), group_.rank());
    const std::size_t size = std::size_t(mine.size());
    out_.resize(of.own_numbers.size() * std::size_t(bucket.size()));
    std::vector<std::size_t> sent(ranks);
    std::vector<std::size_t> received(ranks);
    Scalar* to = out_.data();
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      const index_range theirs = share_of_bucket(bucket, hosts(segment), int(rank));
      for (const std::size_t k : of.own_numbers) {
        model_.backend().download(block(k, gradient) + theirs.begin, to, theirs.size());
        to += theirs.size();
      }
      sent[rank] = std::size_t(theirs.size()) * of.own_numbers.size() * sizeof(Scalar);
      received[rank] = size * of.of_rank[rank] * sizeof(Scalar);
    }
    in_.resize(size * of.blocks.size());
    if (travels)
      group_.all_to_all(std::as_bytes(std::span(out_)), sent,
                        std::as_writable_bytes(std::span(in_)), received);
    else if (size > 0)
      in_.swap(out_);
    if (size == 0)
      return;
    add_up(of, of.shards, {0, index_t(of.blocks.size())}, size);
    model_.backend().upload(in_.data(), gradient.data() + mine.begin, mine.size());
  }
  /// Gives the processes that have a segment, or all, what each has in its share of a bucket.
  void hand_round(tensor<Scalar, Backend>& values,
                  int segment,
                  const index_range& bucket,
                  bool to_all) {
    const index_range& of = hosts(segment);
    if (of.size() == 1 && !to_all)
      return;
    const auto gets = [&](int rank) {
      return to_all || (of.begin <= rank && rank < of.end);
    };
    const index_range mine = share_of_bucket(bucket, of, group_.rank());
    std::vector<Scalar> own(std::size_t(mine.size()));
    model_.backend().download(values.data() + mine.begin, own.data(), mine.size());
    std::vector<std::size_t> sent;
    std::vector<std::size_t> received;
    out_.clear();
    for (int rank = 0; rank < group_.size(); ++rank) {
      sent.push_back(gets(rank) ? own.size() * sizeof(Scalar) : 0);
      received.push_back(gets(group_.rank())
                             ? std::size_t(share_of_bucket(bucket, of, rank).size()) *
                                   sizeof(Scalar)
                             : 0);
      if (gets(rank))
        out_.insert(out_.end(), own.begin(), own.end());
    }
    in_.resize(gets(group_.rank()) ? std::size_t(bucket.size()) : 0);
    const auto in = std::as_writable_bytes(std::span(in_));
    if (to_all || of.size() == group_.size())
      group_.all_gather(std::as_bytes(std::span(own)), in, received);
    else
      group_.all_to_all(std::as_bytes(std::span(out_)), sent, in, received);
    model_.backend().upload(in_.data(), values.data() + bucket.begin, std::ssize(in_));
  }
  /// The sum of the blocks of some shards, which lie in in_; it is left where the first lies.
  void add_up(const tree& of,
              const index_range& shards,
              const index_range& blocks,
              std::size_t size) {
    if (blocks.size() == 1)
      return;
    const index_t cut = tree_cut(shards);
    index_t middle = blocks.begin;
    while (of.blocks[std::size_t(middle)].end <= cut)
      ++middle;
    add_up(of, {shards.begin, cut}, {blocks.begin, middle}, size);
    add_up(of, {cut, shards.end}, {middle, blocks.end}, size);
    Scalar* const left = in_.data() + std::size_t(blocks.begin) * size;
    const Scalar* const right = in_.data() + std::size_t(middle) * size;
    for (std::size_t i = 0; i < size; ++i)
      left[i] += right[i];
  }

  dynamic_model<Scalar, Backend>& model_;
  process_group group_;
  std::vector<index_range> hosts_;  // by segment
  std::vector<tensor<Scalar, Backend>> further_;
  tensor<Scalar, Backend>* gradient_ = nullptr;  // of the step at hand
  gradient_for wanted_by_ = gradient_for::all;
  std::vector<parcel> parcels_;  // the same on all processes, in the order in which they travel
  std::size_t next_ = 0;         // of them, to be started
  std::vector<Scalar> out_;      // what is sent of a bucket
  std::vector<Scalar> in_;       // what comes
};

}  // namespace multistage
