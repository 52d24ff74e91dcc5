// seen from the last axis, extents must be equal or 1
#include <multistage/tensor.hpp>
namespace ms = multistage;
int main() {
  ms::tensor<float, ms::extents<2, 8>> x({2, 8});
  const ms::tensor<float, ms::extents<3, 8>> y({3, 8});
  x.permute<0, 1>() = y;
}
