// these extents differ from those of the type
// lines: 60
#include <multistage/tensor.hpp>
namespace ms = multistage;
int main() {
  const ms::tensor<float, ms::extents<3, 8>> y({3, 8});
  const ms::tensor<float, ms::extents<2, 8>> x = y;
}
