// the expression has more axes than what it is assigned to
#include <multistage/tensor.hpp>
namespace ms = multistage;
int main() {
  ms::tensor<float, ms::rank<2>> x({3, 4});
  x.at<0>(0) = 2 * x;
}
