// A group of processes as a value: any communicator, its kind forgotten, so that what is given
// one is compiled once and sees no engine's headers. Without one it is a process by itself.
//
//   sampling_options{.seeds = "0-63", .processes = mpi.world()};
#pragma once
#include <memory>

#include "communicator.hpp"

namespace multistage {

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
      engine_->barrier();
  }
  /// The root's bytes to all.
  void broadcast(bytes_to_fill to, int root) {
    if (engine_)
      engine_->broadcast(to, root);
  }
  /// Each one's bytes to all, in rank order.
  void all_gather(bytes_to_send from, bytes_to_fill to, bytes_by_rank received) {
    if (engine_)
      return engine_->all_gather(from, to, received);
    alone().all_gather(from, to, received);
  }
  /// A part of one's own for each.
  void all_to_all(bytes_to_send from,
                  bytes_by_rank sent,
                  bytes_to_fill to,
                  bytes_by_rank received) {
    if (engine_)
      return engine_->all_to_all(from, sent, to, received);
    alone().all_to_all(from, sent, to, received);
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
  };
  template <class C>
  struct of final : engine {
    explicit of(C g) : group(std::move(g)) {}
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
    C group;
  };
  std::shared_ptr<engine> engine_;  // null: this process alone
};
static_assert(communicator<process_group>);

}  // namespace multistage
