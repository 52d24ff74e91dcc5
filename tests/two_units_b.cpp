#include <multistage/eigen.hpp>
#include <multistage/io.hpp>
#include <multistage/metrics/frechet_distance.hpp>
#include <multistage/multistage.hpp>
#include <multistage/thrust.hpp>

double other_unit() {
  multistage::eigen e(1);
  multistage::tensor<float, multistage::eigen> a(e, {1, 4, 4, 8}), k(e, {3, 3, 8, 8}),
      c(e, {1, 4, 4, 8});
  multistage::ops::conv<multistage::eigen, float>(e, a.view(), k.view(), c.view());
  multistage::cpu b(1);
  multistage::tensor<float, multistage::cpu> x(b, {1, 4, 4, 8}), w(b, {3, 3, 8, 8}),
      y(b, {1, 4, 4, 8});
  multistage::ops::conv<multistage::cpu, float>(b, x.view(), w.view(), y.view());
  return multistage::ops::sum<multistage::cpu, float>(b, y.view()) +
         multistage::ops::sum<multistage::eigen, float>(e, c.view());
}
