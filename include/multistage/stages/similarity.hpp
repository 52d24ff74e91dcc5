// How alike the optimal denoisers of two noise levels are (arXiv 2312.09181, eq. 5 f.): the
// share of values in which, for the same image and the same noise, their results differ by at
// most a threshold.
//
// For draw k with image y, time t and noise eps, x_t = y + sigma(t) eps, and what is compared
// is the noise that the optimal denoiser D finds in it, (x_t - D(x_t; sigma)) / sigma, which
// is near a standard normal number at all levels. At sigma -> 0 it is eps itself, which needs
// no computation.
#pragma once
#include <array>

#include "../core/random.hpp"
#include "optimal_denoiser.hpp"

namespace multistage {

/// The posterior mean over a data set: optimal_denoiser, or that of a set that processes share
/// (shared_optimal_denoiser.hpp).
template <class D, class T>
concept posterior_mean = requires(const D& mean,
                                  std::span<const index_t> which,
                                  std::span<const double> sigmas,
                                  view<const T> x,
                                  view<T> d) {
  { mean.extents() } -> std::convertible_to<shape>;  // of the whole data set
  mean.gather(which, d);                             // images by their numbers
  mean(x, sigmas, d);                                // d = D(x; sigma)
};

/// What is compared: the noise that the optimal denoiser finds, (x - D) / sigma, or the image
/// D.
enum class compared { noise, image };
/// As options call them.
constexpr std::array<const char*, 2> option_names(compared) {
  return {"noise", "image"};
}

/// Draws of the comparison: which image, at which time of a schedule, with which noise.
template <class T>
struct similarity_draws {
  std::vector<index_t> image;  ///< which image, for each draw
  std::vector<double> time;    ///< which time of the schedule, for each draw
  /// [draws, size of an image]; empty: drawn from `numbers` when it is needed.
  std::vector<T> noise;
  random_stream numbers{0};  ///< draw k takes the elements [k size, (k + 1) size)
  /// What is compared of a block of draws takes at most so many bytes; no result depends on it.
  index_t block_bytes = index_t{256} << 20;
  /// How many draws there are.
  index_t size() const {
    return index_t(image.size());
  }
};

/// Draws from a seed: images uniform, times uniform in [t_min, t_max], noise standard normal.
template <class T>
similarity_draws<T> make_draws(std::uint64_t seed,
                               index_t draws,
                               index_t images,
                               double t_min,
                               double t_max) {
  similarity_draws<T> d{{}, {}, {}, random_stream(seed, purpose::clustering, 2)};
  const random_stream which(seed, purpose::clustering, 0);
  const random_stream when(seed, purpose::clustering, 1);
  for (index_t k = 0; k < draws; ++k) {
    d.image.push_back(which.below(k, std::uint32_t(images)));
    d.time.push_back(t_min + (t_max - t_min) * when.uniform(k));
  }
  return d;
}

namespace functor {
/// x [copies, rows, size] = images[rows] + sigma[copies, rows] noise[rows]
template <class T>
struct noisy_images {
  const T* images;
  const T* noise;
  const double* sigma;
  index_t size;
  index_t rows;
  T* x;
  MULTISTAGE_HD void operator()(index_t i) const {
    const index_t in_copy = i % (rows * size);
    x[i] = images[in_copy] + T(sigma[i / size]) * noise[in_copy];
  }
};
/// to[i] = standard normal number first + i.
template <class T>
struct draw_noise {
  random_stream numbers;
  index_t first;
  T* to;
  MULTISTAGE_HD void operator()(index_t i) const {
    to[i] = T(numbers.normal(std::uint64_t(first + i)));
  }
};
/// noise found = (x - D) / sigma, in D's place
template <class T>
struct found_noise {
  const T* x;
  const double* sigma;
  index_t size;
  T* d;
  MULTISTAGE_HD void operator()(index_t i) const {
    d[i] = (x[i] - d[i]) / T(sigma[i / size]);
  }
};
/// share[k] of values with |a - b| <= threshold (or < threshold)
template <class T>
struct share_within {
  const T* a;
  const T* b;
  index_t size;
  T threshold;
  bool strict;
  double* share;
  MULTISTAGE_HD void operator()(index_t k) const {
    index_t n = 0;
    for (index_t j = k * size; j < (k + 1) * size; ++j) {
      const T diff = a[j] < b[j] ? b[j] - a[j] : a[j] - b[j];
      if (strict ? diff < threshold : diff <= threshold)
        ++n;
    }
    share[k] = double(n) / double(size);
  }
};
}  // namespace functor

namespace detail {

/// Draws taken a block at a time, so that memory does not grow with their number: f(block of
/// draws, first draw). `results(sigmas)` of a block gives what the optimal denoiser makes of
/// its draws, [copies, rows, size] for copies x rows noise levels: the noise it finds or the
/// image.
template <class T, class Backend, class Denoiser>
class block_of_draws {
 public:
  block_of_draws(Backend backend,
                 const Denoiser& denoiser,
                 const similarity_draws<T>& draws,
                 index_t first,
                 index_t rows,
                 compared what)
      : backend_(backend),
        denoiser_(denoiser),
        extents_(denoiser.extents()),
        what_(what) {
    extents_.rows = rows;
    images_ = tensor<T, Backend>(backend_, extents_);
    noise_ = tensor<T, Backend>(backend_, extents_);
    const index_t size = extents_.row_size();
    const auto which = std::span(draws.image).subspan(std::size_t(first), std::size_t(rows));
    denoiser_.gather(which, images_.view());
    if (draws.noise.empty()) {
      const functor::draw_noise<T> drawn{draws.numbers, first * size, noise_.data()};
      backend_.for_each_index(rows * size, drawn, 256);
    } else {
      const T* const given = draws.noise.data() + first * size;
      backend_.upload(given, noise_.data(), rows * size);
    }
    share_ = tensor<double, Backend>(backend_, {rows, 1, 1, 1});
  }
  /// Draws of the block.
  index_t rows() const {
    return extents_.rows;
  }
  index_t size() const {
    return extents_.row_size();
  }
  /// What is compared, [copies, rows, size], at noise levels [copies, rows].
  tensor<T, Backend> results(const std::vector<double>& sigmas) {
    shape all = extents_;
    all.rows = index_t(sigmas.size());
    tensor<T, Backend> d(backend_, all);
    tensor<T, Backend> x(backend_, all);
    const tensor<double, Backend> sigma(backend_, {all.rows, 1, 1, 1}, sigmas);
    const functor::noisy_images<T> noisy{
        .images = images_.data(),
        .noise = noise_.data(),
        .sigma = sigma.data(),
        .size = size(),
        .rows = rows(),
        .x = x.data(),
    };
    backend_.for_each_index(all.size(), noisy);
    denoiser_(x.cview(), sigmas, d.view());
    if (what_ == compared::noise) {
      const functor::found_noise<T> found{x.data(), sigma.data(), size(), d.data()};
      backend_.for_each_index(all.size(), found);
    }
    return d;
  }
  /// The limit of `results` at sigma -> 0: the drawn noise or the drawn image.
  const tensor<T, Backend>& limit_at_zero() const {
    return what_ == compared::noise ? noise_ : images_;
  }
  /// For each draw the share of values of a and b that differ by at most `threshold` (`strict`:
  /// by less).
  std::vector<double> shares(const T* a, const T* b, double threshold, bool strict) {
    const functor::share_within<T> share{a, b, size(), T(threshold), strict, share_.data()};
    backend_.for_each_index(rows(), share, 64);
    return share_.to_host();
  }

 private:
  Backend backend_;
  const Denoiser& denoiser_;
  shape extents_;
  compared what_;
  tensor<T, Backend> images_;
  tensor<T, Backend> noise_;
  tensor<double, Backend> share_;
};

/// f(block, first draw) for all draws; a block's results for `copies` noise levels a draw take
/// at most the draws' block_bytes, or what one draw takes.
template <class T, class Backend, class Denoiser, class F>
void for_each_block_of_draws(Backend backend,
                             const Denoiser& denoiser,
                             const similarity_draws<T>& draws,
                             index_t copies,
                             compared what,
                             F&& f) {
  require<value_error>(draws.size() > 0, "similarity: no draws; give at least one");
  const index_t row_bytes = copies * denoiser.extents().row_size() * index_t(sizeof(T));
  const index_t most = std::max<index_t>(1, draws.block_bytes / row_bytes);
  for (index_t first = 0; first < draws.size(); first += most) {
    const index_t count = std::min(most, draws.size() - first);
    block_of_draws<T, Backend, Denoiser> block(backend, denoiser, draws, first, count, what);
    f(block, std::size_t(first));
  }
}

}  // namespace detail

/// Similarity of each draw's denoiser to those at the two ends of the noise levels.
struct end_similarity {
  std::vector<double> to_low;   ///< to sigma -> 0
  std::vector<double> to_high;  ///< to `reference_time`
};
/// Compares the denoiser at each draw's own time with those of no noise and of
/// `reference_time`, for the same noisy image. @param threshold two values count as alike when
/// they differ by at most this, in units of what is compared. @throws value_error without draws
template <class Schedule, class T, class Backend, posterior_mean<T> Denoiser>
end_similarity similarity_to_ends(Backend backend,
                                  const Denoiser& denoiser,
                                  const Schedule& schedule,
                                  const similarity_draws<T>& draws,
                                  compared what,
                                  double threshold,
                                  double reference_time) {
  end_similarity s;
  const auto compare = [&](auto& block, std::size_t first) {
    const std::size_t rows = std::size_t(block.rows());
    std::vector<double> sigmas;
    for (std::size_t k = 0; k < rows; ++k)
      sigmas.push_back(schedule.sigma(draws.time[first + k]));
    sigmas.resize(2 * rows, schedule.sigma(reference_time));
    // At the draws' own levels, then at the highest: one pass over the images.
    const auto d = block.results(sigmas);  // [2, rows, size]
    const T* const own = d.data();
    const T* const highest = own + block.rows() * block.size();
    const T* const lowest = block.limit_at_zero().data();
    for (const double share : block.shares(own, lowest, threshold, false))
      s.to_low.push_back(share);
    for (const double share : block.shares(own, highest, threshold, false))
      s.to_high.push_back(share);
  };
  detail::for_each_block_of_draws(backend, denoiser, draws, 2, what, compare);
  return s;
}

/// Similarities between times: the means over draws, and their standard errors. Both [nodes,
/// nodes].
struct similarity_estimate {
  std::vector<double> matrix;           ///< means over the draws, symmetric, 1 on the diagonal
  std::vector<double> standard_errors;  ///< of those means
};
/// Compares the denoisers of all pairs of times, each draw's image with the same noise at each.
/// @param nodes times of the schedule. @param strict values that differ by exactly the
/// threshold are not alike. @throws value_error without draws
template <class Schedule, class T, class Backend, posterior_mean<T> Denoiser>
similarity_estimate similarity_matrix(Backend backend,
                                      const Denoiser& denoiser,
                                      const Schedule& schedule,
                                      const std::vector<double>& nodes,
                                      const similarity_draws<T>& draws,
                                      compared what,
                                      double threshold,
                                      bool strict = false) {
  const std::size_t n = nodes.size();
  similarity_estimate e{std::vector<double>(n * n, 0.0), std::vector<double>(n * n, 0.0)};
  // Sums of shares and of their squares, below the diagonal, which become what they are called.
  std::vector<double>& sum = e.matrix;
  std::vector<double>& squares = e.standard_errors;
  const auto compare = [&](auto& block, std::size_t) {
    std::vector<double> sigmas;
    for (const double t : nodes)
      sigmas.insert(sigmas.end(), std::size_t(block.rows()), schedule.sigma(t));
    const auto d = block.results(sigmas);  // [nodes, rows, size]
    const index_t step = block.rows() * block.size();
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j <= i; ++j) {
        const T* const at_i = d.data() + index_t(i) * step;
        const T* const at_j = d.data() + index_t(j) * step;
        for (const double share : block.shares(at_i, at_j, threshold, strict)) {
          sum[i * n + j] += share;
          squares[i * n + j] += share * share;
        }
      }
  };
  detail::for_each_block_of_draws(backend, denoiser, draws, index_t(n), what, compare);
  const double count = double(draws.size());
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      const std::size_t below = i * n + j;
      const std::size_t above = j * n + i;
      const double mean = sum[below] / count;
      const double variance = std::max(0.0, squares[below] / count - mean * mean);
      const double deviation = count > 1 ? std::sqrt(variance / (count - 1)) : 0;
      sum[below] = mean;
      sum[above] = mean;
      squares[below] = deviation;
      squares[above] = deviation;
    }
  return e;
}

}  // namespace multistage
