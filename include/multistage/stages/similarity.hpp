// How alike the optimal denoisers of two noise levels are (arXiv 2312.09181, eq. 5 f.): the share of values in which, for the same image
// and the same noise, their results differ by at most a threshold.
#pragma once
#include "../core/random.hpp"
#include "optimal_denoiser.hpp"

namespace multistage {

/// What is compared: the noise that the optimal denoiser finds, (x - D) / sigma, or the image D.
enum class compared { noise, image };

/// Draws of the comparison: which image, at which time of a schedule, with which noise.
template <class T>
struct similarity_draws {
  std::vector<index_t> image;
  std::vector<double> time;
  std::vector<T> noise;  // [draws, size of an image]
  index_t size() const { return index_t(image.size()); }
};

/// Draws from a seed: images uniform, times uniform in [t_min, t_max], noise standard normal.
template <class T>
similarity_draws<T> make_draws(std::uint64_t seed, index_t draws, index_t images, index_t row_size, double t_min, double t_max) {
  similarity_draws<T> d;
  const random_stream which(seed, purpose::clustering, 0), when(seed, purpose::clustering, 1), noise(seed, purpose::clustering, 2);
  for (index_t k = 0; k < draws; ++k) {
    d.image.push_back(which.below(k, std::uint32_t(images)));
    d.time.push_back(t_min + (t_max - t_min) * when.uniform(k));
    for (index_t j = 0; j < row_size; ++j) d.noise.push_back(T(noise.normal(k * row_size + j)));
  }
  return d;
}

namespace functor {
template <class T>
struct noisy_images {
  const T *images, *noise;
  const index_t* which;
  const double* sigma;
  index_t size;
  T* x;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t k = i / size;
    x[i] = images[which[k] * size + i % size] + T(sigma[k]) * noise[i];
  }
};
/// noise found = (x - D) / sigma, in D's place
template <class T>
struct found_noise {
  const T* x;
  const double* sigma;
  index_t size;
  T* d;
  MULTISTAGE_HD void operator()(index_t i) const { d[i] = (x[i] - d[i]) / T(sigma[i / size]); }
};
/// share[k] of values with |a - b| <= threshold (or < threshold)
template <class T>
struct share_within {
  const T *a, *b;
  index_t size;
  T threshold;
  bool strict;
  double* share;
  MULTISTAGE_HD void operator()(index_t k) const {
    index_t n = 0;
    for (index_t j = k * size; j < (k + 1) * size; ++j) {
      const T diff = a[j] < b[j] ? b[j] - a[j] : a[j] - b[j];
      if (strict ? diff < threshold : diff <= threshold) ++n;
    }
    share[k] = double(n) / double(size);
  }
};
template <class T>
struct gather_images {
  const T* images;
  const index_t* which;
  index_t size;
  T* to;
  MULTISTAGE_HD void operator()(index_t i) const { to[i] = images[which[i / size] * size + i % size]; }
};
}  // namespace functor

/// Results of optimal denoisers for a list of draws; the piece that all similarities are made of.
template <class T, class Backend>
class denoiser_comparison {
 public:
  denoiser_comparison(Backend backend, const optimal_denoiser<T, Backend>& denoiser, const similarity_draws<T>& draws)
      : backend_(backend), denoiser_(denoiser), extents_(denoiser.images().extents), draws_(draws.size()) {
    extents_.rows = draws_;
    require<value_error>(draws_ > 0, "similarity: no draws; give at least one");
    noise_ = tensor<T, Backend>(backend_, extents_, draws.noise);
    which_ = tensor<index_t, Backend>(backend_, {draws_, 1, 1, 1}, draws.image);
    sigma_ = tensor<double, Backend>(backend_, {draws_, 1, 1, 1});
    share_ = tensor<double, Backend>(backend_, {draws_, 1, 1, 1});
    x_ = tensor<T, Backend>(backend_, extents_);
  }
  /// What the optimal denoiser makes of every draw at its own sigma: the noise it finds or the image.
  tensor<T, Backend> results(const std::vector<double>& sigmas, compared what) {
    tensor<T, Backend> d(backend_, extents_);
    backend_.upload(sigmas.data(), sigma_.data(), draws_);
    const index_t size = extents_.row_size();
    backend_.for_each_index(extents_.size(), functor::noisy_images<T>{denoiser_.images().data, noise_.data(), which_.data(), sigma_.data(), size, x_.data()});
    denoiser_(x_.view(), sigmas, d.view());
    if (what == compared::noise) backend_.for_each_index(extents_.size(), functor::found_noise<T>{x_.data(), sigma_.data(), size, d.data()});
    return d;
  }
  /// The limit of `results` at sigma -> 0: the drawn noise or the drawn image.
  tensor<T, Backend> limit_at_zero(compared what) {
    tensor<T, Backend> d(backend_, extents_);
    if (what == compared::noise)
      backend_.copy(noise_.data(), d.data(), d.size());
    else
      backend_.for_each_index(extents_.size(), functor::gather_images<T>{denoiser_.images().data, which_.data(), extents_.row_size(), d.data()});
    return d;
  }
  /// For each draw the share of values of a and b that differ by at most `threshold` (`strict`: by less).
  std::vector<double> shares(const tensor<T, Backend>& a, const tensor<T, Backend>& b, double threshold, bool strict) {
    backend_.for_each_index(draws_, functor::share_within<T>{a.data(), b.data(), extents_.row_size(), T(threshold), strict, share_.data()}, 64);
    return share_.to_host();
  }

 private:
  Backend backend_;
  const optimal_denoiser<T, Backend>& denoiser_;
  shape extents_;
  index_t draws_;
  tensor<T, Backend> noise_, x_;
  tensor<index_t, Backend> which_;
  tensor<double, Backend> sigma_, share_;
};

/// Similarity of each draw's denoiser to those at the two ends of the noise levels.
struct end_similarity {
  std::vector<double> to_low;   // to sigma -> 0
  std::vector<double> to_high;  // to `reference_time`
};
template <class Schedule, class T, class Backend>
end_similarity similarity_to_ends(Backend backend, const optimal_denoiser<T, Backend>& denoiser, const Schedule& schedule, const similarity_draws<T>& draws,
                                  compared what, double threshold, double reference_time) {
  denoiser_comparison<T, Backend> compare(backend, denoiser, draws);
  std::vector<double> sigmas;
  for (double t : draws.time) sigmas.push_back(schedule.sigma(t));
  const auto own = compare.results(sigmas, what);
  const auto high = compare.results(std::vector<double>(sigmas.size(), schedule.sigma(reference_time)), what);
  return {compare.shares(own, compare.limit_at_zero(what), threshold, false), compare.shares(own, high, threshold, false)};
}

/// The matrix [nodes, nodes] of similarities between times, the mean over draws. Nodes hold one block of results each.
template <class Schedule, class T, class Backend>
std::vector<double> similarity_matrix(Backend backend, const optimal_denoiser<T, Backend>& denoiser, const Schedule& schedule, const std::vector<double>& nodes,
                                      const similarity_draws<T>& draws, compared what, double threshold, bool strict = false) {
  denoiser_comparison<T, Backend> compare(backend, denoiser, draws);
  std::vector<tensor<T, Backend>> results;
  for (double t : nodes) results.push_back(compare.results(std::vector<double>(static_cast<std::size_t>(draws.size()), schedule.sigma(t)), what));
  const std::size_t n = nodes.size();
  std::vector<double> matrix(n * n);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (double s : compare.shares(results[i], results[j], threshold, strict)) sum += s;
      matrix[i * n + j] = matrix[j * n + i] = sum / double(draws.size());
    }
  return matrix;
}

}  // namespace multistage
