// What a network is shown in training: x = y + sigma n for images y, n standard normal, or of
// Student's kind for Poisson flow.
#pragma once
#include "rows.hpp"

namespace multistage {

namespace functor {
/// A value of target = y and of x = y + sigma n.
template <class T>
struct noisy_rows {
  const T* images;
  const index_t* which;  // row -> image
  const double* sigma;
  const T* noise;  // null: drawn from `numbers`
  random_stream numbers;
  index_t first_number;  // that the first value of x takes
  index_t size;
  T* target;
  T* x;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t row = i / size;
    const T y = images[which[row] * size + i % size];
    const T n = noise ? noise[i] : T(numbers.normal(std::uint64_t(first_number + i)));
    target[i] = y;
    x[i] = y + T(sigma[row]) * n;
  }
};
}  // namespace functor

/// The factor on a row's noise that makes it Student's t of `dimensions` (arXiv 2302.04265;
/// samplers/pfgm.hpp); 1 for none of them.
inline double student_factor(index_t dimensions, index_t row, const step_numbers& numbers) {
  if (dimensions == 0)
    return 1;
  const random_stream normals = numbers.of(purpose::augmented_noise);
  double squares = 0;
  for (index_t k = 0; k < dimensions; ++k)
    squares += std::pow(normals.normal(std::uint64_t(row * dimensions + k)), 2);
  return std::sqrt(double(dimensions) / squares);
}

}  // namespace multistage
