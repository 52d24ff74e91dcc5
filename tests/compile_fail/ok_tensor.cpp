// compiles
#include <multistage/tensor.hpp>
namespace ms = multistage;
int main() {
  const ms::tensor<float, ms::extents<2, ms::dynamic, 8>> x({2, 5, 8});
  const ms::tensor<float, ms::extents<8>> y(8);
  const ms::tensor<float, ms::extents<2, 1, 1>> z({2, 1, 1});
  const auto sum = ms::eval(x + y * z);
  static_assert(decltype(sum)::extents_type::static_extent(0) == 2 &&
                decltype(sum)::extents_type::static_extent(2) == 8);
}
