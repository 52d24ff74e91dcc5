// Stages by clustering the noise levels themselves, without data: consecutive levels form
// clusters so that the sum of the clusters' costs is least, with limits on their sizes (the
// baselines of table 4 of arXiv 2312.09181). One dynamic programme serves all; a cost says what
// a cluster [a, b) costs around its centre c = a + (b - a) / 2:
//   timestep   sum |c - t|
//   SNR        2 sum |lambda(c) - lambda(t)|, lambda the half log-SNR (arXiv 2306.05422)
//   gradient   -sum affinity[c, t], the affinity of the stages' gradients
// With k clusters of n levels, each but the first holds between floor(n / 2k) and ceil(3n / 2k)
// levels.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../core/config.hpp"
#include "../core/error.hpp"
#include "../schedule/vp.hpp"

namespace multistage {

/// The first level of every cluster, ascending, for cost(a, b) of levels [a, b). O(k n^2 / k)
/// evaluations of the cost; on equal cost the lowest start. @throws value_error unless 1 <=
/// clusters <= levels
template <class Cost>
std::vector<index_t> interval_clustering(index_t levels, int clusters, Cost&& cost) {
  const index_t n = levels;
  const index_t k = clusters;
  require<value_error>(k >= 1 && k <= n, "interval_clustering: ", clusters, " clusters of ",
                       levels, " levels; give 1 to ", levels);
  const index_t least = n / (2 * k);
  const index_t most = divide_up(3 * n, 2 * k);
  const index_t width = n + 1;
  constexpr double impossible = std::numeric_limits<double>::infinity();
  // The least cost of the first b levels in m clusters, for one m after the other, and for each
  // where its last cluster begins.
  std::vector<double> before(static_cast<std::size_t>(width), impossible);
  std::vector<double> now(before);
  std::vector<index_t> from(static_cast<std::size_t>(k * width), 0);  // [clusters, levels + 1]
  for (index_t b = 1; b <= n; ++b)
    before[b] = cost(index_t{0}, b);
  for (index_t m = 1; m < k; ++m) {
    std::fill(now.begin(), now.end(), impossible);
    for (index_t b = 1; b <= n; ++b) {
      // Where the last cluster [a, b) may begin: what lies before must hold m clusters.
      const index_t lowest = std::max(1 + m * least, b - most);
      const index_t highest = b - std::max<index_t>(least, 1);
      for (index_t a = lowest; a <= highest; ++a) {
        if (before[a] == impossible)
          continue;
        const double value = before[a] + cost(a, b);
        if (value < now[b]) {
          now[b] = value;
          from[m * width + b] = a;
        }
      }
    }
    std::swap(before, now);
  }
  require<value_error>(before[n] < impossible,
                       "interval_clustering: the size limits leave no way to cut ", levels,
                       " levels into ", clusters, " clusters");
  std::vector<index_t> first(static_cast<std::size_t>(k), 0);
  // Back along the beginnings.
  index_t b = n;
  for (index_t m = k - 1; m >= 1; --m) {
    b = from[m * width + b];
    first[m] = b;
  }
  return first;
}

/// Costs over ascending values u: weight sum_{a <= t < b} |u[c] - u[t]|, each in constant time
/// by prefix sums.
class spread_cost {
 public:
  /// @param ascending u, finite. @param weight a factor of all costs. @throws value_error where
  /// a value is not finite or falls
  explicit spread_cost(std::vector<double> ascending, double weight = 1)
      : u_(std::move(ascending)),
        sum_(u_.size() + 1, 0.0),
        weight_(weight) {
    for (std::size_t i = 0; i < u_.size(); ++i) {
      const bool ascends = i == 0 || u_[i - 1] <= u_[i];
      require<value_error>(std::isfinite(u_[i]) && ascends, "spread_cost: value ", i, " is ",
                           u_[i], "; values are finite and ascend");
      sum_[i + 1] = sum_[i] + u_[i];
    }
  }
  /// What the cluster [a, b) costs around u[a + (b - a) / 2].
  double operator()(index_t a, index_t b) const {
    const index_t c = a + (b - a) / 2;
    return weight_ * (u_[c] * double(c - a) - (sum_[c] - sum_[a]) + (sum_[b] - sum_[c]) -
                      u_[c] * double(b - c));
  }

 private:
  std::vector<double> u_;
  std::vector<double> sum_;
  double weight_;
};

/// Clusters of timesteps 1..n, by the first of each, counted from 0.
inline std::vector<index_t> cluster_by_timestep(index_t n, int clusters) {
  std::vector<double> t;
  for (index_t i = 1; i <= n; ++i)
    t.push_back(double(i));
  return interval_clustering(n, clusters, spread_cost(t));
}
/// The same by the half log-SNR of a schedule at the n times t_first + i / n (t_last -
/// t_first); it falls with t, so its negative is what ascends. @throws value_error where the
/// noise at a time is not finite
template <class Schedule = vp_schedule>
std::vector<index_t> cluster_by_snr(index_t n,
                                    int clusters,
                                    const Schedule& schedule,
                                    double t_first,
                                    double t_last) {
  std::vector<double> minus_lambda;
  for (index_t i = 1; i <= n; ++i) {
    const double t = t_first + (t_last - t_first) * (double(i) / double(n));
    minus_lambda.push_back(std::log(schedule.sigma(t)));
  }
  return interval_clustering(n, clusters, spread_cost(minus_lambda, 2));
}
/// At times from 0 to the schedule's last.
template <class Schedule = vp_schedule>
std::vector<index_t> cluster_by_snr(index_t n, int clusters, const Schedule& schedule = {}) {
  return cluster_by_snr(n, clusters, schedule, 0, schedule.t_max());
}
/// The same by an affinity matrix [n, n] of gradients. @throws value_error unless it is square
inline std::vector<index_t> cluster_by_gradient(const std::vector<double>& affinity,
                                                int clusters) {
  index_t n = 0;
  while (n * n < index_t(affinity.size()))
    ++n;
  require<value_error>(n > 0 && n * n == index_t(affinity.size()),
                       "cluster_by_gradient: ", affinity.size(),
                       " values are no square matrix");
  for (std::size_t i = 0; i < affinity.size(); ++i)
    require<value_error>(std::isfinite(affinity[i]), "cluster_by_gradient: affinity ", i,
                         " is ", affinity[i], "; all must be finite");
  std::vector<double> sum(static_cast<std::size_t>(n * (n + 1)), 0.0);
  const index_t width = n + 1;
  for (index_t c = 0; c < n; ++c) {
    double* const row = sum.data() + c * width;
    for (index_t t = 0; t < n; ++t)
      row[t + 1] = row[t] + affinity[c * n + t];
  }
  return interval_clustering(n, clusters, [&](index_t a, index_t b) {
    const index_t centre = a + (b - a) / 2;
    const double* const row = sum.data() + centre * width;
    return row[a] - row[b];
  });
}

}  // namespace multistage
