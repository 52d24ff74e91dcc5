// The Thrust backend's handle, templated on the system that runs it: Thrust's CPP or OMP on the
// host (systems.hpp), CUDA on a GPU (cuda/system.hpp). Everything it computes is a functor over
// indices, so one source serves all of them.
#pragma once
#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>

#include "../concept.hpp"
#include "../primitives.hpp"

namespace multistage {

/// @tparam System a policy: `name`; `host`, whether indices run on the host; `vector<T>`,
/// memory with one owner, with `zeros<T>(n)` and `pointer(v)`; `upload`, `download` and `copy`
/// of n elements; `for_each_index(n, f)`; `products`, which computes matrix products; `words`,
/// which makes random words; `configure(threads)`; `synchronize()`.
template <class System>
class thrust_backend {
 public:
  using system = System;                                  ///< the policy
  static constexpr std::string_view name = System::name;  ///< as command lines spell it
  static constexpr bool on_host = System::host;           ///< whether its memory is the host's
  /// Memory with one owner.
  template <class T>
  using storage = typename System::template vector<T>;

  /// With the system's own number of threads.
  thrust_backend()
      : thrust_backend(0) {}
  /// @param threads for systems that have them; 0 leaves the system's default.
  explicit thrust_backend(int threads)
      : state_(std::make_shared<state>()) {
    System::configure(threads);
  }

  /// n zeros. @throws what the system does where there is no memory left
  template <class T>
  storage<T> allocate(index_t n) const {
    return System::template zeros<T>(std::size_t(n));
  }
  /// The first element's address in the system's memory; null where there are none.
  template <class T>
  static T* pointer(const storage<T>& s) {
    return s.empty() ? nullptr : System::pointer(s);
  }
  /// n elements from the host's memory; returns when it is done.
  template <class T>
  void upload(const T* host, T* device, index_t n) const {
    if (n > 0)
      System::upload(host, device, n);
  }
  /// n elements to the host's memory, after all that was asked before.
  template <class T>
  void download(const T* device, T* host, index_t n) const {
    if (n > 0)
      System::download(device, host, n);
  }
  /// n elements within the system's memory, which must not overlap.
  template <class T>
  void copy(const T* from, T* to, index_t n) const {
    if (n > 0)
      System::copy(from, to, n);
  }
  /// Returns when all that was asked is done, and throws what went wrong meanwhile.
  void synchronize() const {
    System::synchronize();
  }

  /// f(i) for every i in [0, n), in any order. The third argument of other backends, how many i
  /// make a task, is the system's matter here.
  template <class F>
  void for_each_index(index_t n, F f, index_t = 0) const {
    if (n > 0)
      System::for_each_index(n, f);
  }

  /// Memory of the handle for the calling thread, grown as needed and kept; contents live until
  /// its next request for the same slot.
  template <class T>
  T* workspace(int slot, index_t n) const {
    storage<char>& w = state_->of_this_thread()[std::size_t(slot)];
    const std::size_t need = std::size_t(n) * sizeof(T);
    if (w.size() < need)
      w = System::template zeros<char>(need);
    return reinterpret_cast<T*>(pointer(w));
  }
  /// What the system's products keep between calls.
  typename System::products& products() const {
    return state_->products;
  }

 private:
  /// What copies of a handle share.
  struct state {
    using slots = std::array<storage<char>, 4>;
    slots& of_this_thread() {
      const std::lock_guard lock(guard);
      return bytes[std::this_thread::get_id()];
    }
    std::mutex guard;
    std::map<std::thread::id, slots> bytes;
    typename System::products products{};
  };
  std::shared_ptr<state> state_;
};

/// Every operation in float...
template <class System, operation Op>
inline constexpr bool supports<thrust_backend<System>, Op, float> = true;
/// ...and in double.
template <class System, operation Op>
inline constexpr bool supports<thrust_backend<System>, Op, double> = true;

namespace thrust_kernel {

/// How many consecutive channels one index takes: a whole pixel on a host, whose inner loops
/// become vectors; one on a device, where neighbouring threads should touch neighbouring words.
template <class System>
constexpr index_t span(index_t channels) {
  return System::host ? channels : 1;
}

}  // namespace thrust_kernel
}  // namespace multistage
