// seen from the last axis, extents must be equal or 1
#include <multistage/tensor.hpp>
namespace ms = multistage;
int main() {
  const ms::tensor<float, ms::extents<2, 8>> x({2, 8});
  const ms::tensor<float, ms::extents<7>> y(7);
  ms::eval(x + y);
}
