// Curves over common axes, linear or logarithmic: losses by stage, quality by the number of
// steps.
//
//   const curve loss{"stage 0", steps, losses, stage_colour(0)};
//   line_chart({loss}, "Loss", "kimg", "loss", true).save("loss.png");     // y logarithmic
#pragma once
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "../core/error.hpp"
#include "canvas.hpp"

namespace multistage::io {

namespace figure_detail {

/// Three digits, four of thousands, with an exponent where that is shorter.
inline std::string number(double v) {
  const double size = std::fabs(v);
  char text[32];
  if (v != 0 && (size < 0.01 || size >= 10000))
    std::snprintf(text, sizeof text, "%.1e", v);
  else
    std::snprintf(text, sizeof text, size < 1000 ? "%.3g" : "%.4g", v);
  return text;
}

/// The values an axis shows, from one end to the other.
struct axis_range {
  double low;
  double high;
  bool log = false;

  /// Where v lies between the ends, as a share.
  double place(double v) const {
    if (log)
      return std::log(v / low) / std::log(high / low);
    return (v - low) / (high - low);
  }
  /// Powers of ten times the digits, those that lie within.
  std::vector<double> powers(const std::vector<double>& digits) const {
    std::vector<double> found;
    const double top = high * 1.0001;  // so that rounding leaves no end out
    const double bottom = low * 0.9999;
    const int first = int(std::floor(std::log10(low)));
    for (int e = first; std::pow(10.0, e) <= top; ++e)
      for (const double digit : digits) {
        const double v = digit * std::pow(10.0, e);
        if (v >= bottom && v <= top)
          found.push_back(v);
      }
    return found;
  }
  /// Steps of 1, 2, 5 or 10 times a power of ten, about five of them.
  std::vector<double> steps() const {
    std::vector<double> found;
    const double raw = (high - low) / 5;
    const double power = std::pow(10.0, std::floor(std::log10(raw)));
    const double m = raw / power;
    const double step = power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
    const double first = std::ceil(low / step - 1e-9) * step;
    for (double v = first; v <= high + 1e-9 * step; v += step)
      found.push_back(std::fabs(v) < 1e-12 * step ? 0 : v);
    return found;
  }
  /// Round numbers within, at least three where there are so many: on a logarithmic axis powers
  /// of ten, with 2 and 5, with all digits, or, where the interval is short, equal steps.
  std::vector<double> ticks() const {
    static const std::vector<double> digits[] = {
        {1},
        {1, 2, 5},
        {1, 2, 3, 4, 5, 6, 7, 8, 9},
    };
    if (log)
      for (const std::vector<double>& some : digits)
        if (const std::vector<double> found = powers(some); found.size() >= 4)
          return found;
    return steps();
  }
  /// The label, which says so where the axis is logarithmic.
  std::string said(const std::string& label) const {
    return log ? label + " (logarithmic)" : label;
  }
};

/// A plotting area, in pixels, and what its axes show.
struct axes {
  canvas& c;
  double left;
  double top;
  double width;
  double height;
  axis_range across;
  axis_range upwards;

  /// Pixels from the left.
  double x(double v) const {
    return left + width * across.place(v);
  }
  /// Pixels from the top.
  double y(double v) const {
    return top + height * (1 - upwards.place(v));
  }
  /// Lines at the ticks with their numbers, the frame, and the labels beside it.
  void draw(const std::string& x_label, const std::string& y_label) {
    const double bottom = top + height;
    for (const double v : across.ticks()) {
      c.line(x(v), top, x(v), bottom, canvas::light);
      c.text(x(v), bottom + 14, number(v), 12, 0.5);
    }
    for (const double v : upwards.ticks()) {
      c.line(left, y(v), left + width, y(v), canvas::light);
      c.text(left - 8, y(v), number(v), 12, 1);
    }
    c.frame(left, top, width, height, canvas::grey);
    const double middle_x = left + width / 2;
    const double middle_y = top + height / 2;
    c.text(middle_x, bottom + 38, across.said(x_label), 14, 0.5);
    c.text(left - 52, middle_y, upwards.said(y_label), 14, 0.5, canvas::ink, true);
  }
};

}  // namespace figure_detail

/// A curve in a chart. Points that are not finite are left out.
struct curve {
  std::string name;       ///< in the legend
  std::vector<double> x;  ///< one a point
  std::vector<double> y;  ///< as many
  colour ink;             ///< colour of the line
  /// Lower ends of a band around the line; empty: there is none.
  std::vector<double> low{};
  std::vector<double> high{};  ///< upper ends, as many
};

namespace figure_detail {

/// Whether a point can be drawn: finite, and above 0 where its axis is logarithmic.
inline bool is_point(const curve& k, std::size_t i, bool log_x, bool log_y) {
  const auto shown = [](double v, bool log) {
    return std::isfinite(v) && (!log || v > 0);
  };
  return shown(k.x[i], log_x) && shown(k.y[i], log_y);
}

/// Whether a curve has a band at a point that can be drawn.
inline bool has_band(const curve& k, std::size_t i) {
  return i < k.low.size() && i < k.high.size() && std::isfinite(k.low[i]) &&
         std::isfinite(k.high[i]);
}

/// What axes show of curves: {x, y}, with room above and below.
inline std::pair<axis_range, axis_range> ranges_of(const std::vector<curve>& curves,
                                                   bool log_x,
                                                   bool log_y) {
  axis_range x{HUGE_VAL, -HUGE_VAL, log_x};
  axis_range y{HUGE_VAL, -HUGE_VAL, log_y};
  const auto include = [](axis_range& range, double v) {
    range.low = std::min(range.low, v);
    range.high = std::max(range.high, v);
  };
  for (const curve& k : curves)
    for (std::size_t i = 0; i < k.x.size(); ++i) {
      if (!is_point(k, i, log_x, log_y))
        continue;
      include(x, k.x[i]);
      include(y, k.y[i]);
      if (has_band(k, i) && !log_y) {  // a logarithmic axis cuts them: low ends may be anywhere
        include(y, k.low[i]);
        include(y, k.high[i]);
      }
    }
  // Without any point something is shown all the same: axes with nothing in them.
  const bool nothing = !(x.low <= x.high);
  if (nothing) {
    x = {log_x ? 1.0 : 0.0, log_x ? 10.0 : 1.0, log_x};
    y = {log_y ? 0.1 : 0.0, 1.0, log_y};
  }
  if (x.low == x.high)
    x.high = log_x ? 2 * x.low : x.low + 1;
  if (log_y) {
    y.low /= 1.25;
    y.high *= 1.25;
  } else {
    const double room = y.high > y.low ? (y.high - y.low) * 0.05 : 0.5;
    y.low -= room;
    y.high += room;
  }
  return {x, y};
}

/// A curve's band between points along straight lines, cut where the axes end: column of pixels
/// by column, with dashed edges, since another band may lie over it.
inline void draw_band(axes& a, const curve& k) {
  constexpr double strength = 0.18;  // of the ink on white
  const auto pale = [](double v) {
    return 1 - strength * (1 - v);
  };
  const colour ink{pale(k.ink.r), pale(k.ink.g), pale(k.ink.b)};
  const auto drawn = [&](std::size_t i) {
    return is_point(k, i, a.across.log, a.upwards.log) && has_band(k, i);
  };
  const auto height = [&](double v) {
    const bool below = a.upwards.log && v <= 0;
    return below ? a.top + a.height : std::clamp(a.y(v), a.top, a.top + a.height);
  };
  for (std::size_t i = 0; i + 1 < k.x.size(); ++i) {
    if (!drawn(i) || !drawn(i + 1))
      continue;
    const double begin = a.x(k.x[i]);
    const double end = a.x(k.x[i + 1]);
    const auto between = [&](const std::vector<double>& y, double share) {
      return height(y[i]) + share * (height(y[i + 1]) - height(y[i]));
    };
    for (double x = begin; x < end; ++x) {
      const double share = (x - begin) / (end - begin);
      const double top = between(k.high, share);
      a.c.rectangle(x, top, 1, std::max(between(k.low, share) - top, 1.0), ink);
    }
  }
  for (const std::vector<double>* edge : {&k.low, &k.high})
    for (std::size_t i = 0; i + 1 < k.x.size(); ++i)
      if (drawn(i) && drawn(i + 1))
        a.c.line(a.x(k.x[i]), height((*edge)[i]), a.x(k.x[i + 1]), height((*edge)[i + 1]),
                 k.ink, 0.5, true);
}

/// A curve through its points; one that has a single point is a square there.
inline void draw_curve(axes& a, const curve& k) {
  bool begun = false;
  double before_x = 0;
  double before_y = 0;
  int points = 0;
  for (std::size_t i = 0; i < k.x.size(); ++i) {
    if (!is_point(k, i, a.across.log, a.upwards.log))
      continue;
    const double x = a.x(k.x[i]);
    const double y = a.y(k.y[i]);
    if (begun)
      a.c.line(before_x, before_y, x, y, k.ink, 2);
    begun = true;
    before_x = x;
    before_y = y;
    ++points;
  }
  if (points == 1)
    a.c.rectangle(before_x - 2, before_y - 2, 5, 5, k.ink);
}

}  // namespace figure_detail

/// Curves over common axes, y logarithmic if all is above 0 and asked for.
inline canvas line_chart(const std::vector<curve>& curves,
                         const std::string& title,
                         const std::string& x_label,
                         const std::string& y_label,
                         bool log_y,
                         bool log_x = false) {
  using namespace figure_detail;
  for (const curve& k : curves) {
    const std::size_t points = k.x.size();
    require<value_error>(points == k.y.size(), "line_chart: curve '", k.name, "' has ", points,
                         " x and ", k.y.size(), " y; give as many of each");
  }
  const auto [across, upwards] = ranges_of(curves, log_x, log_y);
  std::size_t longest = 0;  // of the names
  for (const curve& k : curves)
    longest = std::max(longest, k.name.size());
  constexpr std::size_t usual = 16;  // letters that the usual width has room for
  constexpr std::size_t most = 100;
  constexpr int letter = 8;
  canvas c(longest <= usual ? 860 : 760 + letter * int(std::min(longest, most)), 480);
  c.text(84, 24, title, 15);
  axes a{c, 84, 46, 620, 366, across, upwards};
  for (const curve& k : curves)
    draw_band(a, k);
  a.draw(x_label, y_label);
  double legend = 60;
  for (const curve& k : curves) {
    draw_curve(a, k);
    c.line(720, legend, 742, legend, k.ink, 3);
    c.text(750, legend, k.name, 13);
    legend += 22;
  }
  return c;
}

}  // namespace multistage::io
