// What the quickstart shows of its run: figures, numbers and the page that explains them. Plumbing; the library's use is in quickstart.cpp.
#pragma once
#include <multistage/io.hpp>
#include <multistage/multistage.hpp>

struct quickstart_metrics {
  double frechet_samples = 0, frechet_train = 0, seconds = 0, images_per_second = 0, images = 0;
  multistage::index_t parameters = 0;
  std::uint64_t seed = 0;
  std::string backend;
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
  for (double& x : v) x = std::clamp(x, -1.0, 1.0);
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

inline void quickstart_report(const std::string& out, const multistage::clustering& found, const multistage::similarity_figure& similarity,
                              const multistage::run_result& run, const multistage::sampling_result& pictures, const std::vector<double>& samples,
                              const multistage::io::image_set& real, const quickstart_trajectories& paths, const quickstart_metrics& m) {
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
  const std::string samples_png = write("samples.png", io::image_grid(samples, first, 20, 5));
  const std::string real_png =
      io::image_grid(real.as_double(), {std::min<multistage::index_t>(100, real.count()), first.height, first.width, first.channels}, 20, 5).png();
  const std::string similarity_png = write("similarity.png", io::heat_map(similarity.matrix, similarity.times, {found.t1, found.t2},
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
  const std::string loss_png = write("loss.png", io::line_chart(curves, "Training loss by stage", "thousand images", "weighted squared error an image", true));

  multistage::shape few = pictures.extents;
  few.rows = std::min(quickstart_trajectories::pictures, few.rows);
  const std::string paths_png = write("denoising.png", io::trajectories(paths.cells, paths.sigmas, found.stages, few, 6,
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
             {"evaluations", pictures.evaluations}};
  io::write_file(out + "/metrics.json", j.dump(1) + "\n");

  io::report r("A three-stage diffusion model, " + text(m.seconds, "%.0f") + " seconds old");
  r.text(
       "Trained on 8x8 digits (UCI \"Optical Recognition of Handwritten Digits\", E. Alpaydin and C. Kaynak, CC BY 4.0), drawn and measured by the quickstart "
       "of multistage.")
      .heading("Pictures")
      .picture(samples_png,
               "Drawn by the model: seeds 0 to " + std::to_string(first.rows - 1) + ", 18 steps of EDM's Heun sampler. None of these digits exists.")
      .picture(real_png, "Real digits that were kept from training, for comparison.")
      .table({{"Frechet distance over pixels, samples", text(m.frechet_samples)},
              {"the same for as many training images", text(m.frechet_train) + " (what a perfect model would reach)"},
              {"training", text(m.seconds, "%.1f") + " s, " + text(m.images_per_second, "%.0f") + " images a second on " + m.backend},
              {"images seen", text(m.images, "%.0f")},
              {"parameters", std::to_string(m.parameters)},
              {"network evaluations a picture, by stage", io::json(pictures.evaluations).dump()},
              {"seed", std::to_string(m.seed)}})
      .heading("Stages")
      .text(
          "Each cell compares the optimal denoisers of two noise levels, computed from the training images alone: the share of values in which they agree. "
          "Noise levels that need alike denoisers form a stage; the frames are the stages. They end at sigma " +
          text(found.stages.boundaries()[0], "%.3g") + " and " + text(found.stages.boundaries()[1], "%.3g") + " (VP t " + text(found.t1, "%.3f") + " and " +
          text(found.t2, "%.3f") + ").")
      .picture(similarity_png, "Similarity between noise levels, with the stages drawn. Bright: alike.")
      .heading("Training")
      .picture(
          loss_png,
          "Loss of each stage while all train together in mixed batches. Stages differ in how hard they are, so their levels do not compare; each should fall.")
      .heading("From noise to a picture")
      .picture(paths_png,
               "Each row is a picture, each column a step of the sampler (its sigma on top): the network's guess of the final picture. The colour says which "
               "stage's decoder made the guess: coarse shapes come early, strokes late.");
  r.save(out + "/report.html");
}
