// Golden family augment: EDM's augmentation pipe, fed with the file's draws. Host code on every
// backend.
#pragma once
#include <multistage/data/augment.hpp>

#include "golden_case.hpp"

namespace golden {

namespace ms = multistage;

/// Options by the names of the configuration.
inline ms::augment_options augment_options_of(const json& config) {
  ms::augment_options options;
  ms::augment_options::fields(options, [&](const ms::option& o, double& value) {
    value = config.at(o.name).get<double>();
  });
  return options;
}

/// What the file drew for every image; transforms that are absent have no draws.
inline std::vector<ms::augment_numbers> augment_numbers_of(const golden_case& g,
                                                           std::size_t rows) {
  std::vector<ms::augment_numbers> numbers(rows);
  const auto fill = [&](const std::string& name, auto&& member) {
    if (!g.has_input(name))
      return;
    const std::vector<double> values = g.input(name);
    for (std::size_t i = 0; i < values.size(); ++i)
      member(numbers[i % rows], i / rows) = values[i];
  };
  for (std::size_t t = 0; t < ms::augmentations.size(); ++t) {
    const std::string name = ms::augmentations[t].name;
    using all = ms::augment_numbers;
    fill(name + ".u", [&](all& n, std::size_t) -> double& { return n[t].acts; });
    fill(name + ".w", [&](all& n, std::size_t axis) -> double& { return n[t].w[axis]; });
    fill(name + ".r", [&](all& n, std::size_t) -> double& { return n[t].direction; });
    fill(name + ".u_rotate",
         [&](all& n, std::size_t) -> double& { return n[t].has_direction; });
  }
  return numbers;
}

/// Images [n, c, h, w] of the file, augmented row by row.
inline outputs run_augment(const golden_case& g) {
  const auto& e = g.file.entry("input.images").extents;
  const ms::shape one{1, e.at(2), e.at(3), e.at(1)};
  const ms::augment_options options = augment_options_of(g.config);
  const std::vector<float> images = g.input<float>("images");
  const std::size_t rows = std::size_t(e.at(0));
  const std::vector<ms::augment_numbers> numbers = augment_numbers_of(g, rows);

  ms::augmenter augment(options, one);
  const std::size_t pixels = std::size_t(one.height * one.width);
  const std::size_t channels = std::size_t(one.channels);
  std::vector<float> from(pixels * channels);
  std::vector<float> to(pixels * channels);
  std::vector<double> got(images.size());
  std::vector<double> all_labels;
  std::vector<float> labels(std::size_t(options.label_count()));
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t start = row * from.size();
    for (std::size_t i = 0; i < from.size(); ++i)  // from channels first to channels last
      from[i % pixels * channels + i / pixels] = images[start + i];
    const ms::augment_values values(options, numbers[row]);
    augment(from.data(), values, to.data());
    for (std::size_t i = 0; i < to.size(); ++i)
      got[start + i] = to[i % pixels * channels + i / pixels];
    ms::augment_labels(options, values, one.width, one.height, labels.data());
    all_labels.insert(all_labels.end(), labels.begin(), labels.end());
  }
  outputs result{{"output.images", got}, {"output.labels", all_labels}};
  if (g.file.contains("output.alone.images"))
    result["output.alone.images"] = got;
  return result;
}

}  // namespace golden
