// To and from Eigen's matrices and vectors, without copies: tensors of one or two axes are
// Eigen::Maps, Eigen's dense objects are views.
//
//   Eigen::MatrixXf product = as_eigen(x) * as_eigen(w);     // x, w of two axes
//   from_eigen(matrix) = 2 * from_eigen(matrix);             // Eigen's memory, our expression
//
// The user includes Eigen's modules for what is done with the maps.
#pragma once
#include <Eigen/Core>

#include "../core/tensor.hpp"

namespace multistage {

/// IEEE's floats of 16 bits, for storing in tensors: expressions compute with them in float.
using half = Eigen::half;
/// Floats of 16 bits with float's exponent and 8 bits of precision, for storing, too.
using bfloat16 = Eigen::bfloat16;

/// A view of one axis as a column vector, of two as a matrix, row-major, with any strides. The
/// elements must outlive the map. as_eigen(x) is read where x is const, else written as well.
template <class X>
requires tensor_like<X>
auto as_eigen(X&& x) {
  const auto v = x.view();
  using view_type = std::remove_const_t<decltype(v)>;
  using T = typename view_type::element_type;
  using value = typename view_type::value_type;
  using E = typename view_type::extents_type;
  static_assert(std::remove_cvref_t<X>::backend_type::on_host,
                "multistage: Eigen sees memory of the host; .to(multistage::cpu()) copies");
  static_assert(E::rank() == 1 || E::rank() == 2,
                "multistage: as_eigen takes one or two axes: reshape() or at<>() first, or "
                "<multistage/interop/eigen_tensor.hpp>");
  constexpr auto known = [](int axis) {
    return E::static_extent(axis) == dynamic ? Eigen::Dynamic : int(E::static_extent(axis));
  };
  if constexpr (E::rank() == 1) {
    using vector = Eigen::Matrix<value, known(0), 1>;
    using map = Eigen::Map<std::conditional_t<std::is_const_v<T>, const vector, vector>, 0,
                           Eigen::InnerStride<>>;
    return map(v.data, v.extents[0], Eigen::InnerStride<>(v.strides[0]));
  } else {
    // Eigen wants a row-major type for one row, a column-major one for one column; strides say
    // the rest.
    constexpr int order = known(1) == 1 && known(0) != 1 ? Eigen::ColMajor : Eigen::RowMajor;
    using matrix_type = Eigen::Matrix<value, known(0), known(1), order>;
    using stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
    using map =
        Eigen::Map<std::conditional_t<std::is_const_v<T>, const matrix_type, matrix_type>, 0,
                   stride>;
    const stride s = order == Eigen::RowMajor ? stride(v.strides[0], v.strides[1])
                                              : stride(v.strides[1], v.strides[0]);
    return map(v.data, v.extents[0], v.extents[1], s);
  }
}

namespace detail {
/// Eigen's object as it lies; its elements are const where `x` or what it maps is.
template <class Derived, class Backend>
auto view_of_dense(Derived& x, const Backend& backend) {
  using T = std::remove_pointer_t<decltype(x.data())>;
  if constexpr (Derived::IsVectorAtCompileTime) {
    return tensor_view<T, rank<1>, Backend>(
        backend, {x.data(), rank<1>(x.size()), {index_t(x.innerStride())}});
  } else {
    const index_t inner = x.innerStride();
    const index_t outer = x.outerStride();
    const index_list<2> strides =
        Derived::IsRowMajor ? index_list<2>(outer, inner) : index_list<2>(inner, outer);
    return tensor_view<T, rank<2>, Backend>(backend,
                                            {x.data(), rank<2>(x.rows(), x.cols()), strides});
  }
}
/// Objects with memory of their own; expressions have none.
template <class Derived>
concept dense_in_memory = bool(Eigen::internal::traits<Derived>::Flags& Eigen::DirectAccessBit);
}  // namespace detail

/// Eigen's matrix, vector, array or map of either order as a view [rows, columns] on the CPU,
/// or [size] for a vector type. It must outlive the view.
template <detail::dense_in_memory Derived,
          class Backend = typename default_backend<Derived>::type>
auto from_eigen(Eigen::DenseBase<Derived>& object, const Backend& backend = Backend()) {
  return detail::view_of_dense(object.derived(), backend);
}
/// The same of a const object: a view to be read only.
template <detail::dense_in_memory Derived,
          class Backend = typename default_backend<Derived>::type>
auto from_eigen(const Eigen::DenseBase<Derived>& object, const Backend& backend = Backend()) {
  return detail::view_of_dense(object.derived(), backend);
}

}  // namespace multistage
