// Two sets of features by their neighbourhoods. The ball of a row reaches to its k-th neighbour
// in its own set.
//   precision   share of the generated rows inside balls of the reference, surface included
//   recall      share of the reference's rows inside balls of the generated ones
//               (both Kynkaanniemi et al., arXiv 1904.06991)
//   density     how many balls of the reference hold a generated row, over k
//   coverage    share of the reference's balls that hold a generated row
//               (both Naeem et al., arXiv 2002.09797)
// As Naeem et al.'s program has it, density and coverage count what lies strictly inside, so
// that a set's density against itself is 1. That needs distances that are the same from either
// side to the last bit; products of matrices do not give them. So products find what is clear,
// and what is too near to tell is computed by the definition.
//
// Processes share out the rows whose neighbours are looked for, each having all features.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "../distributed/process_group.hpp"
#include "feature_rows.hpp"

namespace multistage {

namespace metrics_detail {

/// Rows whose distances are in memory at a time.
inline constexpr index_t block = 512;

/// Squared distances of the rows of two sets.
class distances {
 public:
  /// Copies both sets; memory is theirs twice.
  distances(const rows& x, const rows& y)
      : dimension_(x.cols()),
        x_rows_(x.rows()) {
    // Squares of very small features would be 0 and those of very large ones infinite. All
    // that is asked is which distance is larger, which a power of two leaves as it is.
    const double largest = std::max(x.cwiseAbs().maxCoeff(), y.cwiseAbs().maxCoeff());
    const double scale = scale_to_one(largest);
    original_.resize(x.rows() + y.rows(), dimension_);
    original_ << x * scale, y * scale;
    // Around a common centre, products lose less to cancellation.
    const Eigen::RowVectorXd centre = original_.topRows(x.rows()).colwise().mean();
    centred_ = original_.rowwise() - centre;
    norms_ = centred_.rowwise().squaredNorm();
    largest_norm_ = norms_.maxCoeff();
    find_equals();
  }
  /// Rows of x, or of y.
  index_t size(bool of_y) const {
    return of_y ? original_.rows() - x_rows_ : x_rows_;
  }
  /// Of rows [first, first + n) of x (or of y) to all of x (or of y), to within `slack`.
  matrix near(bool from_y, index_t first, index_t n, bool to_y) const {
    const auto a = centred_.middleRows(at(from_y, first), n);
    const auto b = centred_.middleRows(at(to_y, 0), size(to_y));
    const auto norms_a = norms_.segment(at(from_y, first), n);
    const auto norms_b = norms_.segment(at(to_y, 0), size(to_y));
    // |a - b|^2 = |a|^2 - 2 a b + |b|^2
    matrix d = -2 * a * b.transpose();  // [n, size(to_y)]
    d.colwise() += norms_a;
    d.rowwise() += norms_b.transpose();
    return d;
  }
  /// How far `near` is from `exact` at most: a bound of the errors of both (Higham, Accuracy
  /// and Stability of Numerical Algorithms, section 3.1), generous.
  double slack(bool from_y, index_t i, bool to_y, index_t j) const {
    return unit_ * (norms_(at(from_y, i)) + norms_(at(to_y, j)));
  }
  /// By the definition: the same bits from i to j as from j to i.
  double exact(bool from_y, index_t i, bool to_y, index_t j) const {
    const index_t from = at(from_y, i);
    const index_t to = at(to_y, j);
    if (group_[std::size_t(from)] == group_[std::size_t(to)])
      return 0;
    const double* a = original_.data() + from * dimension_;
    const double* b = original_.data() + to * dimension_;
    double sum = 0;
    for (index_t k = 0; k < dimension_; ++k)
      sum += (a[k] - b[k]) * (a[k] - b[k]);
    return sum;
  }
  /// Below 0, 0 or above 0 as the distance from i to j, which is near `d`, is less than, equal
  /// to or more than `exact_radius`.
  int compare(double d, bool from_y, index_t i, bool to_y, index_t j, double exact_radius)
      const {
    const double doubt = slack(from_y, i, to_y, j);
    if (d < exact_radius - doubt)
      return -1;
    if (d > exact_radius + doubt)
      return 1;
    const double e = exact(from_y, i, to_y, j);
    return e < exact_radius ? -1 : e > exact_radius ? 1 : 0;
  }
  /// Exact squared distance of some rows of a set to their k-th neighbours among the others.
  std::vector<double> radii(bool of_y, int k, const index_range& some) const {
    const index_t n = size(of_y);
    std::vector<double> r;
    std::vector<double> sorted;
    std::vector<double> candidates;
    for (index_t first = some.begin; first < some.end; first += block) {
      const index_t count = std::min(block, some.end - first);
      const matrix d = near(of_y, first, count, of_y);  // [count, n]
      for (index_t q = 0; q < count; ++q) {
        const index_t i = first + q;
        const double* const row = d.row(q).data();
        sorted.assign(row, row + n);
        sorted.erase(sorted.begin() + i);  // a row is no neighbour of its own
        const auto kth = sorted.begin() + (k - 1);
        std::nth_element(sorted.begin(), kth, sorted.end());
        // The k-th exact distance is as near to the k-th of these as each is to its own.
        const double doubt = 2 * unit_ * (norms_(at(of_y, i)) + largest_norm_);
        const double low = *kth - doubt;
        const double high = *kth + doubt;
        int below = 0;
        candidates.clear();
        for (index_t j = 0; j < n; ++j) {
          if (j == i || row[j] > high)
            continue;
          if (row[j] < low)
            ++below;
          else
            candidates.push_back(exact(of_y, i, of_y, j));
        }
        // Of those in doubt, the one that is k-th in all.
        const auto chosen = candidates.begin() + (k - 1 - below);
        std::nth_element(candidates.begin(), chosen, candidates.end());
        r.push_back(*chosen);
      }
    }
    return r;
  }

 private:
  /// The place of a row among those of both sets.
  index_t at(bool of_y, index_t i) const {
    return of_y ? x_rows_ + i : i;
  }
  /// Numbers for groups of equal rows: a generator that draws one picture for all seeds has a
  /// great many.
  void find_equals() {
    const auto row = [&](index_t i) {
      return original_.data() + i * dimension_;
    };
    std::vector<index_t> order(std::size_t(original_.rows()));
    std::iota(order.begin(), order.end(), index_t{0});
    const auto less = [&](index_t i, index_t j) {
      const double* const a = row(i);
      const double* const b = row(j);
      return std::lexicographical_compare(a, a + dimension_, b, b + dimension_);
    };
    std::sort(order.begin(), order.end(), less);
    group_.resize(order.size());
    std::size_t group = 0;  // the place in the order of its first row
    for (std::size_t k = 0; k < order.size(); ++k) {
      const double* const here = row(order[k]);
      const bool same = k > 0 && std::equal(here, here + dimension_, row(order[k - 1]));
      if (!same)
        group = k;
      group_[std::size_t(order[k])] = group;
    }
  }

  index_t dimension_;
  index_t x_rows_;
  double unit_ = 8 * double(dimension_ + 8) * std::numeric_limits<double>::epsilon();
  matrix original_;
  matrix centred_;
  Eigen::VectorXd norms_;
  double largest_norm_ = 0;
  std::vector<std::size_t> group_;
};

}  // namespace metrics_detail

/// Four shares of what `neighbourhoods` finds, in [0, 1] but for the density.
struct neighbourhood_report {
  double precision;  ///< generated rows that lie within the reference: quality
  double recall;     ///< reference rows that lie within what was generated: variety
  /// Precision that counts balls instead of asking for one; above 1 where the reference is
  /// dense.
  double density;
  double coverage;  ///< variety that one stray row of the reference does not raise
};

namespace metrics_detail {

/// What is counted of some rows.
struct neighbourhood_counts {
  index_t precise = 0;          ///< generated rows inside balls of the reference
  index_t recalled = 0;         ///< reference rows inside balls of the generated ones
  index_t strictly_inside = 0;  ///< pairs of a generated row and a ball of the reference
};

/// Looks for some generated rows in the balls of the reference. @param covered 1 for balls that
/// hold one
inline void count_generated(const distances& d,
                            const std::vector<double>& radii,
                            const index_range& some,
                            neighbourhood_counts& counts,
                            std::vector<char>& covered) {
  for (index_t first = some.begin; first < some.end; first += block) {
    const matrix near = d.near(true, first, std::min(block, some.end - first), false);
    for (index_t q = 0; q < near.rows(); ++q) {
      bool in_a_ball = false;
      for (index_t r = 0; r < near.cols(); ++r) {
        const double radius = radii[std::size_t(r)];
        const int side = d.compare(near(q, r), true, first + q, false, r, radius);
        in_a_ball = in_a_ball || side <= 0;
        counts.strictly_inside += side < 0;
        if (side < 0)
          covered[std::size_t(r)] = 1;
      }
      counts.precise += in_a_ball;
    }
  }
}
/// Looks for some rows of the reference in the balls of the generated ones.
inline void count_reference(const distances& d,
                            const std::vector<double>& radii,
                            const index_range& some,
                            neighbourhood_counts& counts) {
  for (index_t first = some.begin; first < some.end; first += block) {
    const matrix near = d.near(false, first, std::min(block, some.end - first), true);
    for (index_t q = 0; q < near.rows(); ++q) {
      bool in_a_ball = false;
      for (index_t r = 0; r < near.cols() && !in_a_ball; ++r) {
        const double radius = radii[std::size_t(r)];
        in_a_ball = d.compare(near(q, r), false, first + q, true, r, radius) <= 0;
      }
      counts.recalled += in_a_ball;
    }
  }
}

}  // namespace metrics_detail

/// Precision, recall, density and coverage of generated features against reference ones, with
/// the k-th neighbour (itself excluded). Of a set against itself all are 1; where neighbours
/// tie with the k-th, or k rows are equal, density (and then coverage) is a little less: what
/// ties is not inside.
/// @param group of processes, each of which has all features and gets the report
/// @throws value_error unless 1 <= k < rows of both, and for features that are not finite or
/// too large
inline neighbourhood_report neighbourhoods(std::span<const double> reference,
                                           std::span<const double> generated,
                                           index_t dimension,
                                           int k = 3,
                                           process_group group = {}) {
  using namespace metrics_detail;
  require<value_error>(k >= 1, "neighbourhoods: k = ", k, "; it is at least 1");
  const distances d(as_rows("neighbourhoods", reference, dimension, k + 1),
                    as_rows("neighbourhoods", generated, dimension, k + 1));
  const auto own = [&](bool of_y) {
    return share_of(d.size(of_y), group.rank(), group.size());
  };
  const auto all_radii = [&](bool of_y) {
    const std::vector<double> some = d.radii(of_y, k, own(of_y));
    return all_gather(group, std::span<const double>(some));
  };
  const std::vector<double> reference_radii = all_radii(false);
  const std::vector<double> generated_radii = all_radii(true);
  const index_t n = d.size(false);
  const index_t m = d.size(true);
  neighbourhood_counts here;
  std::vector<char> covered(static_cast<std::size_t>(n), 0);
  count_generated(d, reference_radii, own(true), here, covered);
  count_reference(d, generated_radii, own(false), here);

  neighbourhood_counts all;
  for (const auto& c : all_gather(group, std::span<const neighbourhood_counts>(&here, 1))) {
    all.precise += c.precise;
    all.recalled += c.recalled;
    all.strictly_inside += c.strictly_inside;
  }
  const std::vector<char> by_rank = all_gather(group, std::span<const char>(covered));
  for (std::size_t i = 0; i < by_rank.size(); ++i)
    covered[i % covered.size()] |= by_rank[i];
  const auto covered_balls = std::count(covered.begin(), covered.end(), 1);
  return {
      .precision = double(all.precise) / double(m),
      .recall = double(all.recalled) / double(n),
      .density = double(all.strictly_inside) / (double(k) * double(m)),
      .coverage = double(covered_balls) / double(n),
  };
}

}  // namespace multistage
