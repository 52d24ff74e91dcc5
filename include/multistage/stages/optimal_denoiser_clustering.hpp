// Algorithm 1 of arXiv 2312.09181: three stages from the similarity of optimal denoisers. The
// first ends at the largest time up to which the denoisers are, on average, alpha-similar to
// that of no noise; the last begins at the smallest time from which they are alpha-similar to
// that of full noise.
//
//   const clustering found = cluster_by_optimal_denoiser(cpu(), images, {.alpha = 0.95});
//   found.stages;                                // a partition of three stages
//   bootstrap_boundaries(found, 0.95, 1000, 1);  // how sure its two boundaries are
//
// Each draw is an image, a time and noise. Sorted by time, the running mean of the similarity
// to no noise falls from 1, and t1 is the last time at which it is alpha; the mean of the
// similarity to full noise, taken from the end, gives t2 in the same way.
#pragma once
#include <algorithm>
#include <cmath>
#include <numeric>

#include "../core/options.hpp"
#include "../schedule/vp.hpp"
#include "partition.hpp"
#include "similarity.hpp"

namespace multistage {

/// Parameters of the clustering. Thresholds are in units of what is compared (noise has
/// standard deviation 1).
struct clustering_options {
  double alpha = 0.95;  ///< similarity asked for, in (0, 1)
  /// eta: two values count as alike when they differ by at most this.
  double threshold = 2.0 / 256;
  index_t draws = 4096;             ///< K
  compared what = compared::noise;  ///< the noise is what the paper compares
  /// Lowest of the noise levels to be split, which are those that the sampler walks.
  double sigma_min = 0.002;
  double sigma_max = 80;   ///< highest noise level
  std::uint64_t seed = 0;  ///< of the draws; the same seed gives the same stages
  /// What is compared at once takes so many bytes at most (similarity_draws); the stages do not
  /// depend on it.
  index_t block_bytes = similarity_draws<double>().block_bytes;

  /// Names, meanings and ranges (core/options.hpp).
  template <class Self, class Visit>
  static void fields(Self& s, Visit&& visit) {
    visit(option{"alpha", "similarity asked for", inside(0, 1)}, s.alpha);
    visit(option{"threshold", "two values count as alike when they differ by at most this",
                 above(0)},
          s.threshold);
    visit(option{"compare",
                 "what is held to it: the noise that optimal denoisers find, or the "
                 "image"},
          s.what);
    visit(option{"draws", "noisy images compared", between(2, 10'000'000)}, s.draws);
    visit(option{"sigma_min", "lowest noise level", above(0)}, s.sigma_min);
    visit(option{"sigma_max", "highest noise level", above(0)}, s.sigma_max);
  }
};

/// Of the standard deviation of data without grey levels, what two values of D may differ by
/// and count as alike. With an eighth the outer stages of latents of emoji end at 5 and 33
/// standard deviations; the paper's of CIFAR-10, in [0, 1], end at 10 and 30 of theirs (sigma
/// 2.5 and 7.7 over 0.25). Half of it gives 5 and 46, twice as much 9 and 17.
inline constexpr double alike_share = 1.0 / 8;

/// How latents are clustered: by D itself, to a tolerance of the data's own scale. The noise
/// that D finds is (x - D) / sigma, in which nothing counts that is smaller than eta sigma: of
/// latents, whose standard deviation is 1 and whose values are never quite the same, the
/// highest level would look like the lowest, and all boundaries would crowd below it.
inline clustering_options for_latents(clustering_options o, double standard_deviation) {
  o.what = compared::image;
  o.threshold = alike_share * standard_deviation;
  return o;
}

/// @throws value_error naming the option that is out of range
MULTISTAGE_COLD inline void check(const clustering_options& o) {
  check_options("clustering", o);
  require<value_error>(o.sigma_min < o.sigma_max, "clustering: sigma_min = ", o.sigma_min,
                       ", sigma_max = ", o.sigma_max, "; they must ascend");
}

/// Boundaries and what they came from.
struct clustering {
  partition stages;  ///< what models are made with
  /// The first boundary's time.
  double t1 = 0;
  double t2 = 0;             ///< the second boundary's time
  std::vector<double> time;  ///< draws, ascending in time
  /// Similarity of each draw's denoiser to that at no noise.
  std::vector<double> to_low;
  std::vector<double> to_high;  ///< to the denoiser at full noise
  /// Means over the draws up to each time; alpha is compared with these and `mean_high`.
  std::vector<double> mean_low;
  std::vector<double> mean_high;  ///< from each time up
};

/// The two times of Algorithm 1. @throws value_error when no time reaches alpha.
inline clustering boundaries_from_similarity(const std::vector<double>& time,
                                             const end_similarity& s,
                                             double alpha) {
  clustering c;
  std::vector<std::size_t> order(time.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return time[a] < time[b]; });
  for (std::size_t k : order) {
    c.time.push_back(time[k]);
    c.to_low.push_back(s.to_low[k]);
    c.to_high.push_back(s.to_high[k]);
  }
  const std::size_t n = time.size();
  c.mean_low.resize(n);
  c.mean_high.resize(n);
  double low = 0;
  double high = 0;
  for (std::size_t i = 0; i < n; ++i) {
    c.mean_low[i] = (low += c.to_low[i]) / double(i + 1);
    c.mean_high[n - 1 - i] = (high += c.to_high[n - 1 - i]) / double(i + 1);
  }
  bool found1 = false;
  bool found2 = false;
  for (std::size_t i = 0; i < n; ++i) {
    if (c.mean_low[i] >= alpha)
      c.t1 = c.time[i], found1 = true;
    if (c.mean_high[n - 1 - i] >= alpha)
      c.t2 = c.time[n - 1 - i], found2 = true;
  }
  require<value_error>(found1 && found2, "clustering: no noise level is ", alpha,
                       "-similar to the ", found1 ? "highest" : "lowest",
                       " one; lower alpha, raise the threshold or widen sigma_min..sigma_max");
  require<value_error>(c.t1 < c.t2, "clustering: the first stage would end at t = ", c.t1,
                       ", behind the last one's beginning at ", c.t2,
                       "; the data need fewer than three stages at alpha = ", alpha,
                       ", raise alpha");
  return c;
}

/// How sure the boundaries are: bootstrap over the draws (Efron 1979). Ends of the central
/// interval of each time, and standard errors.
struct boundary_intervals {
  double t1_low;    ///< lower end for the first boundary
  double t1_high;   ///< its upper end
  double t1_error;  ///< its standard error
  double t2_low;    ///< lower end for the second boundary
  double t2_high;   ///< its upper end
  double t2_error;  ///< its standard error
  int replicates;   ///< in which both times were found
};
/// @param coverage of the intervals, e.g. 0.95. @throws value_error when hardly any replicate
/// has both times
inline boundary_intervals bootstrap_boundaries(const clustering& c,
                                               double alpha,
                                               int replicates,
                                               std::uint64_t seed,
                                               double coverage = 0.95) {
  require<value_error>(replicates >= 20 && coverage > 0 && coverage < 1,
                       "bootstrap: ", replicates, " replicates, coverage ", coverage,
                       "; give at least 20 and a share inside (0, 1)");
  const std::size_t n = c.time.size();
  std::vector<double> t1;
  std::vector<double> t2, time(n);
  end_similarity s{std::vector<double>(n), std::vector<double>(n)};
  for (int r = 0; r < replicates; ++r) {
    const random_stream numbers(seed, purpose::clustering, std::uint64_t(100 + r));
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t k = numbers.below(i, std::uint32_t(n));
      time[i] = c.time[k];
      s.to_low[i] = c.to_low[k];
      s.to_high[i] = c.to_high[k];
    }
    try {
      const clustering one = boundaries_from_similarity(time, s, alpha);
      t1.push_back(one.t1);
      t2.push_back(one.t2);
    } catch (const value_error&) {  // this replicate has no such boundaries
    }
  }
  require<value_error>(int(t1.size()) * 2 > replicates, "bootstrap: only ", t1.size(), " of ",
                       replicates, " replicates have both boundaries at alpha = ", alpha,
                       "; take more draws");
  const auto summary = [&](std::vector<double>& v, double& low, double& high, double& error) {
    std::sort(v.begin(), v.end());
    const auto at = [&](double p) {
      return v[std::size_t(p * double(v.size() - 1) + 0.5)];
    };
    low = at((1 - coverage) / 2);
    high = at((1 + coverage) / 2);
    const double mean = std::accumulate(v.begin(), v.end(), 0.0) / double(v.size());
    double square = 0;
    for (const double x : v)
      square += (x - mean) * (x - mean);
    error = std::sqrt(square / double(v.size() - 1));
  };
  boundary_intervals b{};
  b.replicates = int(t1.size());
  summary(t1, b.t1_low, b.t1_high, b.t1_error);
  summary(t2, b.t2_low, b.t2_high, b.t2_error);
  return b;
}

/// Three stages for a data set whose posterior mean is given, noised along `schedule`.
template <class Backend, posterior_mean<double> Denoiser, class Schedule = vp_schedule>
clustering cluster_by_optimal_denoiser(Backend backend,
                                       const Denoiser& denoiser,
                                       const clustering_options& o = {},
                                       const Schedule& schedule = {}) {
  check(o);
  const double t_min = schedule.t(o.sigma_min);
  const double t_max = schedule.t(o.sigma_max);
  auto draws = make_draws<double>(o.seed, o.draws, denoiser.extents().rows, t_min, t_max);
  draws.block_bytes = o.block_bytes;
  clustering c = boundaries_from_similarity(
      draws.time,
      similarity_to_ends(backend, denoiser, schedule, draws, o.what, o.threshold, t_max),
      o.alpha);
  c.stages = partition::from_times(schedule, {c.t1, c.t2});
  return c;
}
/// Three stages for a data set. What comes from memory or from a source of any size is computed
/// in double, block by block.
template <class Backend, class Schedule = vp_schedule>
clustering cluster_by_optimal_denoiser(Backend backend,
                                       const image_source& images,
                                       const clustering_options& o = {},
                                       const Schedule& schedule = {}) {
  check(o);
  check_images(images);
  return cluster_by_optimal_denoiser(
      backend, optimal_denoiser<double, Backend>(backend, images), o, schedule);
}
/// The same for images [n, h, w, c] in host memory.
template <class Backend, class T, class Schedule = vp_schedule>
clustering cluster_by_optimal_denoiser(Backend backend,
                                       std::span<const T> images,
                                       shape extents,
                                       const clustering_options& o = {},
                                       const Schedule& schedule = {}) {
  return cluster_by_optimal_denoiser(backend, image_source::of(images, extents), o, schedule);
}

/// A similarity matrix over equally spaced times of a schedule, for a figure and for
/// n_stage_partition.
struct similarity_figure {
  std::vector<double> times;            ///< of the nodes, ascending
  std::vector<double> sigmas;           ///< noise levels of the nodes
  std::vector<double> matrix;           ///< similarities, [nodes, nodes], row by row
  std::vector<double> standard_errors;  ///< of the means over draws, [nodes, nodes]
};

/// Similarity between `nodes` times that span sigma_min..sigma_max, for a data set whose
/// posterior mean is given.
template <class Backend, posterior_mean<double> Denoiser, class Schedule = vp_schedule>
similarity_figure similarity_between_times(Backend backend,
                                           const Denoiser& denoiser,
                                           int nodes = 42,
                                           const clustering_options& o = {.draws = 128},
                                           const Schedule& schedule = {}) {
  require<value_error>(nodes >= 2, "similarity_between_times: nodes = ", nodes,
                       "; at least 2 are needed");
  check(o);
  const double t_min = schedule.t(o.sigma_min);
  const double t_max = schedule.t(o.sigma_max);
  similarity_figure f;
  for (int i = 0; i < nodes; ++i) {
    f.times.push_back(t_min + (t_max - t_min) * i / (nodes - 1));
    f.sigmas.push_back(schedule.sigma(f.times.back()));
  }
  auto draws = make_draws<double>(o.seed, o.draws, denoiser.extents().rows, t_min, t_max);
  draws.block_bytes = o.block_bytes;
  auto e = similarity_matrix(backend, denoiser, schedule, f.times, draws, o.what, o.threshold);
  f.matrix = std::move(e.matrix);
  f.standard_errors = std::move(e.standard_errors);
  return f;
}
/// The same of a data set.
template <class Backend, class Schedule = vp_schedule>
similarity_figure similarity_between_times(Backend backend,
                                           const image_source& images,
                                           int nodes = 42,
                                           const clustering_options& o = {.draws = 128},
                                           const Schedule& schedule = {}) {
  check(o);
  check_images(images);
  return similarity_between_times(backend, optimal_denoiser<double, Backend>(backend, images),
                                  nodes, o, schedule);
}
/// The same of images in memory.
template <class Backend, class T, class Schedule = vp_schedule>
similarity_figure similarity_between_times(Backend backend,
                                           std::span<const T> images,
                                           shape extents,
                                           int nodes = 42,
                                           const clustering_options& o = {.draws = 128},
                                           const Schedule& schedule = {}) {
  return similarity_between_times(backend, image_source::of(images, extents), nodes, o,
                                  schedule);
}

}  // namespace multistage
