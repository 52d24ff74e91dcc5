// this backend does not run this operation on this scalar type
#include <multistage/multistage.hpp>
#include <multistage/ops/conv.hpp>
int main() {
  multistage::cpu b;
  multistage::tensor<int, multistage::cpu> x(b, {1, 4, 4, 1}), w(b, {3, 3, 1, 1}),
      y(b, {1, 4, 4, 1});
  multistage::ops::conv<multistage::cpu, int>(b, x.view(), w.view(), y.view());
}
