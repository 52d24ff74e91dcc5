// How good pictures are beside images that no network was trained on: the Frechet distance over
// features of random convolutions (and over Inception's where its weights are at hand), KID,
// precision and recall, with everything that such a figure means nothing without.
//
//   const quality_meter meter(cpu(), training, held_out);
//   meter(pictures, extents).frechet;
#pragma once
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "../distributed/process_group.hpp"
#include "../io/file.hpp"
#include "../io/images.hpp"
#include "../io/inception_file.hpp"
#include "../metrics/feature_extractor.hpp"
#include "../metrics/features.hpp"
#include "../metrics/frechet_distance.hpp"

namespace multistage {

/// What was measured of a set of pictures. Lower is better but for precision and recall.
struct picture_quality {
  double frechet = 0;            ///< distance to the held-out images
  double frechet_training = 0;   ///< distance to the images that were trained on
  double kid = 0;                ///< to the held-out images
  double precision = 0;          ///< pictures that lie among the held-out images
  double recall = 0;             ///< held-out images that lie among the pictures
  double frechet_inception = 0;  ///< to the held-out images over Inception; 0 without it

  /// Names the figures.
  template <class Self, class Visit>
  static void fields(Self& self, Visit&& visit) {
    visit(option{"frechet", "Frechet distance to the held-out images"}, self.frechet);
    visit(option{"frechet_training", "the same to the images that were trained on"},
          self.frechet_training);
    visit(option{"kid", "kernel distance to the held-out images"}, self.kid);
    visit(option{"precision", "pictures among the held-out images"}, self.precision);
    visit(option{"recall", "held-out images among the pictures"}, self.recall);
    visit(option{"frechet_inception", "Frechet distance over Inception; 0: not measured"},
          self.frechet_inception);
  }
};

/// Measures pictures against two sets of images.
class quality_meter {
 public:
  /// @param backend of the networks of features. @param inception file of its weights; empty:
  /// it is not asked. @throws file_error, value_error, shape_error
  template <class Backend>
  MULTISTAGE_COLD quality_meter(const Backend& backend,
                                const io::image_set& training,
                                const io::image_set& held_out,
                                const std::string& inception = {})
      : random_(random_features(backend, held_out.extents)),
        training_(random_.features(training.span(), training.extents)),
        held_out_(random_.features(held_out.span(), held_out.extents)),
        images_(held_out.count()) {
    if (inception.empty())
      return;
    inception_ = inception_features(io::load_inception(inception, backend),
                                    fingerprint(io::read_file(inception)));
    held_out_inception_ = inception_->features(held_out.span(), held_out.extents);
  }

  /// Of pictures [n, h, w, c] in [-1, 1]. @throws value_error for fewer than four
  MULTISTAGE_COLD picture_quality operator()(std::span<const float> pictures,
                                             const shape& extents) const {
    const std::vector<double> features = random_.features(pictures, extents);
    const index_t width = random_.dimension;
    picture_quality q;
    q.frechet = frechet_distance(features, held_out_, width);
    q.frechet_training = frechet_distance(features, training_, width);
    q.kid = multistage::kid(features, held_out_, width);
    const neighbourhood_report near =
        neighbourhoods(held_out_, features, width, neighbours, process_group());
    q.precision = near.precision;
    q.recall = near.recall;
    if (inception_)
      q.frechet_inception = frechet_distance(inception_->features(pictures, extents),
                                             held_out_inception_, inception_->dimension);
    return q;
  }
  /// What figures are over, in words.
  std::string text() const {
    std::string said = random_.name + ", hash " + random_.hash;
    if (inception_)
      said += "; " + inception_->name + ", hash " + inception_->hash;
    return said + "; " + std::to_string(images_) +
           " held-out images; precision and recall by " + std::to_string(neighbours) +
           " neighbours";
  }

 private:
  static constexpr int neighbours = 3;
  feature_extractor random_;
  std::vector<double> training_;
  std::vector<double> held_out_;
  index_t images_;
  std::optional<feature_extractor> inception_{};
  std::vector<double> held_out_inception_{};
};

}  // namespace multistage
