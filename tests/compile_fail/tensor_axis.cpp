// slice: there is no such axis
#include <multistage/tensor.hpp>
namespace ms = multistage;
int main() {
  ms::tensor<float, ms::rank<2>> x({3, 4});
  x.slice<2>(0, 1);
}
