// The multi-stage, multi-decoder model as a type (arXiv 2312.09181, section 4): network,
// decoders, schedule, backend and scalar are template arguments, its cost a compile-time
// constant. It is a dynamic_model that knows its structure early.
//
//   using model =
//       multi_decoder<song_unet{.resolution = 32}, decoders{192, 128, 16}, edm_schedule>;
//   static_assert(model::stage_count == 3);
//   model net(stages, seed{1});
//
// What does not fit is refused by static_asserts that name the layer and what to change.
#pragma once
#include "../graph/counter.hpp"
#include "model.hpp"
#include "schedules.hpp"

namespace multistage {

inline namespace MULTISTAGE_ISA {
class cpu;  // the backend by default (backend/cpu/cpu.hpp)
}

/// A seed, said aloud.
struct seed {
  std::uint64_t value = 0;  ///< of the weights that a model starts with
};

namespace detail {
/// Whether a schedule says how its models are preconditioned.
template <class S>
concept has_preconditioning = std::is_default_constructible_v<S> && requires(const S& s) {
  { preconditioning_for(s, 0.5) } -> std::convertible_to<any_preconditioning>;
};

/// A schedule's preconditioning; one of a type of its own is told sigma_data too, for the
/// loss's usual weight.
template <class S>
any_preconditioning preconditioning_of(const S& schedule, double sigma_data) {
  using type = decltype(preconditioning_for(schedule, sigma_data));
  if constexpr (std::convertible_to<type, preconditioning>)
    return preconditioning_for(schedule, sigma_data);
  else
    return {preconditioning_for(schedule, sigma_data), sigma_data};
}

/// Cost and fitness of a network, from one reading.
template <class Net>
constexpr cost_counter count(const Net& net, const decoders& d) {
  cost_counter c;
  describe(c, net, d);
  return c;
}
/// A constant of its own for each stage: compilers bound the steps of one evaluation, and a
/// network of many stages takes many.
template <auto Network, decoders Decoders>
inline constexpr cost_counter counted = count(Network, Decoders);

template <auto Network, decoders Decoders, std::size_t... Stage>
constexpr cost_counter count_by_stage(std::index_sequence<Stage...>) {
  cost_counter all;
  const auto take = [&](int stage, const cost_counter& one) {
    all.segments[0] = one.segments[0];
    all.segments[1 + stage] = one.segments[1];
    if (all.problem != graph_problem::none || one.problem == graph_problem::none)
      return;
    all.problem = one.problem;
    all.where = one.where;
    if (one.where.segment > 0)
      all.where.segment = 1 + stage;
  };
  (take(int(Stage), counted<Network, Decoders.only(int(Stage))>), ...);
  return all;
}

// Sizes as types: compilers print them where a network does not fit.
template <int>
struct channels;
template <int>
struct groups;
template <int>
struct heads;
template <int Height, int Width>
struct at_resolution;
template <int>
struct decoder_of_stage;
struct encoder;

template <bool Divides, class... Layer>
struct group_norm {
  static_assert(
      Divides,
      "multistage: norm groups do not divide a layer's channels: choose encoder_channels and "
      "decoder widths that are multiples of "
      "norm_groups, or another norm_groups; the layer is named as detail::group_norm<...>");
  static constexpr bool said = true;  // the sentence above is enough
};
template <bool Divides, class... Layer>
struct attention {
  static_assert(Divides,
                "multistage: attention heads do not divide the channels: choose widths that "
                "are multiples of a head's channels "
                "(channels_per_head, num_head_channels) or of num_heads; the layer is named as "
                "detail::attention<...>");
  static constexpr bool said = true;  // the sentence above is enough
};

/// The model behind a type: a dynamic_model where backend and scalar are such, else a sentence
/// and something that takes any arguments, so that nothing more is said.
template <class Scalar, class Backend>
struct model_base {
  struct type {
    explicit type(const auto&...) {}
  };
  static_assert(std::is_class_v<Backend> && backend<Backend>,
                "multistage: the template argument behind the schedule is the backend: "
                "multistage::cpu, eigen, thrust_host, cuda, or a type that "
                "meets the concept multistage::backend (backend/concept.hpp)");
};
template <class Scalar, class Backend>
requires(std::is_class_v<Backend>&& backend<Backend>) struct model_base<Scalar, Backend> {
  struct refused {
    explicit refused(const auto&...) {}
  };
  static constexpr bool computes = supports<Backend, operation::conv, Scalar>;
  using type = typename std::conditional_t<computes,
                                           std::type_identity<dynamic_model<Scalar, Backend>>,
                                           std::type_identity<refused>>::type;
  static_assert(supports<Backend, operation::conv, Scalar>,
                "multistage: this backend does not compute networks in this scalar type: "
                "choose float or double, the last template argument; "
                "multistage::eigen computes in any real scalar");
};
}  // namespace detail

/// @tparam Network a network's configuration, e.g. song_unet{...}. @tparam Decoders widths by
/// stage, stage 0 (lowest noise) first.
/// @tparam Schedule chooses the preconditioning: one of the library's schedules, or a type of
/// one's own (diffusion/schedules.hpp).
template <auto Network,
          decoders Decoders,
          class Schedule = edm_schedule,
          class Backend = cpu,
          class Scalar = float>
class multi_decoder : public detail::model_base<Scalar, Backend>::type {
  using base = typename detail::model_base<Scalar, Backend>::type;
  static_assert(Decoders.stage_count() >= 1,
                "multistage: give at least one decoder width: decoders{192, 128, 16} makes "
                "three stages, stage 0 (lowest noise) first");
  static_assert(Network.depth() >= 1,
                "multistage: channel_mult is empty; give one multiplier a level, e.g. {1, 2}");
  static_assert(Network.depth() < 1 || Network.resolution % (1 << (Network.depth() - 1)) == 0,
                "multistage: resolution must be divisible by 2 for every level of channel_mult "
                "below the first; pad the images or use fewer levels");
  static constexpr cost_counter facts = detail::count_by_stage<Network, Decoders>(
      std::make_index_sequence<std::size_t(Decoders.stage_count())>());
  static constexpr misplaced_layer where = facts.where;
  static_assert(detail::has_preconditioning<Schedule>,
                "multistage: this type is no schedule of a model: choose edm_schedule, "
                "vp_schedule, sub_vp_schedule, ve_schedule, cosine_schedule, "
                "flow_schedule or ddpm_schedule (for discrete_schedule), or give a type of "
                "your own a function preconditioning_for(const schedule&, "
                "double sigma_data) beside it (diffusion/schedules.hpp)");
  using part = std::conditional_t<where.segment == 0,
                                  detail::encoder,
                                  detail::decoder_of_stage<where.segment - 1>>;
  static_assert(detail::group_norm<facts.problem != graph_problem::groups,
                                   part,
                                   detail::at_resolution<where.height, where.width>,
                                   detail::channels<where.channels>,
                                   detail::groups<where.divisor>>::said);
  static_assert(detail::attention<facts.problem != graph_problem::heads,
                                  part,
                                  detail::at_resolution<where.height, where.width>,
                                  detail::channels<where.channels>,
                                  detail::heads<where.divisor>>::said);
  static_assert(facts.problem != graph_problem::row_operand,
                "multistage: what is read by row has the wrong width: add_row needs one number "
                "a channel, a modulation two (scale, shift), "
                "divide_row and embedding a single one");
  static_assert(facts.problem != graph_problem::attributes,
                "multistage: a setting is out of range: kernels and strides are at least 1, "
                "padding at least 0, dropout in [0, 1), epsilon "
                "above 0, embeddings have an even number of channels from 4, resampling "
                "filters have taps that do not add up to 0");
  static_assert(facts.problem != graph_problem::empty &&
                    facts.problem != graph_problem::extents,
                "multistage: feature maps that meet differ in size or vanish; check "
                "resolution, channel_mult and resample_filter");

 public:
  /// The schedule that chooses the preconditioning.
  using schedule = Schedule;
  /// As many as there are decoders.
  static constexpr int stage_count = Decoders.stage_count();
  /// Levels of resolution.
  static constexpr int depth = Network.depth();
  /// Parameters of all stages and of what they share.
  static constexpr index_t parameters = [] {
    index_t total = 0;
    for (int s = 0; s <= stage_count; ++s)
      total += facts.segments[s].parameters;
    return total;
  }();  // the shared segment first
  /// Parameters of the part that all stages share.
  static constexpr index_t shared_parameters = facts.segments[0].parameters;
  /// Parameters of one stage's own.
  static constexpr index_t decoder_parameters(int stage) {
    return facts.segments[1 + stage].parameters;
  }
  /// Multiply-accumulates of one image in a stage.
  static constexpr index_t macs(int stage) {
    return facts.segments[0].macs + facts.segments[1 + stage].macs;
  }

  /// The configuration as run-time values. @param sigma_data standard deviation of the images.
  static configuration make_configuration(double sigma_data = 0.5) {
    if constexpr (detail::has_preconditioning<Schedule>)
      return configure(Network, Decoders, detail::preconditioning_of(Schedule{}, sigma_data));
    else
      return {};  // refused above
  }

  /// @param stages as many as there are decoders. @throws value_error otherwise.
  explicit multi_decoder(partition stages,
                         multistage::seed s = {},
                         double sigma_data = 0.5,
                         Backend backend = Backend())
      : base(std::move(backend),
             make_configuration(sigma_data),
             record(Network, Decoders),  // of its own family, so that a unit compiles no other
             std::move(stages),
             s.value) {}
};

/// One network for all noise levels.
template <auto Network,
          class Schedule = edm_schedule,
          class Backend = cpu,
          class Scalar = float>
using unified =
    // one stage, its decoder as wide as the encoder
    multi_decoder<Network, decoders{{Network.encoder_channels}}, Schedule, Backend, Scalar>;

/// A network of its own for each stage, as wide as `Widths` says.
template <auto Network,
          decoders Widths,
          class Schedule = edm_schedule,
          class Backend = cpu,
          class Scalar = float>
using separate =
    // nothing is shared
    multi_decoder<Network, decoders{Widths.widths, false}, Schedule, Backend, Scalar>;

}  // namespace multistage
