// The sink of descriptions that keeps no nodes, only cost by segment and the first thing that
// does not fit. It is what types use: for large networks compilers evaluate it within their
// default limits, where a whole graph would exceed clang's.
#pragma once
#include "cost.hpp"
#include "verbs.hpp"

namespace multistage {

/// The first layer that does not fit: its channels and extents, what must divide them, and the
/// segment it belongs to.
struct misplaced_layer {
  int channels = 0;
  int divisor = 0;
  int height = 0;
  int width = 0;
  int segment = 0;
};

/// @see the file's head.
class cost_counter : public verbs<cost_counter> {
 public:
  std::array<cost, 9> segments{};
  graph_problem problem = graph_problem::none;
  misplaced_layer where{};

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
