// For objects that compute in memory of their own: a second thread that comes while one is at
// work is told so, instead of both getting wrong numbers.
//
// An object holds a one_user and enters it at the head of each call that uses its memory; the
// value returned ends the use, also when the call throws. It costs an atomic exchange. It is a
// check and no lock: who wants to share an object between threads makes them take turns.
#pragma once
#include <atomic>
#include <thread>
#include <utility>

#include "error.hpp"

namespace multistage {

/// Who is using the object that holds this. A copied or moved object is free.
class one_user {
 public:
  one_user() = default;
  /// A copy is another object, used by nobody yet.
  one_user(const one_user&) noexcept {}
  /// What it is assigned from does not say who uses this one.
  one_user& operator=(const one_user&) noexcept {
    return *this;
  }

  /// The time of one use; it ends with this value.
  class [[nodiscard]] visit {
   public:
    /// @param user where the using thread is noted until the end; null within a use of the same
    /// thread, whose end it must not tell
    explicit visit(std::atomic<std::thread::id>* user)
        : user_(user) {}
    /// The use goes on under another name and ends once.
    visit(visit&& other) noexcept
        : user_(std::exchange(other.user_, nullptr)) {}
    ~visit() {
      if (user_ != nullptr)
        user_->store(std::thread::id(), std::memory_order_release);
    }

   private:
    std::atomic<std::thread::id>* user_;
  };

  /// Begins a use by the calling thread; within one of its own it may begin others.
  /// @param what names the object in the message
  /// @throws state_error while another thread uses it
  visit enter(const char* what) const {
    const std::thread::id me = std::this_thread::get_id();
    std::thread::id user;
    if (user_.compare_exchange_strong(user, me, std::memory_order_acquire))
      return visit(&user_);
    require<state_error>(user == me, what,
                         ": is in use by another thread; give each thread one of its ",
                         "own (they may share a backend), or let them take turns with a mutex");
    return visit(nullptr);
  }

 private:
  mutable std::atomic<std::thread::id> user_{std::thread::id()};
};

}  // namespace multistage
