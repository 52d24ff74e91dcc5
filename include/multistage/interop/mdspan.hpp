// To and from std::mdspan, without copies, where the standard library has it (C++23).
//
// Both have extents and strides, so each way is a change of names: as_mdspan gives
// std::layout_stride over the tensor's elements, from_mdspan sees an mdspan of any layout that
// has strides. Extents known to the one type are known to the other.
//
//   auto m = as_mdspan(x);                            // std::mdspan over x's elements
//   auto y = from_mdspan(m, cpu());                   // a view of them again
#pragma once
#include <version>

#include "../core/tensor.hpp"

#if defined(__cpp_lib_mdspan)
#include <array>
#include <mdspan>

namespace multistage {
namespace detail {
template <class E, class I = std::make_integer_sequence<int, E::rank()>>
struct standard_extents;
template <class E, int... I>
struct standard_extents<E, std::integer_sequence<int, I...>> {
  using type =
      std::extents<index_t,
                   (E::static_extent(I) == dynamic ? std::dynamic_extent
                                                   : std::size_t(E::static_extent(I)))...>;
};
template <class M, class I = std::make_index_sequence<M::rank()>>
struct own_extents;
template <class M, std::size_t... I>
struct own_extents<M, std::index_sequence<I...>> {
  using type = canonical<(
      M::static_extent(I) == std::dynamic_extent ? dynamic : index_t(M::static_extent(I)))...>;
};
}  // namespace detail

/// A tensor or view of the host as std::mdspan with strides.
template <tensor_like X>
auto as_mdspan(X&& x) {
  const auto v = x.view();
  using view_type = std::remove_const_t<decltype(v)>;
  using E = typename view_type::extents_type;
  using standard = typename detail::standard_extents<E>::type;
  static_assert(std::remove_cvref_t<X>::backend_type::on_host,
                "multistage: mdspan sees memory of the host; .to(multistage::cpu()) copies");
  std::array<index_t, std::size_t(E::rank())> extents{};
  std::array<index_t, std::size_t(E::rank())> strides{};
  for (int k = 0; k < E::rank(); ++k) {
    require<shape_error>(v.strides[k] > 0 || v.extents[k] <= 1, "as_mdspan: axis ", k, " of ",
                         v.extents, " has stride ", v.strides[k],
                         "; mdspan's layouts need strides above 0: copy() it first");
    extents[std::size_t(k)] = v.extents[k];
    strides[std::size_t(k)] = v.strides[k] > 0 ? v.strides[k] : 1;
  }
  // Axes of at most one element have any stride here, but one above 0 there.
  using mapping = std::layout_stride::mapping<standard>;
  return std::mdspan<typename view_type::element_type, standard, std::layout_stride>(
      v.data, mapping(standard(extents), strides));
}

/// An mdspan of any layout with strides as a view on the CPU.
template <class T,
          class Standard,
          class Layout,
          class Backend = typename default_backend<T>::type>
auto from_mdspan(const std::mdspan<T, Standard, Layout>& m,
                 const Backend& backend = Backend()) {
  using E = typename detail::own_extents<Standard>::type;
  index_list<E::rank()> extents;
  index_list<E::rank()> strides;
  for (int k = 0; k < E::rank(); ++k) {
    extents[k] = index_t(m.extent(std::size_t(k)));
    strides[k] = index_t(m.stride(std::size_t(k)));
  }
  return tensor_view<T, E, Backend>(backend,
                                    {m.data_handle(), make_extents<E>(extents), strides});
}

}  // namespace multistage
#endif
