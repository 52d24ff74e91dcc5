// Averages of the weights that training keeps beside the one that sampling uses: by half-lives,
// and by power functions, from which averages of any length can be made afterwards
// (average_series.hpp). Each part of the network counts the images that it has seen itself: a
// decoder's time goes on with the rows of its stage, so that an average of a share of the run
// is that share of every stage's training.
#pragma once
#include <span>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "../diffusion/model.hpp"
#include "moving_average.hpp"
#include "options.hpp"
#include "parameter_share.hpp"

namespace multistage {

/// What an average is: how it is called in files, and its rule.
struct average_kind {
  std::string name;                              ///< "std_0.05", "halflife_500_kimg"
  std::variant<power_rule, halflife_rule> rule;  ///< how fast it forgets

  /// beta of a step. @param after images seen with this step's. @param rows of the step; 0
  /// leaves the average as it is
  double keep(double after, double rows) const {
    return rows > 0 ? std::visit([&](const auto& r) { return r.keep(after, rows); }, rule) : 1;
  }
};

/// The average by a power function of this relative standard deviation. @throws value_error for
/// one out of range
MULTISTAGE_COLD inline average_kind average_of_std(double relative_std) {
  std::ostringstream name;
  name << "std_" << relative_std;
  return {name.str(), power_rule{power_function_exponent(relative_std)}};
}

/// The further averages that options ask for. @throws value_error for two of one name
MULTISTAGE_COLD inline std::vector<average_kind> average_kinds(const trainer_options& o) {
  std::vector<average_kind> kinds;
  for (const double relative_std : o.average_stds)
    kinds.push_back(average_of_std(relative_std));
  for (const double kimg : o.average_halflives_kimg) {
    std::ostringstream name;
    name << "halflife_" << kimg << "_kimg";
    kinds.push_back({name.str(), halflife_rule{kimg * 1000, o.ema_rampup_ratio}});
  }
  for (std::size_t i = 0; i < kinds.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      require<value_error>(kinds[i].name != kinds[j].name, "trainer: the average ",
                           kinds[i].name, " is asked for twice");
  return kinds;
}

/// An average and its weights, which lie as the model's do, or as those of a process's share.
template <class Scalar, class Backend>
struct kept_average {
  average_kind kind;                ///< what it is
  tensor<Scalar, Backend> weights;  ///< the average
};

/// The further averages of a model in training.
template <class Scalar, class Backend>
class kept_averages {
 public:
  /// They start as copies of the weights. @param trained must outlive this. @param share of the
  /// weights that they are averages of
  MULTISTAGE_COLD kept_averages(dynamic_model<Scalar, Backend>& trained,
                                const parameter_share& share,
                                const trainer_options& o)
      : model_(trained) {
    for (average_kind& kind : average_kinds(o)) {
      kept_.push_back({std::move(kind), {trained.backend(), {1, 1, 1, share.size()}}});
      share.each([&](const parameter_share::part& p) {
        trained.backend().copy(trained.weights().data() + p.elements.begin,
                               kept_.back().weights.data() + p.at, p.elements.size());
      });
    }
  }
  /// Moves what they have of a part of a segment's weights. Nothing fails. @param after images
  /// that the segment has seen with this step's. @param rows of the step
  void follow(const parameter_share::part& part, double after, double rows) {
    for (kept_average<Scalar, Backend>& a : kept_)
      if (const double keep = a.kind.keep(after, rows); keep < 1)
        model_.backend().for_each_index(
            part.elements.size(),
            functor::follow<Scalar>{model_.weights().data() + part.elements.begin,
                                    a.weights.data() + part.at, Scalar(keep)});
  }
  /// In the order of the options.
  std::span<kept_average<Scalar, Backend>> list() {
    return kept_;
  }
  /// As above.
  std::span<const kept_average<Scalar, Backend>> list() const {
    return kept_;
  }

 private:
  dynamic_model<Scalar, Backend>& model_;
  std::vector<kept_average<Scalar, Backend>> kept_;
};

}  // namespace multistage
