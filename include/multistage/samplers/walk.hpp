// What samplers share. A sampler moves x, in the coordinate x = y + sigma n (whatever alpha a
// schedule has, it cancels), down a list of noise levels. It is a value that is called with
//   backend          on which x lies
//   x                [rows, h, w, c], moved in place
//   denoise(x, sigma, d)          evaluates D(x; sigma) into d (diffusion/denoiser.hpp)
//   noise(k, z)                   fills z with the k-th draw of standard normal noise
//   observe(step, sigma, x, d)    sees each step's first evaluation; returns whether to go on
// and says with `sigmas()` at which noise levels its steps end, the first of which is where x
// starts unless `start_scale()` says otherwise. A walk brings these together; samplers are
// loops over one, in the algebra of states (samplers/state.hpp).
#pragma once
#include <algorithm>
#include <array>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "state.hpp"

namespace multistage::sampling {

/// What multistep methods remember: values with their noise levels, the newest first, at most
/// `depth` of them. Memory of values that are forgotten serves the next.
template <class Backend>
class history {
 public:
  /// @param extents of every value
  history(Backend& b, const shape& extents, int depth)
      : b_(&b),
        extents_(extents),
        depth_(std::size_t(depth)) {}

  /// A place for the value at a level, which becomes the newest.
  state<Backend> push(double level) {
    if (values_.size() < depth_)
      values_.insert(values_.begin(), std::make_unique<tensor<double, Backend>>(*b_, extents_));
    else
      std::rotate(values_.begin(), values_.end() - 1, values_.end());
    levels_.insert(levels_.begin(), level);
    if (levels_.size() > depth_)
      levels_.resize(depth_);
    return {*b_, values_.front()->view()};
  }
  /// How many values are remembered.
  int size() const {
    return int(levels_.size());
  }
  /// Their noise levels, the newest first.
  const std::vector<double>& levels() const {
    return levels_;
  }
  /// The k-th newest value.
  combination operator[](int k) const {
    return {1, std::as_const(*values_[std::size_t(k)]).data()};
  }
  /// The sum of c[k] times the k-th newest value over the first `count`, at least one: what
  /// every linear multistep method adds to x.
  combination sum(std::span<const double> c, int count) const {
    combination all = c[0] * (*this)[0];
    for (int k = 1; k < count; ++k)
      all += c[std::size_t(k)] * (*this)[k];
    return all;
  }
  /// Nothing is remembered any more.
  void forget() {
    levels_.clear();
    values_.clear();
  }
  /// The newest goes; its memory serves the next.
  void drop_newest() {
    std::rotate(values_.begin(), values_.begin() + 1, values_.end());
    levels_.erase(levels_.begin());
  }

 private:
  Backend* b_;
  shape extents_;
  std::size_t depth_;
  std::vector<std::unique_ptr<tensor<double, Backend>>> values_;
  std::vector<double> levels_;
};

/// One call of a sampler: the state that it moves and whom it asks on the way.
template <class Backend, class Denoise, class Noise, class Observe>
class walk {
 public:
  using state_type = state<Backend>;  ///< x, and tensors like it
  state_type x;                       ///< [rows, h, w, c], the caller's memory

  /// Over the caller's x, functions and backend, which must outlive it.
  walk(Backend& b,
       multistage::view<double> start,
       Denoise& denoise,
       Noise& noise,
       Observe& observe)
      : x(b, start),
        b_(&b),
        denoise_(&denoise),
        noise_(&noise),
        observe_(&observe) {}

  /// A tensor like x, zeros.
  state_type make() const {
    return {*b_, x.extents()};
  }
  /// Room for the `depth` newest of values like x.
  history<Backend> remember(int depth) const {
    return {*b_, x.extents(), depth};
  }
  /// d = D(at; sigma).
  void denoise(const state_type& at, double sigma, state_type& d) {
    (*denoise_)(at.view(), sigma, d.view());
  }
  /// eps = (at - D(at; sigma)) / sigma, the noise that D predicts; d = D(at; sigma).
  void predict_noise(const state_type& at, double sigma, state_type& d, state_type& eps) {
    denoise(at, sigma, d);
    eps = (at - d) / sigma;
  }
  /// z = the draw of standard normal noise of this number.
  void noise(int draw, state_type& z) {
    (*noise_)(draw, z.view());
  }
  /// Tells the observer of a step's first evaluation. Returns whether to go on.
  bool observe(int step, double sigma, const state_type& at, const state_type& d) {
    return (*observe_)(step, sigma, at.view(), d.view());
  }
  /// The first evaluation of a step, d = D(x; sigma), and its observation. Returns whether to
  /// go on.
  bool begin_step(int step, double sigma, state_type& d) {
    const state_type& at = x;
    denoise(at, sigma, d);
    return observe(step, sigma, at, d);
  }
  /// On which all lies.
  Backend& backend() const {
    return *b_;
  }

 private:
  Backend* b_;
  Denoise* denoise_;
  Noise* noise_;
  Observe* observe_;
};

}  // namespace multistage::sampling
