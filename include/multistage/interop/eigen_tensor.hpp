// To and from Eigen::Tensor, without copies. Apart from eigen.hpp, since
// <unsupported/Eigen/CXX11/Tensor> takes seconds to compile.
//
//   Eigen::Tensor<float, 4, Eigen::RowMajor> theirs = as_eigen_tensor(x).shuffle(order);
//   auto seen = from_eigen_tensor(theirs);           // a view of four axes
#pragma once
#include <array>
#include <unsupported/Eigen/CXX11/Tensor>

#include "../core/tensor.hpp"

namespace multistage {

/// A tensor or view whose elements lie one after the other as an Eigen::TensorMap in row-major
/// order. The elements must outlive the map.
/// @throws shape_error for other strides, which TensorMap does not know
template <class X>
requires tensor_like<X>
auto as_eigen_tensor(X&& x) {
  const auto v = x.view();
  using view_type = std::remove_const_t<decltype(v)>;
  using T = typename view_type::element_type;
  using value = typename view_type::value_type;
  constexpr int axes = view_type::rank();
  static_assert(std::remove_cvref_t<X>::backend_type::on_host,
                "multistage: Eigen sees memory of the host; .to(multistage::cpu()) copies");
  require<shape_error>(v.contiguous(), "as_eigen_tensor: the elements of ", v.extents,
                       " do not lie one after the other; copy() it first");
  std::array<Eigen::Index, std::size_t(axes)> extents{};
  for (int k = 0; k < axes; ++k)
    extents[std::size_t(k)] = v.extents[k];
  using tensor_type = Eigen::Tensor<value, axes, Eigen::RowMajor>;
  return Eigen::TensorMap<
      std::conditional_t<std::is_const_v<T>, const tensor_type, tensor_type>>(v.data, extents);
}

/// An Eigen::Tensor or TensorMap of either order as a view on the CPU. It must outlive the
/// view.
template <class EigenTensor, class Backend = typename default_backend<EigenTensor>::type>
auto from_eigen_tensor(EigenTensor& x, const Backend& backend = Backend()) {
  using T = std::remove_pointer_t<decltype(x.data())>;
  constexpr int axes = int(std::remove_const_t<EigenTensor>::NumDimensions);
  index_list<axes> extents;
  for (int k = 0; k < axes; ++k)
    extents[k] = x.dimension(std::size_t(k));
  const auto e = make_extents<rank<axes>>(extents);
  index_list<axes> strides = packed_strides(e);
  if (int(std::remove_const_t<EigenTensor>::Layout) == int(Eigen::ColMajor)) {
    index_t step = 1;
    for (int k = 0; k < axes; ++k) {
      strides[k] = step;
      step *= extents[k];
    }
  }
  return tensor_view<T, rank<axes>, Backend>(backend, {x.data(), e, strides});
}

}  // namespace multistage
