// permute names every axis once
#include <multistage/tensor.hpp>
namespace ms = multistage;
int main() {
  ms::tensor<float> x({1, 2, 3, 4});
  x.permute<0, 1, 1, 3>();
}
