// Tensors and the operations that networks are made of, by themselves, on the CPU: y = conv(x,
// w, {.stride = 2}). docs/operations.md.
#pragma once
#include "backend/cpu/backend.hpp"
#include "ops/activation.hpp"
#include "ops/copy.hpp"
#include "ops/dropout.hpp"
#include "ops/eager.hpp"
#include "ops/elementwise.hpp"
#include "ops/gaussian.hpp"
#include "ops/pool.hpp"
#include "ops/quantize.hpp"
#include "ops/reduce.hpp"
#include "tensor.hpp"
