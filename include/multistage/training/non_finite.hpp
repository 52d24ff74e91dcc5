// The search for the value that stopped being finite: which loss or gradient, which layer.
#pragma once
#include "objective.hpp"

namespace multistage {

namespace detail {
inline constexpr const char* non_finite_advice =
    "; nothing was updated and the last checkpoint is good: lower the learning rate, set "
    "gradient_clip, or look at the images";
}

/// Refuses losses that are not finite. @param step counted from 1.
/// @throws numeric_error naming stage, noise level and the first layer whose value is not
/// finite
template <class Scalar, class Backend>
MULTISTAGE_COLD void require_finite_losses(dynamic_model<Scalar, Backend>& model,
                                           const evaluated_batch<Scalar>& batch,
                                           index_t step) {
  const auto bad = std::find_if_not(batch.losses.begin(), batch.losses.end(),
                                    [](double loss) { return std::isfinite(loss); });
  if (bad == batch.losses.end())
    return;
  const double sigma = batch.rows[std::size_t(bad - batch.losses.begin())].sigma;
  const auto found = model.engine().first_non_finite(model.weights().data(), batch.inputs,
                                                     batch.part.rows_by_stage);
  const auto layer_of = [&](int node) {
    const int weight = model.network().nodes[std::size_t(node)].weight;
    return weight >= 0 ? model.parameter_names()[std::size_t(weight)]
                       : std::string("node ") + std::to_string(node);
  };
  fail<numeric_error>(
      "training: the loss is not finite at step ", step, ", stage ",
      model.stages().stage(sigma), ", sigma ", sigma, ", layer ",
      found.node >= 0 ? layer_of(found.node) : std::string("none (the loss itself)"),
      detail::non_finite_advice);
}

/// Refuses a gradient whose norm is not finite. @param wanted whether a segment's gradient is
/// looked at. @throws numeric_error naming the layer
template <class Scalar, class Backend, class Wanted>
MULTISTAGE_COLD void require_finite_gradient(const dynamic_model<Scalar, Backend>& model,
                                             const tensor<Scalar, Backend>& gradient,
                                             double norm,
                                             Wanted&& wanted,
                                             index_t step) {
  if (std::isfinite(norm))
    return;
  const std::vector<Scalar> g = gradient.to_host();
  const auto& parameters = model.network().parameters;
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    const parameter& p = parameters[k];
    const auto begin = g.begin() + p.offset;
    const bool finite =
        !wanted(p.segment) ||
        std::all_of(begin, begin + p.size(), [](Scalar v) { return std::isfinite(v); });
    if (!finite)
      fail<numeric_error>("training: the gradient is not finite at step ", step, ", stage ",
                          p.segment - 1, " (-1: shared), layer ", model.parameter_names()[k],
                          detail::non_finite_advice);
  }
  fail<numeric_error>("training: the gradient's norm overflows at step ", step,
                      detail::non_finite_advice);
}

}  // namespace multistage
