// Processes that compute together, as the rest of the library knows them: who one is among how
// many, and five ways to exchange bytes. What is made of them, sums that no number of processes
// changes (fixed_sum.hpp) or errors that all hear of (together.hpp), needs no more.
//
//   alone                one process, no engine, no cost: what everything defaults to
//   process_group        any of these, its kind forgotten (process_group.hpp)
//   mpi_communicator     processes that mpirun started (mpi.hpp)
//
// All processes make the same calls in the same order. Where one of them does not come, the
// others throw communication_error instead of waiting for ever.
#pragma once
#include <algorithm>
#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "../core/index_range.hpp"

namespace multistage {

/// Another process of the run is gone, hangs, or cannot be reached. What the run saved before
/// is whole; nothing can go on from here but from there.
struct communication_error : error {
  using error::error;
};

/// Bytes that processes exchange: counts are by rank, in bytes; parts lie one behind the other.
using bytes_to_send = std::span<const std::byte>;
/// The same, to be filled.
using bytes_to_fill = std::span<std::byte>;
/// How many bytes belong to each rank.
using bytes_by_rank = std::span<const std::size_t>;

/// A group of processes. Handles are values: copies are the same group.
template <class C>
concept communicator = std::copyable<C> && requires(C group,
                                                    bytes_to_send from,
                                                    bytes_to_fill to,
                                                    bytes_by_rank sent,
                                                    bytes_by_rank received,
                                                    int root) {
  { std::as_const(group).rank() } -> std::same_as<int>;  // of this process, 0 the first
  { std::as_const(group).size() } -> std::same_as<int>;  // how many processes there are
  { std::as_const(group).host(root) } -> std::convertible_to<std::string>;  // where one runs
  group.barrier();                             // returns when all have come
  group.broadcast(to, root);                   // root's bytes to all
  group.all_gather(from, to, received);        // each one's bytes to all, in rank order
  group.all_to_all(from, sent, to, received);  // a part of one's own for each
};

/// Who is in a group: what communicators over an engine have in common.
class numbered_processes {
 public:
  /// Of this process.
  int rank() const {
    return rank_;
  }
  /// Processes in the group.
  int size() const {
    return size_;
  }
  /// The name of the machine that a process runs on.
  const std::string& host(int rank) const {
    return (*hosts_)[std::size_t(rank)];
  }

 protected:
  /// Hosts have no names until `set_hosts`.
  MULTISTAGE_COLD numbered_processes(int rank, int size)
      : rank_(rank),
        size_(size) {
    set_hosts(std::vector<std::string>(std::size_t(std::max(size, 0)), "a host without name"));
  }
  /// @param names by rank
  MULTISTAGE_COLD void set_hosts(std::vector<std::string> names) {
    hosts_ = std::make_shared<const std::vector<std::string>>(std::move(names));
  }

 private:
  int rank_;
  int size_;
  std::shared_ptr<const std::vector<std::string>> hosts_;
};

/// A process by itself: the group that everything defaults to.
struct alone {
  /// The first.
  int rank() const {
    return 0;
  }
  /// And only one.
  int size() const {
    return 1;
  }
  /// Here.
  std::string host(int) const {
    return "this host";
  }
  /// Nobody to wait for.
  void barrier() {}
  /// Everybody has them.
  void broadcast(bytes_to_fill, int) {}
  /// A copy.
  void all_gather(bytes_to_send from, bytes_to_fill to, bytes_by_rank) {
    std::copy(from.begin(), from.end(), to.begin());
  }
  /// A copy.
  void all_to_all(bytes_to_send from, bytes_by_rank, bytes_to_fill to, bytes_by_rank) {
    std::copy(from.begin(), from.end(), to.begin());
  }
};

/// The root's values on all processes.
template <communicator C, class T>
requires std::is_trivially_copyable_v<T>
void broadcast(C& group, std::span<T> values, int root = 0) {
  group.broadcast(std::as_writable_bytes(values), root);
}
/// Every process's values, which may differ in number, one behind the other in rank order.
template <communicator C, class T>
requires std::is_trivially_copyable_v<T> std::vector<T> all_gather(C& group,
                                                                   std::span<const T> mine) {
  const std::size_t one = sizeof(std::size_t);
  const std::vector<std::size_t> ones(std::size_t(group.size()), one);
  std::vector<std::size_t> counts(ones.size());
  const std::size_t bytes = mine.size_bytes();
  group.all_gather(std::as_bytes(std::span(&bytes, 1)),
                   std::as_writable_bytes(std::span(counts)), ones);
  std::size_t all = 0;
  for (const std::size_t n : counts)
    all += n;
  std::vector<T> values(all / sizeof(T));
  group.all_gather(std::as_bytes(mine), std::as_writable_bytes(std::span(values)), counts);
  return values;
}
/// The same on the root alone; nothing on the others.
template <communicator C, class T>
requires std::is_trivially_copyable_v<T> std::vector<T> gather(C& group,
                                                               std::span<const T> mine,
                                                               int root = 0) {
  const std::size_t bytes = mine.size_bytes();
  std::vector<std::size_t> received = all_gather(group, std::span(&bytes, 1));
  std::vector<std::size_t> sent(received.size(), 0);
  sent[std::size_t(root)] = bytes;
  std::size_t all = 0;
  for (std::size_t& n : received)
    all += n = group.rank() == root ? n : 0;
  std::vector<T> values(all / sizeof(T));
  group.all_to_all(std::as_bytes(mine), sent, std::as_writable_bytes(std::span(values)),
                   received);
  return values;
}
/// Every process's text, by rank.
template <communicator C>
std::vector<std::string> all_gather(C& group, const std::string& mine) {
  const std::size_t length = mine.size();
  const auto lengths = all_gather(group, std::span(&length, 1));
  const auto letters = all_gather(group, std::span(mine.data(), mine.size()));
  std::vector<std::string> texts;
  auto at = letters.begin();
  for (const std::size_t n : lengths) {
    texts.emplace_back(at, at + std::ptrdiff_t(n));
    at += std::ptrdiff_t(n);
  }
  return texts;
}

}  // namespace multistage
