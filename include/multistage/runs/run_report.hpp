// The page of a training run, made anew from what lies in its folder: samples over time, curves
// by stage, the stages on the similarity map, every option with where it came from.
//
//   write_report(place, c, stages, "running: 12 of 200 kimg");
#pragma once
#include "../io/figures.hpp"
#include "../io/report.hpp"
#include "run_directory.hpp"
#include "stage_search.hpp"

namespace multistage {

namespace detail {

/// Three digits.
inline std::string short_number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", v);
  return text;
}

/// A series with so few points that a chart shows them: means over equal shares of the points.
inline io::curve thinned(const io::curve& c, std::size_t most) {
  if (c.x.size() <= most)
    return c;
  io::curve few{c.name, {}, {}, c.ink};
  for (std::size_t k = 0; k < most; ++k) {
    double x = 0;
    double y = 0;
    double count = 0;
    for (std::size_t i = k * c.x.size() / most; i < (k + 1) * c.x.size() / most; ++i)
      if (std::isfinite(c.y[i]))
        x += c.x[i], y += c.y[i], ++count;
    if (count == 0)
      continue;
    few.x.push_back(x / count);
    few.y.push_back(y / count);
  }
  return few;
}

/// A file's bytes as text.
inline std::string bytes_of(const std::string& path) {
  const auto bytes = io::read_file(path);
  return {bytes.begin(), bytes.end()};
}

/// Which of a log's losses a chart shows, and under what name.
struct charted_loss {
  std::size_t index;
  std::string name;
};
/// Losses over the images seen; those that never are a number are left out. Empty where none
/// is left.
MULTISTAGE_COLD inline std::string loss_chart(const run_history& h,
                                              const std::vector<charted_loss>& shown,
                                              const std::string& title,
                                              bool logarithmic = true) {
  std::vector<io::curve> curves;
  constexpr std::size_t points = 200;
  for (const auto& [index, name] : shown) {
    io::curve c{name, {}, {}, io::stage_colour(int(curves.size()))};
    for (const loss_point& p : h.points)
      if (index < p.loss.size()) {
        c.x.push_back(p.images / 1000);
        c.y.push_back(p.loss[index]);
      }
    if (std::any_of(c.y.begin(), c.y.end(), [](double v) { return std::isfinite(v); }))
      curves.push_back(thinned(c, points));
  }
  if (curves.empty())
    return "";
  return io::line_chart(curves, title, "thousand images", "loss", logarithmic).png();
}
/// Losses by stage.
MULTISTAGE_COLD inline std::string stage_loss_chart(const run_history& h) {
  std::vector<charted_loss> all;
  for (std::size_t s = 0; s < h.points.back().loss.size(); ++s)
    all.push_back({s, "stage " + std::to_string(s)});
  return loss_chart(h, all, "Loss by stage");
}

/// Images a second over the images seen.
MULTISTAGE_COLD inline std::string rate_chart(const run_history& h) {
  io::curve c{"images/s", {}, {}, io::stage_colour(2)};
  for (const loss_point& p : h.points) {
    c.x.push_back(p.images / 1000);
    c.y.push_back(p.images_per_second);
  }
  constexpr std::size_t points = 200;
  return io::line_chart({thinned(c, points)}, "Throughput", "thousand images",
                        "images a second", false)
      .png();
}

/// Frechet distances over the images seen.
MULTISTAGE_COLD inline std::string distance_chart(const run_history& h) {
  io::curve c{"Frechet distance", {}, {}, io::stage_colour(4)};
  for (const auto& d : h.distances) {
    c.x.push_back(d.images / 1000);
    c.y.push_back(d.frechet);
  }
  return io::line_chart({c}, "Frechet distance", "thousand images", "distance", true).png();
}

/// The grids: the newest, and up to five of before. @param what they show, a sentence
MULTISTAGE_COLD inline void add_grids(io::report& page,
                                      const run_directory& place,
                                      const std::string& what) {
  const auto grids = place.snapshots();
  if (grids.empty())
    return;
  const auto caption = [](double images) {
    return "After " + short_number(images / 1000) + " thousand images.";
  };
  page.heading("Samples").picture(bytes_of(grids.back().second),
                                  caption(grids.back().first) + " " + what);
  const std::string animation = place.path() + "/samples.webp";
  if (std::filesystem::exists(animation))
    page.picture(bytes_of(animation), "The same over the whole training.");
  constexpr std::size_t most = 5;
  const std::size_t before = std::min(grids.size() - 1, most);
  if (before > 0)
    page.heading("Samples over time");
  for (std::size_t k = 0; k < before; ++k) {
    const auto& [images, path] = grids[k * (grids.size() - 1) / before];
    page.picture(bytes_of(path), caption(images));
  }
}

/// The stages with their noise levels, and the map that they were cut from.
MULTISTAGE_COLD inline void add_stages(io::report& page,
                                       const found_stages& f,
                                       const configuration& model) {
  page.heading("Stages").text("Boundaries: " + f.how + ".");
  std::vector<std::pair<std::string, std::string>> rows;
  for (int s = 0; s < f.stages.stage_count(); ++s)
    rows.emplace_back("stage " + std::to_string(s),
                      "sigma from " + short_number(f.stages.lower(s)) + " to " +
                          short_number(f.stages.upper(s)) + ", decoder " +
                          std::to_string(model.stages.widths[std::size_t(s)]) + " wide");
  page.table(rows);
  if (f.similarity.times.empty())
    return;
  page.picture(
      io::heat_map(f.similarity.matrix, f.similarity.times, f.stages.times(vp_schedule{}),
                   "Similarity of optimal denoisers", "VP time t", f.similarity.sigmas)
          .png(),
      "How alike the optimal denoisers of two noise levels are, from the data alone. "
      "Bright: alike. The frames are the stages.");
}

/// Every option, by sections. @param origins where values came from, @see run_configuration;
/// what is not there is the default
MULTISTAGE_COLD inline void add_configuration(
    io::report& page,
    const io::json_document& document,
    std::span<const char* const> sections,
    const std::map<std::string, std::string>& origins) {
  page.heading("Configuration");
  std::vector<std::pair<std::string, std::string>> rows;
  for (const char* section : sections)
    for (const auto& [key, value] : (*document)[section].items()) {
      const std::string name = std::string(section) + "." + key;
      std::string text = value.dump(-1, ' ', false, io::json::error_handler_t::replace);
      const auto origin = origins.find(name);
      if (!origins.empty())
        text += "  (" + (origin == origins.end() ? "default" : origin->second) + ")";
      rows.emplace_back(name, std::move(text));
    }
  page.table(rows);
}

}  // namespace detail

/// Writes a run's page from its log, its grids and what it was told. @param state of the run,
/// a line. @throws file_error
MULTISTAGE_COLD inline void write_report(
    const run_directory& place,
    const run_configuration& c,
    const found_stages& stages,
    const std::vector<std::pair<std::string, std::string>>& state) {
  const run_history h = read_history(place.log());
  io::report page("Training: " + std::filesystem::path(place.path()).filename().string());
  page.table(state);
  detail::add_grids(page, place,
                    "The same seeds at every snapshot, drawn with the averaged weights.");
  if (!h.distances.empty())
    page.heading("Distance to the data")
        .picture(detail::distance_chart(h),
                 "Frechet distance between " + std::to_string(h.distances.back().n) +
                     " samples and the data over " + h.distances.back().features +
                     ". It compares with others of the same n and features alone.");
  if (!h.points.empty())
    page.heading("Training")
        .picture(detail::stage_loss_chart(h),
                 "Loss of each stage. Stages differ in how hard they are, so their levels do "
                 "not compare; each should fall.")
        .picture(detail::rate_chart(h), "Images a second.");
  detail::add_stages(page, stages, c.model);
  detail::add_configuration(page, io::json_document(to_json(c)),
                            run_configuration::section_names, c.origins);
  page.save(place.report());
}

}  // namespace multistage
