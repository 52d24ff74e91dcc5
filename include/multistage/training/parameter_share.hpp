// What of a network's parameters falls to each process where they are shared out: the moments
// and averages that it keeps (trainer_options::shard_state; ZeRO's first stage, Rajbhandari et
// al., arXiv 1910.02054, section 5.1), and the elements that it adds up of everyone's
// gradients.
//
// Parameters are cut into buckets of one segment each, buckets into runs; of every bucket each
// process has runs that follow one another, so that all have as much to do at any time.
#pragma once
#include <vector>

#include "../core/index_range.hpp"
#include "../graph/node.hpp"

namespace multistage {

/// Elements of a bucket.
inline constexpr index_t parameter_bucket = index_t{1} << 22;
/// Elements of a run, which nobody cuts.
inline constexpr index_t parameter_run = index_t{1} << 12;

/// Calls f(elements) for the buckets of a segment's parameters.
template <class F>
void for_each_bucket(const graph& network, int segment, F&& f) {
  const auto [begin, end] = network.parameter_range(segment);
  for (index_t at = begin; at < end; at += parameter_bucket)
    f(index_range{at, std::min(at + parameter_bucket, end)});
}
/// A process's share of a bucket of a segment that some processes have. @param hosts those
constexpr index_range share_of_bucket(const index_range& bucket,
                                      const index_range& hosts,
                                      int rank) {
  if (rank < hosts.begin || rank >= hosts.end)
    return {bucket.begin, bucket.begin};
  const index_range runs = share_of(divide_up(bucket.size(), parameter_run),
                                    rank - int(hosts.begin), int(hosts.size()));
  return common(bucket, {bucket.begin + runs.begin * parameter_run,
                         bucket.begin + runs.end * parameter_run});
}

/// A process's share of all parameters.
class parameter_share {
 public:
  /// Parameters that follow one another, and where they are in the share.
  struct part {
    index_range elements;  ///< as the weights lie
    index_t at = 0;        ///< of the first, among those of the share
  };
  /// All of them, which lie as the weights do.
  explicit parameter_share(const graph& network) : size_(network.parameter_elements) {
    for (int segment = 0; segment < network.segments; ++segment) {
      const auto [begin, end] = network.parameter_range(segment);
      parts_.push_back({{{begin, end}, begin}});
    }
  }
  /// Those of a process, one behind the other: of the segments that it has, or of its share of
  /// each of their buckets. @param hosts the processes that have each segment
  MULTISTAGE_COLD parameter_share(const graph& network,
                                  const std::vector<index_range>& hosts,
                                  int rank,
                                  bool of_buckets) {
    for (int segment = 0; segment < network.segments; ++segment) {
      parts_.emplace_back();
      const index_range& of = hosts[std::size_t(segment)];
      for_each_bucket(network, segment, [&](const index_range& bucket) {
        const index_range own = of_buckets ? share_of_bucket(bucket, of, rank)
                                : of.begin <= rank && rank < of.end ? bucket
                                                                    : index_range{};
        if (own.size() > 0)
          parts_.back().push_back({own, size_});
        size_ += own.size();
      });
    }
  }
  /// Where an element is in the share. It is there.
  index_t place_of(int segment, index_t element) const {
    for (const part& p : of_segment(segment))
      if (p.elements.contains({element, element + 1}))
        return p.at + element - p.elements.begin;
    return -1;
  }
  /// How many parameters there are in it.
  index_t size() const {
    return size_;
  }
  /// Those of a segment.
  const std::vector<part>& of_segment(int segment) const {
    return parts_[std::size_t(segment)];
  }
  /// Calls f(part) for all of them.
  template <class F>
  void each(F&& f) const {
    for (const std::vector<part>& of : parts_)
      for (const part& p : of)
        f(p);
  }

 private:
  std::vector<std::vector<part>> parts_;  // by segment
  index_t size_ = 0;
};

}  // namespace multistage
