// The images of a training run: what a model reads of a set beside images, and what makes a set
// unfit for it.
#pragma once
#include "../data/batch_reader.hpp"
#include "../data/survey.hpp"
#include "../diffusion/model.hpp"
#include "warnings.hpp"

namespace multistage {

namespace detail {
/// A set in memory of its own, with classes where there are any. @throws shape_error for images
/// of another number than the extents say, value_error for labels that do not fit
template <class Scalar, class Backend>
MULTISTAGE_COLD image_source kept_in_memory(const dynamic_model<Scalar, Backend>& model,
                                            std::span<const float> images,
                                            const shape& extents,
                                            std::span<const int> classes) {
  const auto held = std::make_shared<const std::vector<float>>(images.begin(), images.end());
  image_source set = image_source::of(std::span<const float>(*held), extents);
  set.read = [held, read = std::move(set.read)](std::span<const index_t> rows, float* to) {
    read(rows, to);
  };
  const index_t known = model.label_dim(input_slot::class_labels);
  require<value_error>(index_t(classes.size()) == (known > 0 ? extents.rows : 0),
                       "trainer: ", classes.size(), " class labels for ", extents.rows,
                       " images and a model of ", known,
                       " classes; give one label an image if the model has classes, else none");
  return known > 0 ? set.labelled({classes.begin(), classes.end()}, known) : set;
}

/// What a model reads of a data set beside images. @throws value_error for labels that are
/// missing or not the model's, shape_error for a context of another size
template <class Scalar, class Backend>
MULTISTAGE_COLD batch_parts parts_for(const dynamic_model<Scalar, Backend>& model,
                                      const image_source& images,
                                      double label_dropout) {
  const index_t known = model.label_dim(input_slot::class_labels);
  const index_t context = model.label_dim(input_slot::context);
  require<value_error>(known == 0 || images.read_labels,
                       "trainer: images without labels for a "
                       "model of ",
                       known, " classes; give each its class");
  require<value_error>(known == 0 || images.class_count <= known, "trainer: images of ",
                       images.class_count, " classes, the model knows ", known);
  require<value_error>(label_dropout == 0 || known > 0 || context > 0,
                       "trainer: label_dropout = ", label_dropout,
                       " for a model without labels or context; leave it 0");
  if (context == 0)
    return {.labels = known > 0};
  if (!images.context)
    warn("trainer: the images have no context for a model that reads one of ", context,
         " values; it learns that of zeros alone");
  else
    require<shape_error>(images.context->extents.rows == images.extents.rows &&
                             images.context->extents.row_size() == context,
                         "trainer: the context is ", images.context->extents, " for ",
                         images.extents.rows, " images and a model that reads ", context,
                         " values a row");
  return {.labels = known > 0, .context = images.context != nullptr};
}

/// Refuses images that a model cannot train on, and warns of such that hardly can be meant.
/// Returns their fingerprint. @throws shape_error, value_error
template <class Scalar, class Backend>
MULTISTAGE_COLD std::string check_data(const dynamic_model<Scalar, Backend>& model,
                                       const batch_reader& data) {
  const image_source& images = data.images();
  const index_t known = model.label_dim(input_slot::class_labels);
  std::vector<int> classes;
  if (known > 0 && (images.fingerprint.empty() || images.class_count == 0))
    classes = images.labels();
  const image_survey found = survey_images(images, classes);
  shape all = data.image_extents();
  all.rows = images.extents.rows;
  require<shape_error>(all == model.images(all.rows), "trainer: images are ", all,
                       ", the model takes ", model.images(all.rows),
                       "; resize the images or choose resolution and channels to match");
  for (std::size_t i = 0; i < classes.size(); ++i)
    require<value_error>(classes[i] >= 0 && classes[i] < known, "trainer: image ", i,
                         " is of class ", classes[i], ", the model knows 0..", known - 1);
  const index_t told = model.label_dim(input_slot::augment_labels);
  require<shape_error>(data.label_count() == 0 || told == 0 || told == data.label_count(),
                       "trainer: the transform gives an image ", data.label_count(),
                       " labels, the network reads augment_dim = ", told);
  if (data.label_count() > 0 && told == 0)
    warn(
        "trainer: images are augmented, but the network is not told how (augment_dim = 0), so "
        "it will draw augmented ones; give it augment_dim = ",
        data.label_count());
  if (images.kind != image_values::moments)
    warn_of_images(found);
  return found.fingerprint;
}
}  // namespace detail

}  // namespace multistage
