// The search for the value that stopped being finite: which loss or gradient, which layer.
#pragma once
#include "non_finite_advice.hpp"
#include "objective.hpp"

namespace multistage {

namespace detail {
/// Where the evaluation at hand, of which one loss is not finite, stops being so.
template <class Scalar, class Backend>
MULTISTAGE_COLD std::string why_not_finite(dynamic_model<Scalar, Backend>& model,
                                           const evaluated_batch<Scalar>& batch,
                                           double sigma) {
  const auto found = model.engine().first_non_finite(model.weights().data(), batch.inputs,
                                                     batch.part.rows_by_stage);
  std::string layer = "none (the loss itself)";
  if (found.node >= 0) {
    const int weight = model.network().nodes[std::size_t(found.node)].weight;
    layer = weight >= 0 ? model.parameter_names()[std::size_t(weight)]
                        : "node " + std::to_string(found.node);
  }
  return message_of(
      {", stage ", model.stages().stage(sigma), ", sigma ", sigma, ", layer ", layer});
}
}  // namespace detail

/// Refuses losses that are not finite. @param step counted from 1. @param processes that
/// evaluated the batch together: the one that has the row looks for the layer.
/// @throws numeric_error naming stage, noise level and the first layer whose value is not
/// finite; the same on all processes
template <class Scalar, class Backend>
MULTISTAGE_COLD void require_finite_losses(dynamic_model<Scalar, Backend>& model,
                                           const evaluated_batch<Scalar>& batch,
                                           index_t step,
                                           process_group processes = {}) {
  const auto bad = std::find_if_not(batch.losses.begin(), batch.losses.end(),
                                    [](double loss) { return std::isfinite(loss); });
  if (bad == batch.losses.end())
    return;
  const index_t row = index_t(bad - batch.losses.begin());
  const index_range own = batch.cut.rows_of_process(processes.rank());
  std::string why;
  if (own.begin <= row && row < own.end)
    why = detail::why_not_finite(model, batch, batch.rows[std::size_t(row)].sigma);
  for (const std::string& text : all_gather(processes, why))
    if (!text.empty())
      fail<numeric_error>("training: the loss is not finite at step ", step, text,
                          detail::non_finite_advice);
}

/// Refuses a gradient whose norm is not finite. @param wanted whether a segment's gradient is
/// looked at. @param processes of which each has its share of the gradient at least. @throws
/// numeric_error naming the layer; the same on all processes
template <class Scalar, class Backend, class Wanted>
MULTISTAGE_COLD void require_finite_gradient(const dynamic_model<Scalar, Backend>& model,
                                             const tensor<Scalar, Backend>& gradient,
                                             double norm,
                                             Wanted&& wanted,
                                             index_t step,
                                             process_group processes = {}) {
  if (std::isfinite(norm))
    return;
  const std::vector<Scalar> g = gradient.to_host();
  const auto& parameters = model.network().parameters;
  const auto is_finite_here = [&](const parameter& p) {
    const auto begin = g.begin() + p.offset;
    return !wanted(p.segment) ||
           std::all_of(begin, begin + p.size(), [](Scalar v) { return std::isfinite(v); });
  };
  const index_t bad = std::find_if_not(parameters.begin(), parameters.end(), is_finite_here) -
                      parameters.begin();
  index_t first = index_t(parameters.size());
  for (const index_t theirs : values_of_all(processes, bad))
    first = std::min(first, theirs);
  if (first < index_t(parameters.size()))
    fail<numeric_error>("training: the gradient is not finite at step ", step, ", stage ",
                        parameters[std::size_t(first)].segment - 1, " (-1: shared), layer ",
                        model.parameter_names()[std::size_t(first)], detail::non_finite_advice);
  fail<numeric_error>("training: the gradient's norm overflows at step ", step,
                      detail::non_finite_advice);
}

}  // namespace multistage
