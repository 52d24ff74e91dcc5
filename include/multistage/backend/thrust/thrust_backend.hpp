// The Thrust backend's handle, templated on the Thrust system: with CPP or OMP it runs on the host, with CUDA on a GPU. Everything it
// computes is a functor over indices, so one source serves all of them.
#pragma once
#include <thrust/copy.h>
#include <thrust/execution_policy.h>
#include <thrust/for_each.h>
#include <thrust/iterator/counting_iterator.h>
#include <thrust/memory.h>

#include <memory>
#include <string_view>

#include "../concept.hpp"
#include "../primitives.hpp"

namespace multistage {

/// @tparam System a policy: `name`; `vector<T>`; `policy()`, the Thrust execution policy; `host`, whether indices run on the host;
/// `products`, which computes matrix products; `words`, which makes random words; `configure(threads)`; `synchronize()`.
template <class System>
class thrust_backend {
 public:
  using system = System;
  static constexpr std::string_view name = System::name;
  static constexpr bool on_host = System::host;
  template <class T>
  using storage = typename System::template vector<T>;

  thrust_backend() : thrust_backend(0) {}
  /// @param threads for systems that have them; 0 leaves the system's default.
  explicit thrust_backend(int threads) : state_(std::make_shared<state>()) { System::configure(threads); }

  template <class T>
  storage<T> allocate(index_t n) const {
    return storage<T>(std::size_t(n), T(0));
  }
  template <class T>
  static T* pointer(const storage<T>& s) {
    return s.empty() ? nullptr : const_cast<T*>(thrust::raw_pointer_cast(s.data()));
  }
  template <class T>
  void upload(const T* host, T* device, index_t n) const {
    if (n > 0) thrust::copy(host, host + n, typed(device));
  }
  template <class T>
  void download(const T* device, T* host, index_t n) const {
    if (n > 0) thrust::copy(typed(device), typed(device) + n, host);
  }
  template <class T>
  void copy(const T* from, T* to, index_t n) const {
    if (n > 0) thrust::copy(System::policy(), typed(from), typed(from) + n, typed(to));
  }
  void synchronize() const { System::synchronize(); }

  template <class F>
  void for_each_index(index_t n, F f, index_t = 0) const {
    if (n > 0) thrust::for_each_n(System::policy(), thrust::counting_iterator<index_t>(0), n, f);
  }

  /// Memory of the handle, grown as needed and kept; contents live until the next request for the same slot.
  template <class T>
  T* workspace(int slot, index_t n) const {
    auto& w = state_->bytes[slot];
    const std::size_t need = std::size_t(n) * sizeof(T);
    if (w.size() < need) w = storage<char>(need);
    return reinterpret_cast<T*>(pointer(w));
  }
  /// What the system's products keep between calls.
  typename System::products& products() const { return state_->products; }

 private:
  struct state {
    storage<char> bytes[4];
    typename System::products products{};
  };
  template <class T>
  static auto typed(T* p) {
    return thrust::pointer<T, typename System::tag>(p);
  }
  std::shared_ptr<state> state_;
};

template <class System, operation Op>
inline constexpr bool supports<thrust_backend<System>, Op, float> = true;
template <class System, operation Op>
inline constexpr bool supports<thrust_backend<System>, Op, double> = true;

namespace thrust_kernel {

/// How many consecutive channels one index takes: a whole pixel on a host, whose inner loops become vectors; one on a device, where
/// neighbouring threads should touch neighbouring words.
template <class System>
constexpr index_t span(index_t channels) {
  return System::host ? channels : 1;
}

}  // namespace thrust_kernel
}  // namespace multistage
