// The transforms of Winograd's minimal filtering F(4x4, 3x3): of tiles of images, of weights,
// and of what comes out of the products (Lavin and Gray, arXiv 1509.09308). A filter g of three
// taps over six inputs d gives four outputs y = A^T [(G g) . (B^T d)], that is: d and g are
// read as polynomials, evaluated at the points 0, 1, -1, 2, -2 and infinity, multiplied there,
// and y is interpolated. In two dimensions each matrix is applied to columns, then to rows.
//
//         [ 4  0 -5  0  1  0 ]                                    [  1/4     0    0  ]
//         [ 0 -4 -4  1  1  0 ]         [ 1  1  1  1  1  0 ]       [ -1/6  -1/6  -1/6 ]
//   B^T = [ 0  4 -4 -1  1  0 ]   A^T = [ 0  1 -1  2 -2  0 ]   G = [ -1/6   1/6  -1/6 ]
//         [ 0 -2 -1  2  1  0 ]         [ 0  1  1  4  4  0 ]       [ 1/24  1/12   1/6 ]
//         [ 0  2 -1 -2  1  0 ]         [ 0  1 -1  8 -8  1 ]       [ 1/24 -1/12   1/6 ]
//         [ 0  4  0 -5  0  1 ]                                    [   0     0     1  ]
#pragma once
#include "simd.hpp"

namespace multistage::inline MULTISTAGE_ISA::winograd {

/// 6 x 6: a tile of 4 x 4 outputs sees so many inputs, and a product is made at each.
inline constexpr int positions = 36;

// One-dimensional transforms of values that lie `s` apart, to places `q` apart: strides walk a
// row or a column of a block.

/// B^T: six inputs to six values. Rows of B^T that differ in signs alone share their sums,
/// which leaves 12 additions and 7 multiplications by small whole numbers.
template <class V>
inline void input_transform(const V* d, int s, V* t, int q) {
  const V d0 = d[0];
  const V d1 = d[s];
  const V d2 = d[2 * s];
  const V d3 = d[3 * s];
  const V d4 = d[4 * s];
  const V d5 = d[5 * s];
  const V a = d4 - 4 * d2;
  const V b = d3 - 4 * d1;
  const V c = d4 - d2;
  const V e = 2 * (d3 - d1);
  t[0] = 4 * d0 - 5 * d2 + d4;
  t[q] = a + b;
  t[2 * q] = a - b;
  t[3 * q] = c + e;
  t[4 * q] = c - e;
  t[5 * q] = 4 * d1 - 5 * d3 + d5;
}
/// A^T: six products to four outputs.
template <class V>
inline void output_transform(const V* m, int s, V* y, int q) {
  const V m0 = m[0];
  const V m1 = m[s];
  const V m2 = m[2 * s];
  const V m3 = m[3 * s];
  const V m4 = m[4 * s];
  const V m5 = m[5 * s];
  const V p = m1 + m2;
  const V n = m1 - m2;
  const V u = m3 + m4;
  const V v = m3 - m4;
  y[0] = m0 + p + u;
  y[q] = n + 2 * v;
  y[2 * q] = p + 4 * u;
  y[3 * q] = n + 8 * v + m5;
}
/// A, the transpose of A^T: four gradients of outputs to six of products.
template <class V>
inline void output_transposed(const V* y, int s, V* m, int q) {
  const V y0 = y[0];
  const V y1 = y[s];
  const V y2 = y[2 * s];
  const V y3 = y[3 * s];
  const V even = y0 + y2;
  const V odd = y1 + y3;
  const V even2 = y0 + 4 * y2;
  const V odd2 = 2 * y1 + 8 * y3;
  m[0] = y0;
  m[q] = even + odd;
  m[2 * q] = even - odd;
  m[3 * q] = even2 + odd2;
  m[4 * q] = even2 - odd2;
  m[5 * q] = y3;
}
/// G: three weights to six, by fractions of 1 / 24, which is where rounding begins. @param T
/// says in which type the fractions are
template <class V, class T>
inline void filter_transform(const V* g, int s, V* t, int q, T) {
  const V g0 = g[0];
  const V g1 = g[s];
  const V g2 = g[2 * s];
  const V a = (g0 + g2) * T(-1.0 / 6);
  const V b = g1 * T(1.0 / 6);
  const V c = g0 * T(1.0 / 24) + g2 * T(1.0 / 6);
  const V e = g1 * T(1.0 / 12);
  t[0] = g0 * T(0.25);
  t[q] = a - b;
  t[2 * q] = a + b;
  t[3 * q] = c + e;
  t[4 * q] = c - e;
  t[5 * q] = g2;
}
/// G^T, the transpose of G: six sums to the gradients of three weights.
template <class V, class T>
inline void filter_transposed(const V* m, int s, V* g, int q, T) {
  const V m0 = m[0];
  const V m1 = m[s];
  const V m2 = m[2 * s];
  const V m3 = m[3 * s];
  const V m4 = m[4 * s];
  const V m5 = m[5 * s];
  const V p = (m1 + m2) * T(-1.0 / 6);
  const V u = m3 + m4;
  const V v = m3 - m4;
  g[0] = m0 * T(0.25) + p + u * T(1.0 / 24);
  g[q] = (m2 - m1) * T(1.0 / 6) + v * T(1.0 / 12);
  g[2 * q] = p + u * T(1.0 / 6) + m5;
}

}  // namespace multistage::inline MULTISTAGE_ISA::winograd
