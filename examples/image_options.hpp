// How a program's pictures and arrays are to be read: the options that all programs share.
#pragma once
#include <CLI/CLI.hpp>
#include <multistage/io/dataset.hpp>
#include <string>

/// @param prefix where a program reads two sets: "reference" makes --reference-largest of
/// --largest
inline void add_image_options(CLI::App& app,
                              multistage::io::image_rule& rule,
                              const std::string& prefix = {}) {
  const std::string dashes = prefix.empty() ? "--" : "--" + prefix + "-";
  app.add_option(dashes + "largest", rule.largest,
                 "value of white in arrays of integers; 0: 255")
      ->check(CLI::Range(0.0, 1e300))
      ->capture_default_str();
  app.add_option(
      dashes + "array", rule.array,
      "which array of an npz archive; the only one that can be images needs no name");
  app.add_option(
         dashes + "channels", rule.channels,
         "3: grey fills three channels; 1: colours that agree become grey; 0: as they are")
      ->check(CLI::IsMember({0, 1, 3}))
      ->capture_default_str();
  app.add_option(dashes + "most-pixels", rule.most_pixels,
                 "pixels of the largest picture that is read")
      ->capture_default_str();
}
