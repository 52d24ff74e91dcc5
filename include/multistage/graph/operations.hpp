// The operations that networks are made of. A new one is a file in ops/ and its name here; one
// of the user's own needs neither (ops/own_operation.hpp).
#pragma once
#include <variant>

#include "../core/as_it_is.hpp"
#include "../ops/activation.hpp"
#include "../ops/attention.hpp"
#include "../ops/combine.hpp"
#include "../ops/concat.hpp"
#include "../ops/conv.hpp"
#include "../ops/dropout.hpp"
#include "../ops/embedding.hpp"
#include "../ops/geglu.hpp"
#include "../ops/network_input.hpp"
#include "../ops/norm.hpp"
#include "../ops/own_operation.hpp"
#include "../ops/pool.hpp"
#include "../ops/resample.hpp"

namespace multistage {

/// One of the operations.
using any_operation = std::variant<ops::network_input,
                                   ops::noise_embedding,
                                   ops::convolution,
                                   ops::group_normalisation,
                                   ops::layer_normalisation,
                                   ops::activation<silu_function>,
                                   ops::activation<gelu_function>,
                                   ops::activation<relu_function>,
                                   ops::activation<leaky_relu_function>,
                                   ops::gated_gelu,
                                   ops::dropping,
                                   ops::addition,
                                   ops::row_addition,
                                   ops::row_division,
                                   ops::scaling,
                                   ops::concatenation,
                                   ops::resampling,
                                   ops::pooling,
                                   ops::softmax_attention,
                                   ops::own_operation>;

/// What messages and profiles call it.
inline const char* name_of(const any_operation& o) {
  return as_it_is(o, []<class Op>(const Op& op) -> const char* {
    if constexpr (std::is_same_v<Op, ops::own_operation>)
      return op.called();
    else
      return Op::name;
  });
}

/// What messages call its operand k.
inline std::string operand_name(const any_operation& o, int k) {
  const char* const name = as_it_is(o, [k]<class Op>(const Op& op) -> const char* {
    if constexpr (std::is_same_v<Op, ops::own_operation>)
      return op.operands()[std::size_t(k)];
    else
      return Op::operands[std::size_t(k)];
  });
  return name ? name : "operand " + std::to_string(k);
}

/// What it says of itself on given operands.
constexpr ops::description describe(const any_operation& o, const ops::operand_list& in) {
  return as_it_is(o, [&](const auto& op) { return op.describe(in); });
}

}  // namespace multistage
