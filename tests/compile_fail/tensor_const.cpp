// this view is const
// lines: 120
#include <multistage/tensor.hpp>
namespace ms = multistage;
int main() {
  const ms::tensor<float, ms::rank<2>> x({3, 4});
  x.slice<0>(0, 1) = x.slice<0>(1, 2);
}
