// Sums whose bits no number of processes changes. Floating-point addition is not associative:
// what is summed over processes as they come differs with how many there are. Here the summands
// are numbered parts of the whole, and a binary tree over their numbers says which are added
// to which:
//
//   parts        0   1   2   3   4   5         six parts, two processes: [0, 3) and [3, 6)
//                 \ /     \ /     \ /
//                 0-2     2-4     4-6          the first holds 0-2 and 2; the second 3 and 4-6
//                    \   /         |
//                     0-4 -------- 0-6
//
// Each process adds up what lies whole in its own parts and sends the rest of the way what is
// left, at most log2(parts) arrays, mostly one. The elements are shared out: a process gets the
// pieces of its share from all, climbs the tree, and hands the result round. With one array a
// process that is as many bytes as a ring's all-reduce, 2 (n - 1) / n of the array each.
#pragma once
#include "communicator.hpp"

namespace multistage {

/// The sum of numbered arrays of `size` values, added in the tree's order.
template <class T>
class fixed_sum {
 public:
  /// @param parts how many summands the whole sum has, on all processes together
  fixed_sum(index_t parts, index_t size)
      : parts_(parts),
        size_(size) {
    require<value_error>(parts > 0 && size >= 0, "fixed_sum: ", parts, " parts of ", size,
                         " values; give at least one part");
  }

  /// The whole sum's parts.
  index_t parts() const {
    return parts_;
  }
  /// Values of the sum.
  index_t size() const {
    return size_;
  }
  /// Adds part `number`. A process adds parts that follow one another, in their order.
  /// @throws value_error for another, shape_error for values of another size
  void add(index_t number, std::span<const T> values) {
    require<shape_error>(index_t(values.size()) == size_, "fixed_sum: part ", number, " has ",
                         values.size(), " values, the sum ", size_);
    require<value_error>(
        number < parts_ && (nodes_.empty() ? number >= 0 : number == nodes_.back().of.end),
        "fixed_sum: part ", number, " of ", parts_,
        " does not follow the one before; a process adds its parts in order, each once");
    nodes_.push_back({{number, number + 1}, {values.begin(), values.end()}});
    climb(nodes_);
  }
  /// Forgets all parts.
  void clear() {
    nodes_.clear();
  }

  /// This rank's index_range of the sum's values, share_of(size(), rank, size). All processes
  /// call it. @throws value_error unless the processes have all parts, each once
  template <communicator C>
  std::vector<T> reduce_scatter(C& group) const {
    std::vector<index_range> own;
    for (const node& n : nodes_)
      own.push_back(n.of);
    const std::vector<index_range> all = all_gather(group, std::span<const index_range>(own));
    const std::vector<index_t> nodes_of_rank = counts_by_rank(group, index_t(own.size()));
    check_all_there(all);

    std::vector<std::size_t> sent(std::size_t(group.size()));
    std::vector<std::size_t> received(sent.size());
    std::vector<T> out;
    const index_t mine = share_of(size_, group.rank(), group.size()).size();
    for (int rank = 0; rank < group.size(); ++rank) {
      const index_range theirs = share_of(size_, rank, group.size());
      for (const node& n : nodes_)
        out.insert(out.end(), n.values.begin() + theirs.begin, n.values.begin() + theirs.end);
      sent[std::size_t(rank)] = std::size_t(theirs.size()) * nodes_.size() * sizeof(T);
      received[std::size_t(rank)] =
          std::size_t(mine * nodes_of_rank[std::size_t(rank)]) * sizeof(T);
    }
    std::vector<T> in(std::size_t(mine) * all.size());
    group.all_to_all(std::as_bytes(std::span(out)), sent, std::as_writable_bytes(std::span(in)),
                     received);

    std::vector<node> nodes;
    auto at = in.begin();
    for (const index_range& of : all) {
      nodes.push_back({of, {at, at + mine}});
      at += mine;
      climb(nodes);
    }
    return std::move(nodes.front().values);
  }
  /// The whole sum, on every process. All processes call it. @throws as above
  template <communicator C>
  std::vector<T> all_reduce(C& group) const {
    const std::vector<T> mine = reduce_scatter(group);
    return all_gather(group, std::span<const T>(mine));
  }

 private:
  struct node {
    index_range of;
    std::vector<T> values;
  };
  /// Whether the tree has a node over these parts, whose right side begins at `cut`.
  bool joins(index_range parts, index_t cut) const {
    for (index_range s{0, parts_}; s.size() > 1;) {
      const index_t middle = tree_cut(s);
      if (s.begin == parts.begin && s.end == parts.end)
        return middle == cut;
      s = parts.begin >= middle ? index_range{middle, s.end} : index_range{s.begin, middle};
    }
    return false;
  }
  /// Adds the last two nodes while they are two sides of one.
  void climb(std::vector<node>& nodes) const {
    while (nodes.size() > 1) {
      node& left = nodes[nodes.size() - 2];
      const node& right = nodes.back();
      if (!joins({left.of.begin, right.of.end}, right.of.begin))
        return;
      for (std::size_t i = 0; i < left.values.size(); ++i)
        left.values[i] += right.values[i];
      left.of.end = right.of.end;
      nodes.pop_back();
    }
  }
  template <communicator C>
  static std::vector<index_t> counts_by_rank(C& group, index_t here) {
    return all_gather(group, std::span<const index_t>(&here, 1));
  }
  void check_all_there(const std::vector<index_range>& all) const {
    index_t behind = 0;
    for (const index_range& s : all) {
      require<value_error>(s.begin == behind, "fixed_sum: parts ", behind, " to ", s.begin,
                           " of ", parts_, " were added by no process, or out of rank order");
      behind = s.end;
    }
    require<value_error>(behind == parts_, "fixed_sum: parts from ", behind, " to ", parts_,
                         " were added by no process");
  }

  index_t parts_;
  index_t size_;
  std::vector<node> nodes_;  // what lies whole in this process's parts
};

}  // namespace multistage
