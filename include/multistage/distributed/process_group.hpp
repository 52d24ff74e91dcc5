// A group of processes as a value: any communicator, its kind forgotten, so that what is given
// one is compiled once and sees no engine's headers. Without one it is a process by itself.
//
//   sampling_options{.seeds = "0-63", .processes = mpi.world()};
//
// It counts what goes through it. Exchanges may go on beside what their process computes:
//
//   group.start([=, this]() mutable { ... group.all_gather(...) ... });   // in their order
//   compute();                                                // makes no exchange of its own
//   group.finish();
#pragma once
#include <functional>
#include <future>
#include <memory>
#include <system_error>

#include "../core/stopwatch.hpp"
#include "communicator.hpp"

namespace multistage {

/// What a group's exchanges took.
struct group_traffic {
  double bytes = 0;    ///< that this process had for the others, once for each of them
  double seconds = 0;  ///< in exchanges, waiting for others included
  double hidden = 0;   ///< of these, while the process computed
  /// What came since.
  group_traffic since(const group_traffic& before) const {
    return {bytes - before.bytes, seconds - before.seconds, hidden - before.hidden};
  }
  /// Seconds that the process did nothing else.
  double waiting() const {
    return seconds - hidden;
  }
  /// The mean of so many.
  group_traffic per(double times) const {
    return {bytes / times, seconds / times, hidden / times};
  }
};

/// Any communicator. Copies are the same group.
class process_group {
 public:
  /// A process by itself.
  process_group() = default;
  /// Those of a communicator.
  template <class C>
  requires(!std::same_as<C, process_group> && !std::same_as<C, alone> && communicator<C>)
      process_group(C group)
      : engine_(std::make_shared<of<C>>(std::move(group))) {}
  /// A process by itself.
  process_group(alone) {}

  /// Of this process, 0 the first.
  int rank() const {
    return engine_ ? engine_->rank() : 0;
  }
  /// How many processes there are.
  int size() const {
    return engine_ ? engine_->size() : 1;
  }
  /// Where one of them runs.
  std::string host(int rank) const {
    return engine_ ? engine_->host(rank) : alone().host(rank);
  }
  /// Returns when all have come. @throws communication_error, as all below do
  void barrier() {
    if (engine_)
      counted(0, [&] { engine_->barrier(); });
  }
  /// The root's bytes to all.
  void broadcast(bytes_to_fill to, int root) {
    if (engine_)
      counted(rank() == root ? to.size() * others() : 0, [&] { engine_->broadcast(to, root); });
  }
  /// Each one's bytes to all, in rank order.
  void all_gather(bytes_to_send from, bytes_to_fill to, bytes_by_rank received) {
    if (engine_)
      counted(from.size() * others(), [&] { engine_->all_gather(from, to, received); });
    else
      alone().all_gather(from, to, received);
  }
  /// A part of one's own for each.
  void all_to_all(bytes_to_send from,
                  bytes_by_rank sent,
                  bytes_to_fill to,
                  bytes_by_rank received) {
    if (engine_)
      counted(from.size() - sent[std::size_t(rank())],
              [&] { engine_->all_to_all(from, sent, to, received); });
    else
      alone().all_to_all(from, sent, to, received);
  }
  /// Runs exchanges, behind those that were started before, on another thread where the engine
  /// takes calls from any (mpi.hpp) and one can be had; else at once. Until `finish` the caller
  /// makes no others, and all processes start the same ones in the same order.
  /// @param beside whether what they read and write lets them run on another thread
  void start(std::function<void()> exchanges, bool beside = true) {
    if (!engine_)
      return exchanges();
    std::shared_future<void>& last = engine_->last;
    if (!last.valid())
      engine_->at_start = engine_->traffic;
    if (beside && engine_->takes_any_thread())
      try {
        last = std::async(std::launch::async, in_turn, last, exchanges).share();
        return;
      } catch (const std::system_error&) {  // no thread can be had
      }
    const stopwatch begun;
    last = std::async(std::launch::deferred, in_turn, last, std::move(exchanges)).share();
    last.wait();
    engine_->waited += begun.seconds();
  }
  /// Waits for all that was started. @throws what the first that failed threw
  void finish() {
    if (!engine_ || !engine_->last.valid())
      return;
    const stopwatch begun;
    const std::shared_future<void> last = std::exchange(engine_->last, {});
    last.wait();
    const double waited = std::exchange(engine_->waited, 0) + begun.seconds();
    const double exchanged = engine_->traffic.since(engine_->at_start).seconds;
    engine_->traffic.hidden += std::max(exchanged - waited, 0.0);
    last.get();
  }
  /// What all exchanges so far took; those that were started count when they are finished.
  group_traffic traffic() const {
    return engine_ ? engine_->traffic : group_traffic{};
  }

 private:
  struct engine {
    virtual ~engine() = default;
    virtual int rank() const = 0;
    virtual int size() const = 0;
    virtual std::string host(int rank) const = 0;
    virtual void barrier() = 0;
    virtual void broadcast(bytes_to_fill to, int root) = 0;
    virtual void all_gather(bytes_to_send from, bytes_to_fill to, bytes_by_rank received) = 0;
    virtual void all_to_all(bytes_to_send from,
                            bytes_by_rank sent,
                            bytes_to_fill to,
                            bytes_by_rank received) = 0;
    virtual bool takes_any_thread() const = 0;
    group_traffic traffic;
    group_traffic at_start;         // of what `last` is the last of
    double waited = 0;              // for what was started, so far
    std::shared_future<void> last;  // that was started
  };
  template <class C>
  struct of final : engine {
    explicit of(C g)
        : group(std::move(g)) {}
    int rank() const override {
      return group.rank();
    }
    int size() const override {
      return group.size();
    }
    std::string host(int rank) const override {
      return group.host(rank);
    }
    void barrier() override {
      group.barrier();
    }
    void broadcast(bytes_to_fill to, int root) override {
      group.broadcast(to, root);
    }
    void all_gather(bytes_to_send from, bytes_to_fill to, bytes_by_rank received) override {
      group.all_gather(from, to, received);
    }
    void all_to_all(bytes_to_send from,
                    bytes_by_rank sent,
                    bytes_to_fill to,
                    bytes_by_rank received) override {
      group.all_to_all(from, sent, to, received);
    }
    bool takes_any_thread() const override {
      if constexpr (requires { group.takes_any_thread(); })
        return group.takes_any_thread();
      return false;
    }
    C group;
  };
  /// Where what was started before has failed, this is not begun.
  static void in_turn(const std::shared_future<void>& before,
                      const std::function<void()>& exchanges) {
    if (before.valid())
      before.get();
    exchanges();
  }
  std::size_t others() const {
    return std::size_t(size() - 1);
  }
  template <class F>
  void counted(std::size_t bytes, F&& exchange) {
    const stopwatch begun;
    exchange();
    engine_->traffic.seconds += begun.seconds();
    engine_->traffic.bytes += double(bytes);
  }

  std::shared_ptr<engine> engine_;  // null: this process alone
};
static_assert(communicator<process_group>);

/// Every process's value, by rank.
template <class T>
requires std::is_trivially_copyable_v<T> std::vector<T> values_of_all(process_group& group,
                                                                      const T& mine) {
  std::vector<T> values(std::size_t(group.size()));
  const std::vector<std::size_t> sizes(values.size(), sizeof(T));
  group.all_gather(std::as_bytes(std::span(&mine, 1)),
                   std::as_writable_bytes(std::span(values)), sizes);
  return values;
}
/// What the first process has decided; the same answer on all.
inline bool first_says(process_group& group, bool here) {
  char yes = here ? 1 : 0;
  group.broadcast(std::as_writable_bytes(std::span(&yes, 1)), 0);
  return yes != 0;
}

}  // namespace multistage
