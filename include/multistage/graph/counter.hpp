// A second reader of descriptions, with the recorder's verbs: it keeps no nodes, only cost by
// segment and whether sizes fit. It is what types use: for large networks compilers evaluate it
// within their default limits, where a whole graph would exceed clang's.
#pragma once
#include "check.hpp"
#include "cost.hpp"
#include "recorder.hpp"

namespace multistage {

/// The first layer that does not fit: its input's channels and extents, what must divide them,
/// and the segment it belongs to.
struct misfit {
  int channels = 0;
  int divisor = 0;
  int height = 0;
  int width = 0;
  int segment = 0;
};

class cost_counter {
 public:
  std::array<cost, 9> segments{};
  graph_problem problem = graph_problem::none;
  misfit where{};

  /// Names nothing; its destructor keeps compilers from calling the variable that holds it
  /// unused.
  struct scope_guard {
    constexpr ~scope_guard() {}
  };
  template <class... Parts>
  [[nodiscard]] constexpr scope_guard scope(const Parts&...) const {
    return {};
  }
  constexpr void segment(int s) {
    segment_ = s;
  }

  constexpr feature input(input_slot, int channels, int height = 1, int width = 1) {
    return made(channels, height, width);
  }
  constexpr feature embedding(feature level,
                              int channels,
                              ops::embedding_form,
                              std::string_view = {}) {
    row_operand({.kind = op::embedding}, level);
    attributes({.kind = op::embedding, .out = {channels}});
    return made(channels, 1, 1);
  }
  constexpr feature conv(feature x,
                         int out,
                         std::string_view,
                         ops::conv_window w = {},
                         layer_options o = {}) {
    attributes({.kind = op::conv, .window = w});
    return layer(x, made(out, int(w.out(x.height)), int(w.out(x.width))), w.kernel, o.bias);
  }
  constexpr feature linear(feature x, int out, std::string_view, layer_options o = {}) {
    return layer(x, made(out, x.height, x.width), 1, o.bias);
  }
  constexpr feature group_norm(feature x,
                               int groups,
                               double epsilon,
                               std::string_view,
                               feature modulation = {}) {
    expect(groups >= 1 && x.channels % groups == 0, graph_problem::groups, x, groups);
    attributes({.kind = op::group_norm, .epsilon = epsilon});
    if (modulation.id >= 0)
      row_operand({.kind = op::group_norm, .out = {x.channels}}, modulation);
    segments[segment_].parameters += 2 * x.channels;
    return x;
  }
  constexpr feature layer_norm(feature x, double epsilon, std::string_view) {
    attributes({.kind = op::layer_norm, .epsilon = epsilon});
    segments[segment_].parameters += 2 * x.channels;
    return x;
  }
  constexpr feature silu(feature x) const {
    return x;
  }
  constexpr feature gelu(feature x) const {
    return x;
  }
  constexpr feature geglu(feature x) {
    expect(x.channels % 2 == 0, graph_problem::extents);
    return made(x.channels / 2, x.height, x.width);
  }
  constexpr feature dropout(feature x, double share) {
    attributes({.kind = op::dropout, .scale = share});
    return x;
  }
  constexpr feature add(feature x, feature y) {
    expect(x.channels == y.channels && x.height == y.height && x.width == y.width,
           graph_problem::extents);
    return x;
  }
  constexpr feature add_row(feature x, feature row) {
    row_operand({.kind = op::add_row, .out = {x.channels}}, row);
    return x;
  }
  constexpr feature scale(feature x, double) const {
    return x;
  }
  constexpr feature divide_row(feature x, feature row) {
    row_operand({.kind = op::divide_row}, row);
    return x;
  }
  constexpr feature concat(feature x, feature y) {
    expect(x.height == y.height && x.width == y.width, graph_problem::extents);
    return made(x.channels + y.channels, x.height, x.width);
  }
  constexpr feature resample(feature x, const ops::resample_filter& f, bool up) {
    node n{.kind = op::resample};
    n.filter = f;
    attributes(n);
    if (!f.sound())
      return x;
    const feature y = made(x.channels, int(up ? f.up(x.height) : f.down(x.height)),
                           int(up ? f.up(x.width) : f.down(x.width)));
    segments[segment_].macs += ops::resample_macs(f, up, x.height, x.width, x.channels);
    return y;
  }
  constexpr feature attention(feature qkv, int heads) {
    const feature y = made(qkv.channels / 3, qkv.height, qkv.width);
    expect(heads >= 1 && y.channels % heads == 0 && 3 * y.channels == qkv.channels,
           graph_problem::heads, y, heads);
    const index_t pixels = index_t{y.height} * y.width;
    segments[segment_].macs += ops::attention_macs(pixels, pixels, y.channels);
    return y;
  }
  constexpr feature attention(feature q, feature k, feature v, int heads) {
    expect(heads >= 1 && q.channels % heads == 0 && k.channels == q.channels &&
               v.channels == q.channels,
           graph_problem::heads, q, heads);
    expect(k.height == v.height && k.width == v.width, graph_problem::extents);
    segments[segment_].macs += ops::attention_macs(index_t{q.height} * q.width,
                                                   index_t{k.height} * k.width, q.channels);
    return q;
  }
  constexpr void output(feature) {}

 private:
  constexpr void expect(bool good, graph_problem what, feature x = {}, int divisor = 0) {
    if (good || problem != graph_problem::none)
      return;
    problem = what;
    where = {x.channels, divisor, x.height, x.width, segment_};
  }
  constexpr void attributes(const node& n) {
    expect(attributes_fit(n), graph_problem::attributes);
  }
  constexpr void row_operand(const node& n, feature row) {
    expect(row_operand_fits(n, {row.channels, row.height, row.width}),
           graph_problem::row_operand);
  }
  constexpr feature made(int channels, int height, int width) {
    expect(channels >= 1 && height >= 1 && width >= 1, graph_problem::empty);
    return {0, channels, height, width};
  }
  constexpr feature layer(feature x, feature y, int kernel, bool bias) {
    segments[segment_].parameters +=
        index_t{y.channels} * x.channels * kernel * kernel + (bias ? y.channels : 0);
    segments[segment_].macs +=
        ops::conv_macs(y.height, y.width, kernel, x.channels, y.channels);
    return y;
  }

  int segment_ = 0;
};

}  // namespace multistage
