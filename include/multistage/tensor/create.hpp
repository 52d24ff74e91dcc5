// Tensors from nothing, and views of memory of yours.
//
//   auto x = zeros<float>({2, 8, 8, 3});
//   auto noise = normal<float>({4, 16}, random_stream(7), backend);
//   auto mine = wrap(values, {3, 4});         // your std::vector, seen as a tensor
//
// Extents in braces make a tensor of as many axes, all known at run time. The backend is the
// last argument and defaults to a default backend's default handle.
#pragma once
#include "../core/random.hpp"
#include "evaluate.hpp"

namespace multistage {
namespace detail {
/// Extents from numbers in braces.
template <std::size_t N>
rank<int(N)> extents_from(const index_t (&extents)[N]) {
  index_list<int(N)> list;
  for (int k = 0; k < int(N); ++k)
    list[k] = extents[k];
  return make_extents<rank<int(N)>>(list);
}
template <class T>
using default_backend_t = typename default_backend<T>::type;
}  // namespace detail

/// Zeros: zeros<float>({2, 8, 8, 3}).
template <class T, std::size_t N, class Backend = detail::default_backend_t<T>>
auto zeros(const index_t (&extents)[N], const Backend& backend = Backend()) {
  return basic_tensor<T, rank<int(N)>, Backend>(backend, detail::extents_from(extents));
}
/// The same value everywhere.
template <class T, std::size_t N, class Backend = detail::default_backend_t<T>>
auto full(const index_t (&extents)[N], T value, const Backend& backend = Backend()) {
  auto x = zeros<T>(extents, backend);
  tensor_fill(x, value);
  return x;
}
/// Standard normal numbers of a stream, the same on every backend. @see core/random.hpp
template <class T, std::size_t N, class Backend = detail::default_backend_t<T>>
auto normal(const index_t (&extents)[N],
            const random_stream& stream,
            const Backend& backend = Backend()) {
  static_assert(std::is_floating_point_v<T>,
                "multistage: normal numbers are float or double; cast<T>() converts");
  auto x = zeros<T>(extents, backend);
  fill_normal(x.backend(), stream, x.size(), x.data());
  return x;
}

namespace detail {
/// to[i] = uniform number i of a stream.
template <class T>
struct uniform_numbers {
  random_stream stream;
  T* to;
  MULTISTAGE_HD void operator()(index_t i) const {
    to[i] = T(stream.uniform(std::uint64_t(i)));
  }
};
/// to[i] = first + i step.
template <class T>
struct ascending {
  T first;
  T step;
  T* to;
  MULTISTAGE_HD void operator()(index_t i) const {
    to[i] = T(first + step * T(i));
  }
};
}  // namespace detail

/// Uniform numbers in (0, 1) of a stream, the same on every backend.
template <class T, std::size_t N, class Backend = detail::default_backend_t<T>>
auto uniform(const index_t (&extents)[N],
             const random_stream& stream,
             const Backend& backend = Backend()) {
  static_assert(std::is_floating_point_v<T>,
                "multistage: uniform numbers are float or double; cast<T>() converts");
  auto x = zeros<T>(extents, backend);
  x.backend().for_each_index(x.size(), detail::uniform_numbers<T>{stream, x.data()}, 256);
  return x;
}
/// first, first + step, ...: `count` values along one axis.
template <class T, class Backend = detail::default_backend_t<T>>
auto iota(index_t count, T first = T(0), T step = T(1), const Backend& backend = Backend()) {
  auto x = zeros<T>({count}, backend);
  x.backend().for_each_index(count, detail::ascending<T>{first, step, x.data()});
  return x;
}

/// Memory of yours as a tensor, without a copy: wrap(values, {2, 8, 8, 3}). It must outlive the
/// view. @throws shape_error when it holds fewer or more elements
template <class Values, std::size_t N, class Backend = detail::default_backend_t<Values>>
auto wrap(Values& values, const index_t (&extents)[N], const Backend& backend = Backend()) {
  static_assert(
      Backend::on_host,
      "multistage: a span is memory of the host; wrap(pointer, ...) takes that of a device");
  const auto e = detail::extents_from(extents);
  require<shape_error>(index_t(std::size(values)) == e.size(), "wrap: ", std::size(values),
                       " values given for extents ", e, ", which hold ", e.size());
  using T = std::remove_pointer_t<decltype(std::data(values))>;
  return tensor_view<T, decltype(e), Backend>(backend, {std::data(values), e});
}
/// The same of a span, which is often a temporary.
template <class T, std::size_t N, class Backend = detail::default_backend_t<T>>
auto wrap(const std::span<T>& values,
          const index_t (&extents)[N],
          const Backend& backend = Backend()) {
  std::span<T> same = values;
  return wrap(same, extents, backend);
}
/// The same for a pointer into the backend's memory, with strides in elements.
template <class T, std::size_t N, class Backend = detail::default_backend_t<T>>
auto wrap(T* data,
          const index_t (&extents)[N],
          const index_t (&strides)[N],
          const Backend& backend = Backend()) {
  const auto e = detail::extents_from(extents);
  index_list<int(N)> list;
  for (int k = 0; k < int(N); ++k)
    list[k] = strides[k];
  return tensor_view<T, std::remove_const_t<decltype(e)>, Backend>(backend, {data, e, list});
}

}  // namespace multistage
