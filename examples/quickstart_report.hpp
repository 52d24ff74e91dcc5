// What the quickstart shows of its run: figures, numbers and the page that explains them.
// Plumbing; the library's use is in quickstart.cpp.
#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
#include <multistage/io.hpp>
#include <multistage/multistage.hpp>
#include <numeric>

#include "quickstart_origin.hpp"

/// For each picture the nearest of the training images: its number, and the root mean square of
/// their difference (values from -1 to 1).
struct quickstart_neighbours {
  std::vector<multistage::index_t> image;
  std::vector<double> distance;

  double median() const {
    std::vector<double> sorted = distance;
    std::sort(sorted.begin(), sorted.end());
    return sorted[sorted.size() / 2];
  }
};

/// @param size values of a picture.
inline quickstart_neighbours quickstart_nearest(std::span<const double> pictures,
                                                std::span<const double> training,
                                                multistage::index_t size) {
  quickstart_neighbours found;
  for (auto from = pictures.begin(); from != pictures.end(); from += size) {
    double least = HUGE_VAL;
    multistage::index_t nearest = 0;
    for (multistage::index_t i = 0; i * size < multistage::index_t(training.size()); ++i) {
      const double d = std::transform_reduce(
          from, from + size, training.begin() + i * size, 0.0, std::plus<>(),
          [](double a, double b) { return (a - b) * (a - b); });
      if (d < least) {
        least = d;
        nearest = i;
      }
    }
    found.image.push_back(nearest);
    found.distance.push_back(std::sqrt(least / double(size)));
  }
  return found;
}

struct quickstart_metrics {
  double frechet_samples = 0;
  double frechet_train = 0;
  double seconds = 0;
  double images_per_second = 0;
  double images = 0;
  multistage::index_t parameters = 0;
  std::uint64_t seed = 0;
  std::string backend;
  std::string data;           // the file, where it is not the digits
  std::string configuration;  // of the model, JSON
  // of the samples, and of pictures kept from training
  quickstart_neighbours copied;
  quickstart_neighbours usual;
};

/// The text beside the progress bar: rate and loss by stage.
inline std::string quickstart_line(const multistage::loss_point& p) {
  char text[64];
  std::snprintf(text, sizeof text, "%.0f images/s  loss", p.images_per_second);
  std::string line = text;
  for (double l : p.loss) {
    if (std::isnan(l))
      std::snprintf(text, sizeof text, " -");
    else
      std::snprintf(text, sizeof text, " %.3g", l);
    line += text;
  }
  return line;
}

inline std::vector<double> quickstart_clip(std::vector<double> v) {
  for (double& x : v)
    x = std::clamp(x, -1.0, 1.0);
  return v;
}

/// Keeps x0-hat of the first pictures at every step.
struct quickstart_trajectories {
  static constexpr multistage::index_t pictures = 6;
  std::vector<std::vector<double>> cells;
  std::vector<double> sigmas;
  bool operator()(const multistage::sampling_step& s) {
    if (s.batch_first == 0) {
      cells.push_back(s.denoised());
      sigmas.push_back(s.sigma);
    }
    return true;
  }
};

inline void quickstart_report(const std::string& out,
                              const multistage::clustering& found,
                              const multistage::similarity_figure& similarity,
                              const multistage::run_result& run,
                              const multistage::sampling_result& pictures,
                              const std::vector<double>& samples,
                              const multistage::io::image_set& train,
                              const multistage::io::image_set& real,
                              const quickstart_trajectories& paths,
                              const quickstart_metrics& m,
                              const quickstart_origin& origin) {
  namespace io = multistage::io;
  const auto write = [&](const char* name, const io::canvas& c) {
    const std::string png = c.png();
    io::write_file(out + "/" + name, png);
    return png;
  };
  const auto text = [](double v, const char* form = "%.4g") {
    char s[64];
    std::snprintf(s, sizeof s, form, v);
    return std::string(s);
  };

  multistage::shape first = pictures.extents;
  first.rows = std::min<multistage::index_t>(100, first.rows);
  const auto grid_of_first = [](const std::vector<double>& values,
                                const multistage::shape& few) {
    return io::image_grid(std::span(values).first(std::size_t(few.size())), few, 20, 5);
  };
  const std::string samples_png = write("samples.png", grid_of_first(samples, first));
  const std::string real_png =
      grid_of_first(real.as_double(), {std::min<multistage::index_t>(100, real.count()),
                                       first.height, first.width, first.channels})
          .png();
  // Rows of samples, each above the row of the training images nearest to them.
  const multistage::index_t columns = 20;
  const multistage::index_t size = first.row_size();
  const multistage::index_t pairs = std::min<multistage::index_t>(3, first.rows / columns);
  const std::vector<double> seen = train.as_double();
  std::vector<double> paired;
  for (multistage::index_t row = 0; row < pairs; ++row) {
    const auto begin = samples.begin() + row * columns * size;
    paired.insert(paired.end(), begin, begin + columns * size);
    for (multistage::index_t i = row * columns; i < (row + 1) * columns; ++i) {
      const auto nearest = seen.begin() + m.copied.image[std::size_t(i)] * size;
      paired.insert(paired.end(), nearest, nearest + size);
    }
  }
  const std::string nearest_png =
      pairs > 0
          ? write("nearest.png",
                  io::image_grid(
                      paired, {2 * pairs * columns, first.height, first.width, first.channels},
                      int(columns), 5))
          : "";
  const double near = 0.25 * m.usual.median();
  const auto copies = std::count_if(m.copied.distance.begin(), m.copied.distance.end(),
                                    [&](double d) { return d < near; });

  const std::string similarity_png =
      write("similarity.png",
            io::heat_map(similarity.matrix, similarity.times, {found.t1, found.t2},
                         "Similarity of optimal denoisers", "VP time t", similarity.sigmas));

  std::vector<io::curve> curves;
  for (std::size_t s = 0; s < std::size_t(found.stages.stage_count()); ++s) {
    io::curve c{"stage " + std::to_string(s), {}, {}, io::stage_colour(int(s))};
    for (const auto& p : run.history) {
      c.x.push_back(p.images / 1000);
      c.y.push_back(p.loss[s]);
    }
    curves.push_back(c);
  }
  const std::string loss_png =
      write("loss.png", io::line_chart(curves, "Training loss by stage", "thousand images",
                                       "weighted squared error an image", true));

  multistage::shape few = pictures.extents;
  few.rows = std::min(quickstart_trajectories::pictures, few.rows);
  std::vector<std::vector<double>> cells = paths.cells;  // each of a whole batch
  for (auto& cell : cells)
    cell.resize(std::size_t(few.size()));
  const std::string paths_png = write(
      "denoising.png",
      io::trajectories(cells, paths.sigmas, found.stages, few, 6,
                       "What the network takes for the picture, at each sigma of the sampler"));

  io::json j{{"frechet_samples", m.frechet_samples},
             {"frechet_train", m.frechet_train},
             {"seconds", m.seconds},
             {"images_per_second", m.images_per_second},
             {"stage_boundaries", found.stages.boundaries()},
             {"parameters", m.parameters},
             {"seed", m.seed},
             {"backend", m.backend},
             {"images", m.images},
             {"nearest_samples", m.copied.median()},
             {"nearest_held_out", m.usual.median()},
             {"copies", copies},
             {"command", origin.command},
             {"configuration", io::json::parse(m.configuration)},
             {"machine", origin.machine},
             {"compiler", origin.compiler},
             {"commit", origin.commit},
             {"evaluations", pictures.evaluations}};
  io::write_file(out + "/metrics.json",
                 j.dump(1, ' ', false, io::json::error_handler_t::replace) + "\n");

  io::report r("A three-stage diffusion model, " + text(m.seconds, "%.0f") + " seconds old");
  const std::string digits =
      "Trained on 8x8 digits (UCI \"Optical Recognition of Handwritten Digits\", E. Alpaydin "
      "and C. Kaynak, CC BY 4.0), drawn and measured by the quickstart "
      "of multistage.";
  r.text(m.data.empty()
             ? digits
             : "Trained on " + m.data + ", drawn and measured by the quickstart of multistage.")
      .heading("Pictures")
      .picture(samples_png, "Drawn by the model: seeds 0 to " + std::to_string(first.rows - 1) +
                                ", 18 steps of EDM's Heun sampler.")
      .picture(real_png, "Real pictures that were kept from training, for comparison.");
  if (pairs > 0)
    r.picture(
        nearest_png,
        "Are they copies? Each sample stands above the training image that is nearest to it. " +
            std::to_string(copies) + " of " + std::to_string(m.copied.distance.size()) +
            " samples are much nearer to one than real pictures that were kept from training "
            "are (a quarter of their usual distance or "
            "less).");
  r.table({{"Frechet distance over pixels, samples", text(m.frechet_samples)},
           {"the same for as many training images",
            text(m.frechet_train) + " (what a perfect model would reach)"},
           {"distance to the nearest training image, samples",
            text(m.copied.median(), "%.3f") +
                " (median; root mean square of values from -1 to 1)"},
           {"the same for pictures kept from training", text(m.usual.median(), "%.3f")},
           {"training", text(m.seconds, "%.1f") + " s, " + text(m.images_per_second, "%.0f") +
                            " images a second on " + m.backend},
           {"images seen", text(m.images, "%.0f")},
           {"parameters", std::to_string(m.parameters)},
           {"network evaluations a picture, by stage", io::json(pictures.evaluations).dump()},
           {"seed", std::to_string(m.seed)}})
      .heading("Stages")
      .text(
          "Each cell compares the optimal denoisers of two noise levels, computed from the "
          "training images alone: the share of values in which they agree. "
          "Noise levels that need alike denoisers form a stage; the frames are the stages. "
          "They end at sigma " +
          text(found.stages.boundaries()[0], "%.3g") + " and " +
          text(found.stages.boundaries()[1], "%.3g") + " (VP t " + text(found.t1, "%.3f") +
          " and " + text(found.t2, "%.3f") + ").")
      .picture(similarity_png,
               "Similarity between noise levels, with the stages drawn. Bright: alike.")
      .heading("Training")
      .picture(loss_png,
               "Loss of each stage while all train together in mixed batches. Stages differ in "
               "how hard they are, so their levels do not compare; each should fall.")
      .heading("From noise to a picture")
      .picture(paths_png,
               "Each row is a picture, each column a step of the sampler (its sigma on top): "
               "the network's guess of the final picture. The colour says which "
               "stage's decoder made the guess: coarse shapes come early, strokes late.");
  r.heading("How it was made")
      .table({{"command", origin.command},
              {"configuration", m.configuration},
              {"machine", origin.machine},
              {"compiler", origin.compiler},
              {"commit", origin.commit}});
  r.save(out + "/report.html");
}
