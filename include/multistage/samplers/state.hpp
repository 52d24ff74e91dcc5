// The algebra that samplers are written in. Their steps are sums of a few tensors with factors,
//   x_next = x_hat + h * slope,  slope = (x_hat - denoised) / t_hat,
// and stand in the code as they do in the papers. Such a sum is a list of factors and tensors
// until it is assigned, and then one pass over memory, c_0 x_0 + c_1 x_1 + ... in the order of
// its terms. Nothing here is a template but the state itself, so it costs no time to compile,
// which tensor expressions (tensor/expression.hpp) do; and factors are multiplied out before
// the pass, so that a quotient of tensors costs no division an element.
#pragma once
#include <array>
#include <span>

#include "../core/tensor.hpp"
#include "../ops/elementwise.hpp"

namespace multistage::sampling {

/// A sum of up to six tensors of one size, each with a factor, in the order it was written.
class combination {
 public:
  /// One term. @param x elements in the backend's memory
  combination(double factor, const double* x)
      : count_(1) {
    terms_[0] = {factor, x};
  }

  /// Appends the other's terms. @throws value_error beyond six
  combination& operator+=(const combination& other) {
    require<value_error>(count_ + other.count_ <= terms_.size(),
                         "combination: ", count_ + other.count_,
                         " terms; split the sum, it takes ", terms_.size());
    for (const auto& term : other.terms())
      terms_[count_++] = term;
    return *this;
  }
  /// Every factor times `by`.
  combination& operator*=(double by) {
    for (std::size_t k = 0; k < count_; ++k)
      terms_[k].coefficient = by * terms_[k].coefficient;
    return *this;
  }
  /// Every factor divided by `by`.
  combination& operator/=(double by) {
    for (std::size_t k = 0; k < count_; ++k)
      terms_[k].coefficient = terms_[k].coefficient / by;
    return *this;
  }
  /// The factors with their tensors.
  std::span<const ops::term<double>> terms() const {
    return {terms_.data(), count_};
  }

 private:
  std::array<ops::term<double>, 6> terms_{};
  std::size_t count_;
};
/// The terms of both, a's first.
inline combination operator+(combination a, const combination& b) {
  return a += b;
}
/// The terms of a, then those of -b.
inline combination operator-(combination a, combination b) {
  return a += b *= -1;
}
/// Every factor of a times `by`.
inline combination operator*(double by, combination a) {
  return a *= by;
}
/// Every factor of a divided by `by`.
inline combination operator/(combination a, double by) {
  return a /= by;
}

/// A tensor of doubles in a sampler's algebra: memory of its own, or a view of the caller's.
/// It does not move; assigning to it changes its elements.
template <class Backend>
class state {
 public:
  /// Zeros in memory of its own.
  state(Backend& b, const shape& extents)
      : b_(&b),
        memory_(b, extents),
        view_(memory_.view()) {}
  /// The caller's elements, which lie one after the other.
  state(Backend& b, multistage::view<double> seen)
      : b_(&b),
        view_(seen) {}
  state(const state&) = delete;

  /// The sum's values, in one pass; terms may be this state itself. Compiled once, for any
  /// number of terms: where it is inlined, compilers fuse the first two terms' products either
  /// way, and a picture's last bits would depend on what else a program draws.
  [[gnu::noinline]] state& operator=(const combination& sum) {
    ops::linear_combination<Backend, double>(*b_, view_.extents.size(), view_.data,
                                             sum.terms());
    return *this;
  }
  /// The other's values.
  state& operator=(const state& from) {
    b_->copy(from.view_.data, view_.data, view_.extents.size());
    return *this;
  }
  /// 1 times this, as sums are made of it.
  operator combination() const {
    return {1, view_.data};
  }

  /// [rows, h, w, c], as denoisers and observers get it.
  multistage::view<const double> view() const {
    return view_;
  }
  /// [rows, h, w, c], to be written to.
  multistage::view<double> view() {
    return view_;
  }
  /// One row [1, h, w, c], which shows this state's elements.
  state row(index_t r) {
    return {*b_, view_.rows(r, 1)};
  }
  /// Rows, height, width and channels.
  const shape& extents() const {
    return view_.extents;
  }
  /// The elements on the host, row after row.
  std::vector<double> to_host() const {
    std::vector<double> host(static_cast<std::size_t>(view_.extents.size()));
    b_->download(view_.data, host.data(), view_.extents.size());
    return host;
  }

 private:
  Backend* b_;
  tensor<double, Backend> memory_;
  multistage::view<double> view_;
};

}  // namespace multistage::sampling
