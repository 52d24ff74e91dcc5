// The pictures of a multi-stage model: grids of images, the similarity of noise levels with its
// stages, losses by stage, trajectories.
//
//   image_grid(images, {16, 32, 32, 3}, 4, 2).save("grid.png");  // 4 columns, twice as large
//   line_chart({{"stage 0", steps, losses, stage_colour(0)}}, "Loss", "kimg", "loss", true);
//
// Each function draws on a canvas and returns it, so that more can be drawn on it, its PNG put
// into a report, or saved.
#pragma once
#include <cmath>
#include <span>

#include "../stages/partition.hpp"
#include "canvas.hpp"
#include "images.hpp"

namespace multistage::io {

namespace figure_detail {

/// Three digits, with an exponent where that is shorter.
inline std::string number(double v) {
  char text[32];
  if (v != 0 && (std::fabs(v) < 0.01 || std::fabs(v) >= 10000))
    std::snprintf(text, sizeof text, "%.1e", v);
  else
    std::snprintf(text, sizeof text, "%.3g", v);
  return text;
}

/// @throws shape_error for values that are no images of those extents, or none that can be seen
inline void check_images(const char* figure, std::size_t values, const shape& extents) {
  require<shape_error>(countable(extents) && index_t(values) == extents.size(), figure, ": ",
                       values, " values for images ", extents,
                       "; give as many as the extents say");
  require<shape_error>(extents.channels == 1 || extents.channels == 3, figure, ": images of ",
                       extents.channels,
                       " channels; 1 (grey) or 3 (RGB) can be shown, latent images are"
                       " decoded first");
}

/// A plotting area with linear or logarithmic axes.
struct axes {
  canvas& c;
  double left;
  double top;
  double width;
  double height;
  double x0;
  double x1;
  double y0;
  double y1;
  bool log_x = false;
  bool log_y = false;

  /// Where v lies between a and b, as a share.
  static double place(double v, double a, double b, bool log) {
    return log ? std::log(v / a) / std::log(b / a) : (v - a) / (b - a);
  }
  /// Pixels from the left.
  double x(double v) const {
    return left + width * place(v, x0, x1, log_x);
  }
  /// Pixels from the top.
  double y(double v) const {
    return top + height * (1 - place(v, y0, y1, log_y));
  }

  /// Round numbers from a to b, at least three where the interval has them: on a logarithmic
  /// axis powers of ten, with 2 and 5, with all digits, or, where the interval is short, equal
  /// steps.
  static std::vector<double> ticks(double a, double b, bool log) {
    std::vector<double> t;
    for (const auto& digits :
         {std::vector<double>{1}, {1, 2, 5}, {1, 2, 3, 4, 5, 6, 7, 8, 9}}) {
      if (!log)
        break;
      t.clear();
      const int first = int(std::floor(std::log10(a)));
      for (int e = first; std::pow(10.0, e) <= b * 1.0001; ++e)
        for (const double m : digits) {
          const double v = m * std::pow(10.0, e);
          const bool inside = v >= a * 0.9999 && v <= b * 1.0001;
          if (inside)
            t.push_back(v);
        }
      if (t.size() >= 4)
        return t;
    }
    // Steps of 1, 2, 5 or 10 times a power of ten, about five of them.
    t.clear();
    const double raw = (b - a) / 5;
    const double power = std::pow(10.0, std::floor(std::log10(raw)));
    const double m = raw / power;
    const double step = power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
    for (double v = std::ceil(a / step - 1e-9) * step; v <= b + 1e-9 * step; v += step)
      t.push_back(std::fabs(v) < 1e-12 * step ? 0 : v);
    return t;
  }
  /// The label, which says so where its axis is logarithmic.
  static std::string said(const std::string& label, bool log) {
    return log ? label + " (logarithmic)" : label;
  }
  /// Lines at the ticks with their numbers, the frame, and the labels beside it.
  void draw(const std::string& x_label, const std::string& y_label) {
    for (double v : ticks(x0, x1, log_x)) {
      c.line(x(v), top, x(v), top + height, canvas::light);
      c.text(x(v), top + height + 14, number(v), 12, 0.5);
    }
    for (double v : ticks(y0, y1, log_y)) {
      c.line(left, y(v), left + width, y(v), canvas::light);
      c.text(left - 8, y(v), number(v), 12, 1);
    }
    c.frame(left, top, width, height, canvas::grey);
    c.text(left + width / 2, top + height + 38, said(x_label, log_x), 14, 0.5);
    c.text(left - 52, top + height / 2, said(y_label, log_y), 14, 0.5, canvas::ink, true);
  }
};

}  // namespace figure_detail

/// Where the images of a grid lie, in pixels.
struct grid_layout {
  static constexpr int gap = 4;  ///< around and between images
  int width = 0;                 ///< of the whole picture
  int height = 0;                ///< of the whole picture
  int columns = 1;               ///< images side by side
  int top = gap;                 ///< where the first row begins
  int cell_width = 0;            ///< from an image to the next, the gap included
  int cell_height = 0;           ///< from a row to the next, the gap included

  /// Can be asked for before the images are there. @throws value_error for a grid that is no
  /// picture
  grid_layout(shape extents, int grid_columns, int zoom, bool title = false)
      : columns(grid_columns), top(title ? 34 : gap) {
    require<value_error>(columns >= 1 && zoom >= 1 && extents.rows >= 1,
                         "image_grid: ", extents.rows, " images, ", columns, " columns, zoom ",
                         zoom, "; all must be above 0");
    constexpr index_t largest = 32767;  // cairo's
    const bool seen = extents.width >= 1 && extents.height >= 1 && extents.width <= largest &&
                      extents.height <= largest;
    const index_t cell[2] = {(seen ? extents.width * zoom : 0) + gap,
                             (seen ? extents.height * zoom : 0) + gap};
    const index_t rows = divide_up(extents.rows, columns);
    const bool fits = seen && cell[0] <= largest && cell[1] <= largest &&
                      columns <= largest / cell[0] && rows <= largest / cell[1] &&
                      gap + columns * cell[0] <= largest && top + rows * cell[1] <= largest;
    require<value_error>(
        fits, "image_grid: ", rows, " rows of ", columns, " images of ", extents.width, " x ",
        extents.height, " with zoom ", zoom, " make more than the ", largest,
        " pixels a side that a picture can have; take other columns, fewer images or less"
        " zoom, or write them to a folder");
    cell_width = int(cell[0]);
    cell_height = int(cell[1]);
    width = gap + columns * cell_width;
    height = top + int(rows) * cell_height;
  }
};

/// Images in rows of `columns`, each value `zoom` pixels wide. @throws value_error for a grid
/// that is no picture, shape_error unless there are as many values as the extents say, of one
/// channel or three
inline canvas image_grid(std::span<const double> values,
                         shape extents,
                         int columns,
                         int zoom,
                         const std::string& title = {}) {
  const grid_layout l(extents, columns, zoom, !title.empty());
  figure_detail::check_images("image_grid", values.size(), extents);
  canvas c(l.width, l.height);
  if (!title.empty())
    c.text(grid_layout::gap + 2, 17, title, 14);
  for (index_t i = 0; i < extents.rows; ++i) {
    const double x = grid_layout::gap + double(i % columns) * l.cell_width;
    const double y = l.top + double(i / columns) * l.cell_height;
    const double* const image = values.data() + i * extents.row_size();
    c.image(x, y, image, extents.height, extents.width, extents.channels, zoom);
  }
  return c;
}

namespace figure_detail {

/// Where a matrix of similarities lies on its canvas, its first node at the lower left.
struct heat_area {
  const std::vector<double>& nodes;
  int left = 84;
  int top = 52;
  int cell = std::max(1, 546 / std::max(count(), 1));  // pixels of a node
  int size = count() * cell;

  /// Nodes along an axis.
  int count() const {
    return int(nodes.size());
  }
  /// Pixels from the first corner to a value in the nodes' unit.
  double place(double v) const {
    const double step = nodes[1] - nodes[0];
    return (v - nodes[0]) / step * cell + cell / 2.0;
  }
  /// The middle of node i, from the left.
  double across(int i) const {
    return left + i * cell + cell / 2.0;
  }
  /// The middle of node i, from the top.
  double down(int i) const {
    return top + (count() - 1 - i) * cell + cell / 2.0;
  }
};

/// A square of colour for each pair of nodes.
inline void draw_matrix(canvas& c, const heat_area& a, const std::vector<double>& matrix) {
  const int n = a.count();
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) {
      const int x = a.left + j * a.cell;
      const int y = a.top + (n - 1 - i) * a.cell;
      c.rectangle(x, y, a.cell, a.cell, scale_colour(matrix[i * n + j]));
    }
}

/// The stages as squares along the diagonal, white beneath their colour, with their names
/// above.
inline void draw_stages(canvas& c, const heat_area& a, const std::vector<double>& boundaries) {
  double before = 0;
  for (std::size_t k = 0; k <= boundaries.size(); ++k) {
    const double end = k < boundaries.size() ? a.place(boundaries[k]) : a.size;
    const double x = a.left + before + 1;
    const double y = a.top + a.size - end + 1;
    const double side = end - before - 2;
    const colour ink = stage_colour(int(k));
    c.frame(x, y, side, side, {1, 1, 1}, 4);
    c.frame(x, y, side, side, ink, 2.5);
    const std::string name = "stage " + std::to_string(k);
    c.text(a.left + (before + end) / 2, a.top - 12, name, 13, 0.5, ink);
    before = end;
  }
}

/// Some nodes along both axes, and beneath them their noise levels where there are any.
inline void draw_nodes(canvas& c, const heat_area& a, const std::vector<double>& sigmas) {
  const int every = std::max(1, a.count() / 7);
  for (int i = 0; i < a.count(); i += every) {
    const std::string node = number(a.nodes[i]);
    c.text(a.across(i), a.top + a.size + 14, node, 12, 0.5);
    c.text(a.left - 8, a.down(i), node, 12, 1);
    if (sigmas.empty())
      continue;
    const std::string sigma = number(sigmas[i]);
    c.text(a.across(i), a.top + a.size + 32, sigma, 12, 0.5, canvas::grey);
  }
  if (!sigmas.empty())
    c.text(a.left - 34, a.top + a.size + 32, "sigma", 12, 1, canvas::grey);
}

/// What the colours mean, beside the matrix.
inline void draw_colour_bar(canvas& c, const heat_area& a) {
  const int bar = a.left + a.size + 36;
  for (int i = 0; i < a.size; ++i)
    c.rectangle(bar, a.top + i, 18, 1, scale_colour(1 - double(i) / (a.size - 1)));
  c.frame(bar, a.top, 18, a.size, canvas::grey);
  for (int i = 0; i <= 5; ++i)
    c.text(bar + 25, a.top + a.size * (1 - i / 5.0), number(i / 5.0), 12);
  c.text(bar + 74, a.top + a.size / 2.0, "share of values alike", 13, 0.5, canvas::ink, true);
}

}  // namespace figure_detail

/// A matrix [n, n] of similarities over `nodes` (equally spaced times, ascending) with stage
/// boundaries drawn, in the nodes' unit. `sigma_labels` gives a second set of tick labels, one
/// a node, or is empty.
inline canvas heat_map(const std::vector<double>& matrix,
                       const std::vector<double>& nodes,
                       const std::vector<double>& boundaries,
                       const std::string& title,
                       const std::string& label,
                       const std::vector<double>& sigmas = {}) {
  using namespace figure_detail;
  const heat_area a{nodes};
  const int n = a.count();
  require<value_error>(n >= 2 && matrix.size() == std::size_t(n) * n,
                       "heat_map: ", matrix.size(), " values for ", n,
                       " nodes; at least two nodes and a square matrix are needed");
  require<value_error>(sigmas.empty() || sigmas.size() == nodes.size(),
                       "heat_map: ", sigmas.size(), " sigmas for ", n,
                       " nodes; give one for each, or none");
  canvas c(a.left + a.size + 130, a.top + a.size + 92);
  c.text(a.left, 24, title, 15);
  draw_matrix(c, a, matrix);
  draw_stages(c, a, boundaries);
  draw_nodes(c, a, sigmas);
  const int below = sigmas.empty() ? 40 : 60;
  c.text(a.left + a.size / 2.0, a.top + a.size + below, label, 14, 0.5);
  c.text(a.left - 58, a.top + a.size / 2.0, label, 14, 0.5, canvas::ink, true);
  draw_colour_bar(c, a);
  return c;
}

/// A curve in a chart. Points that are not finite are left out.
struct curve {
  std::string name;       ///< in the legend
  std::vector<double> x;  ///< one a point
  std::vector<double> y;  ///< as many
  colour ink;             ///< colour of the line
};

/// Curves over common axes, y logarithmic if all is above 0 and asked for.
inline canvas line_chart(const std::vector<curve>& curves,
                         const std::string& title,
                         const std::string& x_label,
                         const std::string& y_label,
                         bool log_y,
                         bool log_x = false) {
  double x0 = HUGE_VAL;
  double x1 = -HUGE_VAL;
  double y0 = HUGE_VAL;
  double y1 = -HUGE_VAL;
  const auto good = [&](const curve& k, std::size_t i) {
    return std::isfinite(k.x[i]) && std::isfinite(k.y[i]) && (!log_y || k.y[i] > 0) &&
           (!log_x || k.x[i] > 0);
  };
  for (const curve& k : curves)
    require<value_error>(k.x.size() == k.y.size(), "line_chart: curve '", k.name, "' has ",
                         k.x.size(), " x and ", k.y.size(), " y; give as many of each");
  for (const curve& k : curves)
    for (std::size_t i = 0; i < k.x.size(); ++i)
      if (good(k, i))
        x0 = std::min(x0, k.x[i]), x1 = std::max(x1, k.x[i]), y0 = std::min(y0, k.y[i]),
        y1 = std::max(y1, k.y[i]);
  if (!(x0 <= x1))
    x0 = log_x ? 1 : 0, x1 = log_x ? 10 : 1, y0 = log_y ? 0.1 : 0, y1 = 1;
  if (x0 == x1)
    x1 = log_x ? 2 * x0 : x0 + 1;
  if (log_y)
    y0 /= 1.25, y1 *= 1.25;
  else {
    const double room = y1 > y0 ? (y1 - y0) * 0.05 : 0.5;
    y0 -= room;
    y1 += room;
  }
  canvas c(860, 480);
  c.text(84, 24, title, 15);
  figure_detail::axes a{c, 84, 46, 620, 366, x0, x1, y0, y1, log_x, log_y};
  a.draw(x_label, y_label);
  double legend = 60;
  for (const curve& k : curves) {
    bool pen = false;
    double px = 0;
    double py = 0;
    int points = 0;
    for (std::size_t i = 0; i < k.x.size(); ++i) {
      if (!good(k, i))
        continue;
      const double x = a.x(k.x[i]);
      const double y = a.y(k.y[i]);
      if (pen)
        c.line(px, py, x, y, k.ink, 2);
      pen = true;
      px = x;
      py = y;
      ++points;
    }
    if (points == 1)
      c.rectangle(px - 2, py - 2, 5, 5, k.ink);
    c.line(720, legend, 742, legend, k.ink, 3);
    c.text(750, legend, k.name, 13);
    legend += 22;
  }
  return c;
}

/// How pictures come about: a row for each picture, a column for each noise level, x0-hat in
/// each cell, columns framed by their stage.
/// @param cells [columns][rows, h, w, c]
/// @throws shape_error unless each noise level has a cell of those extents, of one channel or
/// three
inline canvas trajectories(const std::vector<std::vector<double>>& cells,
                           const std::vector<double>& sigmas,
                           const partition& stages,
                           shape extents,
                           int zoom,
                           const std::string& title) {
  require<shape_error>(cells.size() == sigmas.size(), "trajectories: ", cells.size(),
                       " columns for ", sigmas.size(), " noise levels; give one for each");
  for (const auto& cell : cells)
    figure_detail::check_images("trajectories", cell.size(), extents);
  const int columns = int(sigmas.size());
  const int gap = 6;
  const int w = int(extents.width) * zoom;
  const int h = int(extents.height) * zoom;
  const int top = 84;
  const int left = 10;
  canvas c(left + columns * (w + gap) + 4, top + int(extents.rows) * (h + gap) + 8);
  c.text(left, 22, title, 15);
  for (int k = 0; k < columns; ++k) {
    const int stage = stages.stage(sigmas[k]);
    const double x = left + k * (w + gap);
    c.rectangle(x - 3, 40, w + 6, 18, stage_colour(stage));
    c.text(x + w / 2.0, 49, "stage " + std::to_string(stage), 11, 0.5, canvas::paper);
    c.text(x + w / 2.0, 70, figure_detail::number(sigmas[k]), 12, 0.5);
    for (index_t r = 0; r < extents.rows; ++r)
      c.image(x, top + double(r) * (h + gap), cells[k].data() + r * extents.row_size(),
              extents.height, extents.width, extents.channels, zoom);
  }
  return c;
}

}  // namespace multistage::io
