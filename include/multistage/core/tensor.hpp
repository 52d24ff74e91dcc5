// Tensors and views. A view is a pointer with extents and strides over memory that somebody else owns; a tensor owns memory of its
// backend. Extents are always named [rows, height, width, channels] (NHWC); vectors and matrices use the extents they need, the others
// are 1. Other layouts, NCHW among them, are views with other strides.
#pragma once
#include <array>
#include <optional>
#include <ostream>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "config.hpp"
#include "error.hpp"

namespace multistage {

/// Extents [rows, height, width, channels].
struct shape {
  index_t rows = 1, height = 1, width = 1, channels = 1;

  constexpr index_t pixels() const { return height * width; }
  /// Elements of one row.
  constexpr index_t row_size() const { return height * width * channels; }
  constexpr index_t size() const { return rows * row_size(); }
  friend constexpr bool operator==(const shape&, const shape&) = default;
  friend std::ostream& operator<<(std::ostream& out, const shape& s) {
    return out << '[' << s.rows << ", " << s.height << ", " << s.width << ", " << s.channels << ']';
  }
};

/// A view of elements in the backend's memory. `T` may be const.
template <class T>
struct view {
  T* data = nullptr;
  shape extents{};
  std::array<index_t, 4> strides{};  // in elements, in the order of the extents

  constexpr view() = default;
  constexpr view(T* data_, shape s) : data(data_), extents(s), strides{s.row_size(), s.width * s.channels, s.channels, 1} {}
  constexpr view(T* data_, shape s, std::array<index_t, 4> strides_) : data(data_), extents(s), strides(strides_) {}
  /// A mutable view reads as a const one.
  template <class U>
  requires(std::is_same_v<const U, T> && !std::is_same_v<U, T>) constexpr view(const view<U>& v) : data(v.data), extents(v.extents), strides(v.strides) {}

  /// Whether the elements lie one after the other in NHWC order, as operations need them.
  constexpr bool contiguous() const { return strides == view(data, extents).strides; }
  /// Rows [first, first + count).
  constexpr view rows(index_t first, index_t count) const {
    shape s = extents;
    s.rows = count;
    return {data + first * strides[0], s, strides};
  }
  constexpr explicit operator bool() const { return data != nullptr; }
};

/// A view over memory in NCHW order, with NHWC extents `s`: copying from it imports, copying to it exports.
template <class T>
constexpr view<T> nchw(T* data, shape s) {
  return {data, s, {s.row_size(), s.width, 1, s.height * s.width}};
}

/// An owning tensor of `T` in the memory of `Backend`, NHWC, contiguous. Movable; copies are explicit (`copy` in ops/copy.hpp).
template <class T, class Backend>
class tensor {
 public:
  using value_type = T;
  tensor() = default;
  /// Zeros of the given extents. @throws shape_error for an extent below 0.
  tensor(Backend backend, shape s) : backend_(std::move(backend)), extents_(check(s)), storage_(backend_->template allocate<T>(s.size())) {}
  /// From host values in NHWC order. @throws shape_error when their number differs.
  tensor(Backend backend, shape s, std::span<const T> host) : tensor(std::move(backend), s) {
    require<shape_error>(index_t(host.size()) == s.size(), "tensor: ", host.size(), " values given for extents ", s, ", which hold ", s.size());
    backend_->upload(host.data(), data(), s.size());
  }

  T* data() { return Backend::pointer(storage_); }
  const T* data() const { return Backend::pointer(storage_); }
  const shape& extents() const { return extents_; }
  index_t size() const { return extents_.size(); }
  const Backend& backend() const { return *backend_; }
  Backend& backend() { return *backend_; }

  multistage::view<T> view() { return {data(), extents_}; }
  multistage::view<const T> view() const { return {data(), extents_}; }
  /// The same, const whatever this is.
  multistage::view<const T> cview() const { return view(); }
  operator multistage::view<T>() { return view(); }
  operator multistage::view<const T>() const { return view(); }

  /// Host copy in NHWC order.
  std::vector<T> to_host() const {
    std::vector<T> host(static_cast<std::size_t>(size()));
    if (size() > 0) backend_->download(data(), host.data(), size());
    return host;
  }

 private:
  static shape check(shape s) {
    require<shape_error>(s.rows >= 0 && s.height >= 0 && s.width >= 0 && s.channels >= 0, "tensor: extents ", s, " must not be negative");
    return s;
  }
  std::optional<Backend> backend_;
  shape extents_{0, 0, 0, 0};
  typename Backend::template storage<T> storage_{};
};

}  // namespace multistage
