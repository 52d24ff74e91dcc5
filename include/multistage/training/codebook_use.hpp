// Which codes of a codebook are at work. Where some are never the nearest to any pixel, no
// gradient moves them, and they stay unused for good: such a code may be put in a pixel's place
// (Zeghidour et al., arXiv 2107.03312, section 3.3), from where it takes a share of what was
// its neighbours'.
//
//   codebook_use use(512);
//   use.record(report.indices, images_seen);      // the perplexity of a batch's codes
#pragma once
#include <cmath>
#include <span>
#include <vector>

#include "../core/error.hpp"
#include "../core/random.hpp"

namespace multistage {

/// When each code was last a pixel's.
class codebook_use {
 public:
  /// Of so many codes, all of them used at the start.
  explicit codebook_use(index_t codes)
      : last_used_(static_cast<std::size_t>(codes), 0.0) {}

  /// Notes the codes of a batch. Returns their perplexity, e to the entropy of their shares: as
  /// many codes at work alike would be as surprising. @param images_seen with the batch
  double record(std::span<const index_t> codes, double images_seen) {
    std::vector<double> count(last_used_.size(), 0.0);
    for (const index_t c : codes) {
      last_used_[std::size_t(c)] = images_seen;
      count[std::size_t(c)] += 1;
    }
    double entropy = 0;
    for (const double n : count)
      if (n > 0)
        entropy -= n / double(codes.size()) * std::log(n / double(codes.size()));
    return std::exp(entropy);
  }
  /// Share of the codes that were a pixel's among the last so many images.
  double share_used(double images_seen, double among) const {
    double used = 0;
    for (const double when : last_used_)
      used += when > images_seen - among || images_seen <= 0 ? 1 : 0;
    return used / double(last_used_.size());
  }
  /// Codes that were no pixel's among the last so many images; they count as used from now on.
  std::vector<index_t> take_unused(double images_seen, double among) {
    std::vector<index_t> unused;
    for (std::size_t k = 0; k < last_used_.size(); ++k)
      if (images_seen - last_used_[k] >= among) {
        unused.push_back(index_t(k));
        last_used_[k] = images_seen;
      }
    return unused;
  }
  /// Images that were seen when each code was last used, for checkpoints.
  const std::vector<double>& state() const {
    return last_used_;
  }
  /// Goes on from such a state. @throws value_error for one of another codebook
  void restore(const std::vector<double>& state) {
    require<value_error>(state.size() == last_used_.size(), "codebook: a state of ",
                         state.size(), " codes cannot be resumed by one of ",
                         last_used_.size());
    last_used_ = state;
  }

 private:
  std::vector<double> last_used_;
};

}  // namespace multistage
