// The pictures of a multi-stage model: grids of images, the similarity of noise levels with its
// stages, trajectories, and curves (line_chart.hpp).
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
#include "line_chart.hpp"

namespace multistage::io {

namespace figure_detail {

/// @throws shape_error for values that are no images of those extents, or none that can be seen
inline void check_images(const char* figure, std::size_t values, const shape& extents) {
  const bool as_many = countable(extents) && index_t(values) == extents.size();
  require<shape_error>(as_many, figure, ": ", values, " values for images ", extents,
                       "; give as many as the extents say");
  const bool shown = extents.channels == 1 || extents.channels == 3;
  require<shape_error>(shown, figure, ": images of ", extents.channels,
                       " channels; 1 (grey) or 3 (RGB) can be shown, latent images are"
                       " decoded first");
}

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
      : columns(grid_columns),
        top(title ? 34 : gap) {
    require<value_error>(columns >= 1 && zoom >= 1 && extents.rows >= 1,
                         "image_grid: ", extents.rows, " images, ", columns, " columns, zoom ",
                         zoom, "; all must be above 0");
    const index_t rows = divide_up(extents.rows, columns);
    const index_t sides[2] = {side(extents.width, zoom, columns, gap),
                              side(extents.height, zoom, rows, top)};
    require<value_error>(
        sides[0] > 0 && sides[1] > 0, "image_grid: ", rows, " rows of ", columns, " images of ",
        extents.width, " x ", extents.height, " with zoom ", zoom, " make more than the ",
        largest,
        " pixels a side that a picture can have; take other columns, fewer images or less"
        " zoom, or write them to a folder");
    cell_width = int(extents.width) * zoom + gap;
    cell_height = int(extents.height) * zoom + gap;
    width = int(sides[0]);
    height = int(sides[1]);
  }

 private:
  static constexpr index_t largest = 32767;  // cairo's

  /// Pixels that `count` images of `extent` values take behind `before` pixels; 0 where that is
  /// no side of a picture. Nothing overflows on the way: each factor is looked at by itself.
  static index_t side(index_t extent, int zoom, index_t count, index_t before) {
    if (extent < 1 || extent > largest)
      return 0;
    const index_t cell = extent * zoom + gap;
    if (cell > largest || count > largest / cell)
      return 0;
    const index_t all = before + count * cell;
    return all <= largest ? all : 0;
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
  const grid_layout layout(extents, columns, zoom, !title.empty());
  figure_detail::check_images("image_grid", values.size(), extents);
  canvas c(layout.width, layout.height);
  if (!title.empty())
    c.text(grid_layout::gap + 2, 17, title, 14);
  for (index_t i = 0; i < extents.rows; ++i) {
    const double x = grid_layout::gap + double(i % columns) * layout.cell_width;
    const double y = layout.top + double(i / columns) * layout.cell_height;
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
  // Pixels of a node: as many as fit the area, one at least.
  int cell = std::max(1, 546 / std::max(count(), 1));
  int size = count() * cell;

  /// Nodes along an axis.
  int count() const {
    return int(nodes.size());
  }
  /// Below the last row, from the top.
  int bottom() const {
    return top + size;
  }
  /// Behind the last column, from the left.
  int right() const {
    return left + size;
  }
  /// The middle of the matrix, from the left.
  double middle_x() const {
    return left + size / 2.0;
  }
  /// The middle of the matrix, from the top.
  double middle_y() const {
    return top + size / 2.0;
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
      const colour ink = scale_colour(matrix[i * n + j]);
      c.rectangle(x, y, a.cell, a.cell, ink);
    }
}

/// The stages as squares along the diagonal, white beneath their colour, with their names
/// above.
inline void draw_stages(canvas& c, const heat_area& a, const std::vector<double>& boundaries) {
  double before = 0;
  for (std::size_t k = 0; k <= boundaries.size(); ++k) {
    const double end = k < boundaries.size() ? a.place(boundaries[k]) : a.size;
    const double x = a.left + before + 1;
    const double y = a.bottom() - end + 1;
    const double side = end - before - 2;
    const double middle = a.left + (before + end) / 2;
    const colour ink = stage_colour(int(k));
    c.frame(x, y, side, side, {1, 1, 1}, 4);
    c.frame(x, y, side, side, ink, 2.5);
    const std::string name = "stage " + std::to_string(k);
    c.text(middle, a.top - 12, name, 13, 0.5, ink);
    before = end;
  }
}

/// Some nodes along both axes, and beneath them their noise levels where there are any.
inline void draw_nodes(canvas& c, const heat_area& a, const std::vector<double>& sigmas) {
  const int every = std::max(1, a.count() / 7);
  const int bottom = a.bottom();
  for (int i = 0; i < a.count(); i += every) {
    const std::string node = number(a.nodes[i]);
    c.text(a.across(i), bottom + 14, node, 12, 0.5);
    c.text(a.left - 8, a.down(i), node, 12, 1);
    if (sigmas.empty())
      continue;
    const std::string sigma = number(sigmas[i]);
    c.text(a.across(i), bottom + 32, sigma, 12, 0.5, canvas::grey);
  }
  if (!sigmas.empty())
    c.text(a.left - 34, bottom + 32, "sigma", 12, 1, canvas::grey);
}

/// What the colours mean, beside the matrix.
inline void draw_colour_bar(canvas& c, const heat_area& a) {
  const int bar = a.right() + 36;
  for (int i = 0; i < a.size; ++i) {
    const double share = 1 - double(i) / (a.size - 1);  // from 1 at the top to 0
    c.rectangle(bar, a.top + i, 18, 1, scale_colour(share));
  }
  c.frame(bar, a.top, 18, a.size, canvas::grey);
  for (int i = 0; i <= 5; ++i) {
    const double share = i / 5.0;
    const double y = a.top + a.size * (1 - share);
    c.text(bar + 25, y, number(share), 12);
  }
  c.text(bar + 74, a.middle_y(), "share of values alike", 13, 0.5, canvas::ink, true);
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
  const bool square = matrix.size() == std::size_t(n) * n;
  require<value_error>(n >= 2 && square, "heat_map: ", matrix.size(), " values for ", n,
                       " nodes; at least two nodes and a square matrix are needed");
  const bool labelled = sigmas.empty() || sigmas.size() == nodes.size();
  require<value_error>(labelled, "heat_map: ", sigmas.size(), " sigmas for ", n,
                       " nodes; give one for each, or none");
  canvas c(a.right() + 130, a.bottom() + 92);
  c.text(a.left, 24, title, 15);
  draw_matrix(c, a, matrix);
  draw_stages(c, a, boundaries);
  draw_nodes(c, a, sigmas);
  const int below = sigmas.empty() ? 40 : 60;
  c.text(a.middle_x(), a.bottom() + below, label, 14, 0.5);
  c.text(a.left - 58, a.middle_y(), label, 14, 0.5, canvas::ink, true);
  draw_colour_bar(c, a);
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
  const int cell_width = int(extents.width) * zoom;
  const int cell_height = int(extents.height) * zoom;
  const int top = 84;
  const int left = 10;
  const int width = left + columns * (cell_width + gap) + 4;
  const int height = top + int(extents.rows) * (cell_height + gap) + 8;
  canvas c(width, height);
  c.text(left, 22, title, 15);
  for (int k = 0; k < columns; ++k) {
    const int stage = stages.stage(sigmas[k]);
    const double x = left + k * (cell_width + gap);
    const double middle = x + cell_width / 2.0;
    c.rectangle(x - 3, 40, cell_width + 6, 18, stage_colour(stage));
    const std::string name = "stage " + std::to_string(stage);
    c.text(middle, 49, name, 11, 0.5, canvas::paper);
    c.text(middle, 70, figure_detail::number(sigmas[k]), 12, 0.5);
    for (index_t row = 0; row < extents.rows; ++row) {
      const double y = top + double(row) * (cell_height + gap);
      const double* const image = cells[k].data() + row * extents.row_size();
      c.image(x, y, image, extents.height, extents.width, extents.channels, zoom);
    }
  }
  return c;
}

}  // namespace multistage::io
