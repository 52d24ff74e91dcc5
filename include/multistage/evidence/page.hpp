// The page of an experiment: its tables, quality over compute with bands, samples side by side,
// the stages that were found. As one page of HTML, and as Markdown with figures beside it.
//
//   write_page(experiment_results(e, "out"), made);   // out/report.html, out/evidence.md
#pragma once
#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "../io/figures.hpp"
#include "../io/npy.hpp"
#include "../io/report.hpp"
#include "../runs/stage_search.hpp"
#include "results.hpp"

namespace multistage {

namespace detail {

/// A page in both of its forms.
class evidence_page {
 public:
  /// @param folder of the experiment. @throws file_error
  evidence_page(const std::string& title, std::string folder)
      : html_(title),
        markdown_("# " + title + "\n"),
        folder_(std::move(folder)) {
    io::make_directory(folder_ + "/figures");
  }
  /// A heading of the second level.
  void heading(const std::string& s) {
    html_.heading(s);
    markdown_ += "\n## " + s + "\n";
  }
  /// A paragraph.
  void text(const std::string& s) {
    html_.text(s);
    markdown_ += s + "\n\n";
  }
  /// A table; one without rows is left out.
  void table(const io::grid& t) {
    if (t.rows.empty())
      return;
    html_.columns(t);
    markdown_ += "\n" + io::markdown(t) + "\n";
  }
  /// A figure, which gets a file of this name. @throws file_error
  void figure(const std::string& name, const std::string& png, const std::string& caption) {
    io::write_file(folder_ + "/figures/" + name + ".png", png);
    html_.picture(png, caption);
    markdown_ += "![" + caption + "](figures/" + name + ".png)\n\n" + caption + "\n\n";
  }
  /// Writes report.html and evidence.md. @throws file_error
  void save() const {
    html_.save(folder_ + "/report.html");
    io::write_file(folder_ + "/evidence.md", markdown_);
  }

 private:
  io::report html_;
  std::string markdown_;
  std::string folder_;
};

/// Mean quality of an arm over its compute, with the interval as a band.
MULTISTAGE_COLD inline io::curve quality_curve(const experiment_results& r,
                                               const std::string& name,
                                               int place) {
  io::curve c{r.asked().arm_of(name).text, {}, {}, io::stage_colour(place)};
  for (std::size_t i = 0; i < r.asked().points.size(); ++i) {
    std::vector<double> spent;
    std::vector<double> frechet;
    for (const auto& [seed, record] : r.of(name))
      if (i < record.points.size()) {
        spent.push_back(2 * record.points[i].spent / 1e12);
        frechet.push_back(frechet_of(record.points[i]));
      }
    const estimate e = mean_of(frechet);
    c.x.push_back(mean_of(spent).mean);
    c.y.push_back(e.mean);
    c.low.push_back(e.low());
    c.high.push_back(e.high());
  }
  return c;
}

/// A group's arms that have results, the baseline first.
inline std::vector<std::string> arms_of(const experiment_results& r, const table_group& g) {
  std::vector<std::string> names = g.all();
  std::erase_if(names, [&](const std::string& name) { return r.start_of(name) == nullptr; });
  return names;
}

/// Quality over compute of a group.
MULTISTAGE_COLD inline void add_curves(evidence_page& page,
                                       const experiment_results& r,
                                       const table_group& g,
                                       const std::string& file) {
  std::vector<io::curve> curves;
  for (const std::string& name : arms_of(r, g))
    curves.push_back(quality_curve(r, name, int(curves.size())));
  if (curves.size() < 2)
    return;
  page.figure(file,
              io::line_chart(curves, g.text, "TFLOP of forward passes in training",
                             "Frechet distance", true, true)
                  .png(),
              g.text +
                  ": Frechet distance to held-out images over training compute, mean and "
                  "95 % interval over seeds.");
}

/// Quality over the evaluations that drawing takes, a curve a sampler that was given several
/// numbers of them.
MULTISTAGE_COLD inline void add_sampler_curves(evidence_page& page,
                                               const experiment_results& r,
                                               const result_table& t,
                                               const std::string& name,
                                               const std::string& file) {
  std::map<std::string, io::curve> by_sampler;
  for (const drawing& d : t.drawings) {
    const auto mean = [&](figure_of f) {
      return over_seeds(r, name, f, d.text);
    };
    const estimate quality = mean(frechet_of);
    if (quality.n == 0 || d.encoder_every > 1 || d.options.contains("boundary"))
      continue;
    io::curve& c = by_sampler[d.sampler];
    c.x.push_back(mean([](const measurement& m) { return m.evaluations; }).mean);
    c.y.push_back(quality.mean);
  }
  std::vector<io::curve> curves;
  for (auto& [sampler, c] : by_sampler)
    if (c.x.size() > 1)
      curves.push_back({sampler, std::move(c.x), std::move(c.y), {}});
  if (curves.empty())
    return;
  for (int k = 0; k < int(curves.size()); ++k)
    curves[std::size_t(k)].ink = io::hue_colour(k, int(curves.size()));
  const std::string text = r.asked().arm_of(name).text;
  page.figure(
      file,
      io::line_chart(curves, text, "evaluations of the network", "Frechet distance", true, true)
          .png(),
      text + ": Frechet distance over evaluations, mean over seeds.");
}

/// The same seeds drawn by each arm of a group at the end of its budget, a row an arm.
MULTISTAGE_COLD inline void add_samples(evidence_page& page,
                                        const experiment_results& r,
                                        const table_group& g,
                                        const std::string& file) {
  std::vector<double> all;
  shape extents{0, 0, 0, 0};
  std::string rows;
  for (const std::string& name : arms_of(r, g)) {
    const cell first = cell_of(name, r.of(name).begin()->first);
    const std::string path = cell_path(r.folder(), first.name, ".npy");
    if (!std::filesystem::exists(path))
      continue;
    const io::npy_array a = io::read_npy(path);
    require<file_error>(a.extents.size() == 4, path, ": is no array of pictures");
    const shape own{a.extents[0], a.extents[1], a.extents[2], a.extents[3]};
    if (extents.rows > 0 && own.row_size() != extents.row_size())
      continue;
    extents = {extents.rows + own.rows, own.height, own.width, own.channels};
    all.insert(all.end(), a.values.begin(), a.values.end());
    rows += (rows.empty() ? "" : "; ") + r.asked().arm_of(name).text;
  }
  if (extents.rows == 0 || (extents.channels != 1 && extents.channels != 3))
    return;
  constexpr int columns = 12;
  const int zoom = std::max(1, int(64 / extents.width));
  page.figure(file, io::image_grid(all, extents, columns, zoom, g.text).png(),
              g.text + ": the same seeds at equal training compute, a row each: " + rows + ".");
}

/// Tables of one number with what they show.
MULTISTAGE_COLD inline void add_table(evidence_page& page,
                                      const experiment_results& r,
                                      const result_table& t) {
  const bool numbered = t.number.find_first_not_of("0123456789") == std::string::npos;
  page.heading((numbered ? "Table " + t.number + ": " : "") + t.title);
  page.text(t.text);
  int k = 0;
  for (const table_group& g : t.groups) {
    const cell_start* start = r.start_of(g.baseline);
    if (start == nullptr)
      continue;
    const std::string file = "table-" + t.number + "-" + std::to_string(++k);
    const std::size_t seeds = r.of(g.baseline).size();
    page.text(g.text + ": " + std::to_string(seeds) + (seeds == 1 ? " seed, " : " seeds, ") +
              shown::number(start->training_images) + " training images, a budget of " +
              shown::number(2 * start->budget / 1e12) + " TFLOP, " +
              std::to_string(r.asked().arm_of(g.baseline).samples) +
              " pictures a measurement. As many training images would be at a Frechet "
              "distance of " +
              shown::number(start->floor) + ".");
    if (!t.drawings.empty()) {
      page.table(table_of_drawings(r, t, g));
      for (const std::string& name : arms_of(r, g))
        add_sampler_curves(page, r, t, name, file + "-" + name);
      continue;
    }
    page.table(table_of_arms(r, g));
    add_curves(page, r, g, file + "-curves");
    add_samples(page, r, g, file + "-samples");
  }
}

/// The similarity of noise levels with the stages, once for each different set of stages.
MULTISTAGE_COLD inline void add_stages(evidence_page& page, const experiment_results& r) {
  std::vector<std::string> seen;
  page.heading("Stages that were found");
  for (const arm& a : r.asked().arms) {
    const std::string path = r.folder() + "/stages/" + a.name + ".json";
    if (!std::filesystem::exists(path))
      continue;
    const found_stages f = found_stages::from_json(*read_configuration(path), path);
    const std::string key = f.how + option_text(f.stages.boundaries()) + a.base;
    if (f.stages.stage_count() == 1 || f.similarity.times.empty() ||
        std::count(seen.begin(), seen.end(), key) > 0)
      continue;
    seen.push_back(key);
    page.figure(
        "stages-" + a.name,
        io::heat_map(f.similarity.matrix, f.similarity.times, f.stages.times(vp_schedule{}),
                     a.base + ": " + f.how, "VP time t", f.similarity.sigmas)
            .png(),
        a.base +
            ": how alike the optimal denoisers of two noise levels are, and the "
            "stages, " +
            f.how + ".");
  }
}

}  // namespace detail

/// Writes an experiment's page from what has ended by now. @param made rows of how it was made:
/// machine, commit, command. @throws file_error
MULTISTAGE_COLD inline void write_page(
    const experiment_results& r,
    const std::vector<std::pair<std::string, std::string>>& made) {
  const experiment& e = r.asked();
  detail::evidence_page page(e.title, r.folder());
  page.text(
      "Figures are means over seeds with 95 % intervals by Student's t. Differences are "
      "taken seed by seed: arms of one seed see the same images, noise and noise levels "
      "in the same order. \"Better\" and \"worse\" are said only where the interval of "
      "the difference excludes zero; of twenty such intervals one excludes it by chance. "
      "Compute is that of forward passes, two operations for a multiply-accumulate, as "
      "the library counts them.");
  if (r.missing() > 0)
    page.text(std::to_string(r.missing()) +
              " cells have not ended yet; what is here is of the "
              "others.");
  for (const std::string& failure : r.failures())
    page.text("Failed: " + failure);
  for (const result_table& t : e.tables)
    detail::add_table(page, r, t);
  page.heading("The search");
  page.text(
      "Every arrangement was given the same search: each rate with a quarter of the "
      "budget, measured with each average; the least Frechet distance wins.");
  page.table(table_of_searches(r));
  detail::add_stages(page, r);
  page.heading("How it was made");
  io::grid how{{"", ""}, {}};
  for (const auto& [name, value] : made)
    how.rows.push_back({name, value});
  if (const cell_start* s = r.start_of(e.arms.front().name))
    how.rows.push_back({"quality over", s->features});
  page.table(how);
  page.save();
}

}  // namespace multistage
