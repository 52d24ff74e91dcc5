// The sink of descriptions that keeps no nodes, only cost by segment and the first thing that
// does not fit. It is what types use: for large networks compilers evaluate it within their
// default limits, where a whole graph would exceed clang's.
//
//   cost_counter count;
//   describe(count, song_unet{}, decoders{192, 128, 16});
//   count.segments[1 + 2].parameters;                 // those of stage 2's decoder
#pragma once
#include "cost.hpp"
#include "verbs.hpp"

namespace multistage {

/// The first layer that does not fit: its channels and extents, what must divide them, and the
/// segment it belongs to.
struct misplaced_layer {
  int channels = 0;  ///< of the layer's operand
  int divisor = 0;   ///< what must divide them
  int height = 0;    ///< of the layer's operand, in pixels
  int width = 0;     ///< of the layer's operand, in pixels
  int segment = 0;   ///< to which the layer belongs
};

/// @see the file's head.
class cost_counter : public verbs<cost_counter> {
 public:
  std::array<cost, 9> segments{};  ///< by segment: the shared one, and up to eight stages'
  graph_problem problem = graph_problem::none;  ///< of the first layer that does not fit
  misplaced_layer where{};                      ///< that layer

  /// Names nothing; its destructor keeps compilers from calling the variable that holds it
  /// unused.
  struct scope_guard {
    constexpr ~scope_guard() {}
  };
  /// Names nothing, like a recorder without names.
  template <class... Parts>
  [[nodiscard]] constexpr scope_guard scope(const Parts&...) const {
    return {};
  }
  /// What follows belongs to segment s.
  constexpr void segment(int s) {
    segment_ = s;
  }
  /// Costs nothing.
  constexpr void output(feature) {}

  /// What verbs call: adds the operation's cost.
  template <class Op>
  constexpr feature take(const Op& op,
                         const ops::operand_list& operands,
                         const named_parameter& weight,
                         const named_parameter& bias) {
    const ops::description d = op.describe(operands);
    if (problem == graph_problem::none)
      note(problem_of(d, operands), d.wrong, d.wrong.channels > 0 ? operands[0] : feature{});
    for (const named_parameter* p : {&weight, &bias})
      if (p->there() && p->what.trainable)
        segments[segment_].parameters += p->what.size();
    segments[segment_].macs += d.macs;
    return {0, d.out.channels, d.out.height, d.out.width};
  }

 private:
  constexpr void note(graph_problem what, const ops::misfit& wrong, const feature& x) {
    problem = what;
    if (what != graph_problem::none)
      where = {wrong.channels, wrong.divisor, x.there() ? x.height : 0, x.there() ? x.width : 0,
               segment_};
  }

  int segment_ = 0;
};

}  // namespace multistage
