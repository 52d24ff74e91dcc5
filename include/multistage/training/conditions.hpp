// What a network is told of the rows of a batch beside their noise level: classes, contexts,
// what was done to images by augmentation; some of it left out, so that the network learns what
// guidance compares with (Ho and Salimans, arXiv 2207.12598, algorithm 1).
#pragma once
#include <algorithm>
#include <span>

#include "../diffusion/model.hpp"
#include "rows.hpp"

namespace multistage {

/// Of images, which rows name by their numbers; host memory.
struct image_conditions {
  std::span<const int> classes{};           ///< [images], -1 for none
  std::span<const float> augment_labels{};  ///< [images, augment_dim]; empty: zeros
  std::span<const float> context{};         ///< [images, tokens, width]; empty: zeros
  std::span<const float> null_context{};    ///< [tokens, width] where it is left out; empty: 0
};

/// Puts conditions of rows where the network reads them. Memory grows to the largest batch.
template <class Scalar, class Backend>
class row_conditions {
 public:
  /// @param dropout how often class and context of a row are left out
  explicit row_conditions(double dropout)
      : dropout_(dropout) {}

  /// Of rows [first, first + rows.size()) of a step's batch. @throws value_error where labels
  /// are missing, shape_error for values of another number than the model's
  conditioning<Scalar> of(dynamic_model<Scalar, Backend>& model,
                          std::span<const training_row> rows,
                          index_t first,
                          const image_conditions& given,
                          std::span<const Scalar> one_hot,
                          const step_numbers& numbers) {
    const random_stream chance = numbers.of(purpose::label_dropout);
    const auto left_out = [&](std::size_t row) {
      return dropout_ > 0 && chance.uniform(std::uint64_t(first) + row) < dropout_;
    };
    conditioning<Scalar> made;
    if (const index_t known = model.label_dim(input_slot::class_labels); known > 0) {
      require<value_error>(!one_hot.empty() || !given.classes.empty(),
                           "trainer: a batch without class labels for a model of ", known,
                           " classes; give one label a row");
      values_.assign(rows.size() * std::size_t(known), Scalar(0));
      for (std::size_t i = 0; i < rows.size() && one_hot.empty(); ++i) {
        const int label = given.classes[std::size_t(rows[i].image)];
        require<value_error>(label < known, "trainer: an image is of class ", label,
                             ", the model knows 0..", known - 1);
        if (label >= 0 && !left_out(i))
          values_[i * std::size_t(known) + std::size_t(label)] = Scalar(1);
      }
      if (!one_hot.empty())
        std::copy_n(one_hot.begin() + first * known, values_.size(), values_.begin());
      made.class_labels = put(model.backend(), class_labels_);
    }
    const index_t done = model.label_dim(input_slot::augment_labels);
    if (gather("augment_labels", rows, given.augment_labels, done))
      made.augment_labels = put(model.backend(), augment_labels_);
    const index_t size = model.label_dim(input_slot::context);
    if (gather("context", rows, given.context, size)) {
      for (std::size_t i = 0; i < rows.size(); ++i)
        if (left_out(i))
          leave_out(i, size, given.null_context);
      made.context = put(model.backend(), context_);
    }
    return made;
  }

 private:
  /// Values of the rows' images; false where there are none, or the model reads none.
  bool gather(const char* what,
              std::span<const training_row> rows,
              std::span<const float> of_images,
              index_t size) {
    if (of_images.empty() || size == 0)
      return false;
    values_.resize(rows.size() * std::size_t(size));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const std::size_t at = std::size_t(rows[i].image * size);
      require<shape_error>(at + std::size_t(size) <= of_images.size(), "trainer: ", what,
                           " of ", of_images.size(), " values end before image ", rows[i].image,
                           ", whose ", size, " the model reads");
      std::copy_n(of_images.begin() + std::ptrdiff_t(at), size,
                  values_.begin() + std::ptrdiff_t(i) * size);
    }
    return true;
  }
  void leave_out(std::size_t row, index_t size, std::span<const float> null_context) {
    const auto to = values_.begin() + std::ptrdiff_t(row) * size;
    if (null_context.empty())
      std::fill_n(to, size, Scalar(0));
    else
      std::copy_n(null_context.begin(), size, to);
  }
  const Scalar* put(Backend& backend, tensor<Scalar, Backend>& to) {
    grown(to, backend, index_t(values_.size()));
    backend.upload(values_.data(), to.data(), index_t(values_.size()));
    return to.data();
  }

  double dropout_;
  std::vector<Scalar> values_;
  tensor<Scalar, Backend> class_labels_;
  tensor<Scalar, Backend> augment_labels_;
  tensor<Scalar, Backend> context_;
};

}  // namespace multistage
