// an element is named by one index an axis
#include <multistage/tensor.hpp>
namespace ms = multistage;
int main() {
  ms::tensor<float, ms::rank<2>> x({3, 4});
  return int(x(1));
}
