// Processes that mpirun started (any MPI-3: Open MPI, MPICH and their kin).
//
//   int main(int argc, char** argv) {
//     ms::mpi_session mpi(argc, argv);
//     return ms::exit_status([&] { ... ms::trainer(net, images, options, mpi.world()) ... });
//   }
//
// What a process waits for it waits for with its eyes open: every call is one of MPI's that
// does not block, asked again and again, so that a process that was killed, stopped or cut off
// ends the wait with an error that names it, and the processor is left to threads that compute.
// Nothing is sent for that while all is well. A process that has waited for too long asks the
// others whether they are there; whoever waits, too, answers; who does not is named.
#pragma once
#include <mpi.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "../core/stopwatch.hpp"
#include "communicator.hpp"

namespace multistage {

/// How processes wait for one another.
struct mpi_options {
  /// After how many seconds without all others a process gives up: more than the longest time
  /// that one of them may be busy with work of its own.
  double timeout_seconds = 600;
  /// Bytes of one of MPI's calls, which count in 32 bits; more go in several.
  std::size_t most_at_once = std::size_t{1} << 30;
};

namespace mpi_detail {

/// @throws communication_error for what MPI says
inline void checked(int status, const char* call) {
  if (status == MPI_SUCCESS)
    return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(status, text, &length);
  fail<communication_error>("MPI: ", call, ": ", text);
}

inline int rank_in(MPI_Comm of) {
  int rank = 0;
  checked(MPI_Comm_rank(of, &rank), "MPI_Comm_rank");
  return rank;
}
inline int size_of(MPI_Comm of) {
  int size = 0;
  checked(MPI_Comm_size(of, &size), "MPI_Comm_size");
  return size;
}

/// A private copy of a communicator, so that no message of the program's own meets ours.
class duplicate {
 public:
  explicit duplicate(MPI_Comm of) {
    checked(MPI_Comm_dup(of, &comm_), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  }
  ~duplicate() {
    int ended = 0;
    if (MPI_Finalized(&ended) == MPI_SUCCESS && !ended)
      MPI_Comm_free(&comm_);
  }
  duplicate(const duplicate&) = delete;
  duplicate& operator=(const duplicate&) = delete;
  operator MPI_Comm() const {
    return comm_;
  }

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
};

/// Short notes beside the calls: who is there, who has left, who cannot go on.
class watch {
 public:
  watch(MPI_Comm of, int size)
      : notes_(of),
        rank_(rank_in(notes_)),
        left_(std::size_t(size), false),
        failed_(std::size_t(size), 0) {}
  /// Tells all others that this process makes no more calls.
  void leave() {
    send_to_all(note::leaving);
  }
  /// Takes in what was sent; asked for at every turn of a wait.
  void read() {
    for (;;) {
      int there = 0;
      MPI_Status status;
      checked(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, notes_, &there, &status), "MPI_Iprobe");
      if (!there)
        return;
      MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, status.MPI_TAG, notes_,
               MPI_STATUS_IGNORE);
      if (status.MPI_TAG == int(note::inquiry))
        send(status.MPI_SOURCE, note::answer);
      else if (status.MPI_TAG == int(note::leaving))
        left_[std::size_t(status.MPI_SOURCE)] = true;
      else if (status.MPI_TAG >= int(note::failing))
        failed_[std::size_t(status.MPI_SOURCE)] = status.MPI_TAG;
      else if (!answered_.empty())
        answered_[std::size_t(status.MPI_SOURCE)] = true;
    }
  }
  /// The first that has left, or -1.
  int left() const {
    const auto at = std::find(left_.begin(), left_.end(), true);
    return at == left_.end() ? -1 : int(at - left_.begin());
  }
  /// Tells all others that this process cannot go on, and why. Whether it is the first to say
  /// so: no process before it says the same within so many seconds.
  bool is_first_to_say(const std::string& why, double seconds) {
    constexpr std::size_t kinds = 30000;  // MPI has at least so many numbers for a note
    const int what = int(note::failing) + int(std::hash<std::string>()(why) % kinds);
    send_to_all(note(what));
    const auto before = failed_.begin() + rank_;
    for (const stopwatch begun; rank_ > 0 && begun.seconds() < seconds;) {
      read();
      if (std::find(failed_.begin(), before, what) != before)
        return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }
  /// Whether each process answers within so many seconds, this one included.
  std::vector<bool> ask(double seconds) {
    answered_.assign(left_.size(), false);
    answered_[std::size_t(rank_)] = true;
    send_to_all(note::inquiry);
    for (const stopwatch begun; begun.seconds() < seconds;) {
      read();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return std::exchange(answered_, {});
  }
  /// The communicator of the notes.
  MPI_Comm comm() const {
    return notes_;
  }

 private:
  enum class note { inquiry = 1, answer, leaving, failing };
  void send(int rank, note what) {
    MPI_Request request;
    if (MPI_Isend(nullptr, 0, MPI_BYTE, rank, int(what), notes_, &request) == MPI_SUCCESS)
      MPI_Request_free(&request);  // nothing of ours is read by it
  }
  void send_to_all(note what) {
    for (int rank = 0; rank < int(left_.size()); ++rank)
      if (rank != rank_)
        send(rank, what);
  }

  duplicate notes_;
  int rank_;
  std::vector<bool> left_;
  std::vector<int> failed_;  // the note by which each has said why, 0 for none
  std::vector<bool> answered_;
};

}  // namespace mpi_detail

/// A group of processes. One thread at a time; copies are the same group.
class mpi_communicator : public numbered_processes {
 public:
  /// @param of any communicator of the program's own, MPI_COMM_WORLD for all processes; all of
  /// its processes call this. @throws communication_error
  MULTISTAGE_COLD explicit mpi_communicator(MPI_Comm of, const mpi_options& options = {})
      : numbered_processes(mpi_detail::rank_in(of), mpi_detail::size_of(of)),
        group_(std::make_shared<group>(of, size(), options)) {
    char name[MPI_MAX_PROCESSOR_NAME] = "";
    int length = 0;
    MPI_Get_processor_name(name, &length);
    set_hosts(multistage::all_gather(*this, std::string(name)));
  }

  /// Whether calls may come from one thread and then from another (MPI_THREAD_SERIALIZED).
  bool takes_any_thread() const {
    int level = MPI_THREAD_SINGLE;
    MPI_Query_thread(&level);
    return level >= MPI_THREAD_SERIALIZED;
  }
  /// For calls of the program's own.
  MPI_Comm comm() const {
    return group_->calls;
  }

  /// Returns when all have come. @throws communication_error, as all below do
  void barrier() {
    wait("a barrier", [&](MPI_Request* r) { return MPI_Ibarrier(comm(), r); });
  }
  /// The root's bytes to all.
  void broadcast(bytes_to_fill to, int root) {
    for (std::size_t at = 0; at < to.size(); at += group_->options.most_at_once) {
      const auto piece = to.subspan(at, std::min(group_->options.most_at_once, to.size() - at));
      wait("a broadcast", [&](MPI_Request* r) {
        return MPI_Ibcast(piece.data(), int(piece.size()), MPI_BYTE, root, comm(), r);
      });
    }
  }
  /// Each one's bytes to all, in rank order.
  void all_gather(bytes_to_send from, bytes_to_fill to, bytes_by_rank received) {
    const std::vector<std::size_t> begin = begins(received);
    const std::size_t step = step_for(received);
    std::vector<std::byte> in;
    for (std::size_t at = 0; at == 0 || at < largest(received); at += step) {
      const layout l(received, at, step);
      in.resize(l.bytes);
      const auto mine = from.subspan(std::min(at, from.size()));
      wait("an all-gather", [&](MPI_Request* r) {
        return MPI_Iallgatherv(mine.data(), l.counts[std::size_t(rank())], MPI_BYTE, in.data(),
                               l.counts.data(), l.begins.data(), MPI_BYTE, comm(), r);
      });
      l.take_apart(in, to, begin, at);
    }
  }
  /// A part of one's own for each: sent[r] bytes go to rank r, received[r] come from it.
  void all_to_all(bytes_to_send from,
                  bytes_by_rank sent,
                  bytes_to_fill to,
                  bytes_by_rank received) {
    const std::vector<std::size_t> begin_sent = begins(sent);
    const std::vector<std::size_t> begin_received = begins(received);
    // The number of rounds is the same for all: the largest part of any process says it.
    const std::size_t here = std::max(largest(sent), largest(received));
    std::size_t most = here;
    for (const std::size_t m : multistage::all_gather(*this, std::span(&here, 1)))
      most = std::max(most, m);
    const std::size_t step = group_->options.most_at_once / std::size_t(size());
    std::vector<std::byte> out, in;
    for (std::size_t at = 0; at < most; at += step) {
      const layout s(sent, at, step), l(received, at, step);
      s.put_together(from, out, begin_sent, at);
      in.resize(l.bytes);
      wait("an exchange", [&](MPI_Request* r) {
        return MPI_Ialltoallv(out.data(), s.counts.data(), s.begins.data(), MPI_BYTE, in.data(),
                              l.counts.data(), l.begins.data(), MPI_BYTE, comm(), r);
      });
      l.take_apart(in, to, begin_received, at);
    }
  }

  /// Whether this process is the one that says why it cannot go on: where others fail alike,
  /// the first of them is. A process waits a second at most for those before it.
  bool is_first_to_say(const std::string& why) noexcept {
    try {
      return group_->watch.is_first_to_say(why, 1);
    } catch (const error&) {
      return true;
    }
  }
  /// Ends the use of the group: waits for all others to do so, too. A process that leaves while
  /// others still wait for it ends their wait. @return whether all have come
  bool leave() noexcept {
    try {
      group_->watch.leave();
      MPI_Request all;
      mpi_detail::checked(MPI_Ibarrier(group_->watch.comm(), &all), "MPI_Ibarrier");
      const stopwatch begun;
      for (int done = 0; !done;) {
        mpi_detail::checked(MPI_Test(&all, &done, MPI_STATUS_IGNORE), "MPI_Test");
        group_->watch.read();
        if (!done && begun.seconds() > 2 * grace_seconds)
          return false;
        pause(begun.seconds());
      }
      group_->watch.read();
      return true;
    } catch (const error&) {
      return false;
    }
  }

 private:
  struct group {
    group(MPI_Comm of, int size, const mpi_options& o)
        : options(o),
          calls(of),
          watch(of, size) {
      require<value_error>(o.timeout_seconds > 0 && o.most_at_once >= std::size_t(size),
                           "mpi_options: timeout_seconds = ", o.timeout_seconds,
                           ", most_at_once = ", o.most_at_once,
                           "; give a time above 0 and a byte a process at least");
    }
    mpi_options options;
    mpi_detail::duplicate calls;
    mpi_detail::watch watch;
  };

  /// The pieces [at, at + step) of every rank's part, one behind the other.
  struct layout {
    layout(bytes_by_rank parts, std::size_t at, std::size_t step) {
      for (const std::size_t part : parts) {
        begins.push_back(int(bytes));
        counts.push_back(int(std::min(step, part - std::min(at, part))));
        bytes += std::size_t(counts.back());
      }
    }
    void put_together(bytes_to_send from,
                      std::vector<std::byte>& pieces,
                      const std::vector<std::size_t>& begin,
                      std::size_t at) const {
      pieces.resize(bytes);
      for (std::size_t r = 0; r < counts.size(); ++r)
        std::copy_n(from.data() + begin[r] + at, counts[r], pieces.data() + begins[r]);
    }
    void take_apart(const std::vector<std::byte>& pieces,
                    bytes_to_fill to,
                    const std::vector<std::size_t>& begin,
                    std::size_t at) const {
      for (std::size_t r = 0; r < counts.size(); ++r)
        std::copy_n(pieces.data() + begins[r], counts[r], to.data() + begin[r] + at);
    }
    std::vector<int> counts;
    std::vector<int> begins;
    std::size_t bytes = 0;
  };
  static std::vector<std::size_t> begins(bytes_by_rank parts) {
    std::vector<std::size_t> list(1, 0);
    for (const std::size_t part : parts)
      list.push_back(list.back() + part);
    return list;
  }
  static std::size_t largest(bytes_by_rank parts) {
    return *std::max_element(parts.begin(), parts.end());
  }
  std::size_t step_for(bytes_by_rank parts) const {
    return group_->options.most_at_once / parts.size();
  }

  /// Short while others are expected at once, then such that others get the processor.
  static void pause(double waited) {
    if (waited < 1e-4)
      return;
    if (waited < 1e-3)
      std::this_thread::yield();
    else
      std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  /// Starts a call and waits for its end.
  template <class Start>
  void wait(const char* what, Start&& start) {
    MPI_Request request;
    mpi_detail::checked(start(&request), what);
    const stopwatch begun;
    stopwatch since_left;
    bool one_left = false;
    for (;;) {
      int done = 0;
      mpi_detail::checked(MPI_Test(&request, &done, MPI_STATUS_IGNORE), what);
      if (done)
        return;
      const double waited = begun.seconds();
      pause(waited);
      group_->watch.read();
      if (!one_left && group_->watch.left() >= 0) {
        one_left = true;
        since_left.restart();
      }
      // What it sent before it left may be under way still.
      if (one_left && since_left.seconds() > grace_seconds)
        give_up_for(group_->watch.left());
      if (waited > group_->options.timeout_seconds)
        give_up_after(what, waited);
    }
  }
  /// Throws on the first process that is there, which says it for all and ends them with it.
  template <class... Parts>
  MULTISTAGE_COLD [[noreturn]] void give_up(const std::vector<bool>& there,
                                            const Parts&... parts) const {
    if (std::find(there.begin(), there.end(), true) - there.begin() == rank())
      fail<communication_error>(parts..., ". All stop; go on from the last checkpoint");
    std::this_thread::sleep_for(std::chrono::duration<double>(2 * grace_seconds));
    fail<echoed_error>(parts...);
  }
  MULTISTAGE_COLD [[noreturn]] void give_up_for(int rank) const {
    std::vector<bool> there(std::size_t(size()), true);
    there[std::size_t(rank)] = false;
    give_up(there, "rank ", rank, " (", host(rank),
            ") has left the run before the others; what it said tells why");
  }
  MULTISTAGE_COLD [[noreturn]] void give_up_after(const char* what, double waited) const {
    const std::vector<bool> there = group_->watch.ask(grace_seconds);
    if (group_->watch.left() >= 0)
      give_up_for(group_->watch.left());
    std::string missing;
    for (int r = 0; r < size(); ++r)
      if (!there[std::size_t(r)])
        missing +=
            (missing.empty() ? "rank " : ", rank ") + std::to_string(r) + " (" + host(r) + ")";
    if (missing.empty())
      give_up(there, "all processes are there, but rank ", rank(), " (", host(rank()),
              ") waited for ", waited, " s in ", what,
              " that the others are not in: the program does different things on them");
    give_up(there, missing, " does not answer; rank ", rank(), " (", host(rank()),
            ") waited for ", waited, " s in ", what,
            ". It hangs, is stopped, or its link is down (or timeout_seconds is too short for "
            "its work)");
  }

  static constexpr double grace_seconds = 3;
  std::shared_ptr<group> group_;
};

static_assert(communicator<mpi_communicator> && communicator<alone>);

/// MPI from the beginning of main to its end, unless the program has it already.
class mpi_session {
 public:
  /// @throws communication_error when MPI cannot be had
  MULTISTAGE_COLD mpi_session(int& argc, char**& argv, const mpi_options& options = {})
      : started_(start(argc, argv)),
        world_(std::in_place, MPI_COMM_WORLD, options) {}
  /// Waits for all others; where one is gone, ends those that are left.
  ~mpi_session() {
    const bool all = world_->leave();
    if (!all)
      MPI_Abort(MPI_COMM_WORLD, 1);
    world_.reset();
    if (started_)
      MPI_Finalize();
  }
  mpi_session(const mpi_session&) = delete;
  mpi_session& operator=(const mpi_session&) = delete;

  /// All processes.
  mpi_communicator& world() {
    return *world_;
  }

 private:
  static bool start(int& argc, char**& argv) {
    int there = 0;
    mpi_detail::checked(MPI_Initialized(&there), "MPI_Initialized");
    if (there)
      return false;
    int level = 0;
    mpi_detail::checked(MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &level),
                        "MPI_Init_thread");
    return true;
  }
  bool started_;
  std::optional<mpi_communicator> world_;
};

}  // namespace multistage
