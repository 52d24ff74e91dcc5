// The CUDA backend, all of it: Thrust's functors where a thread an element serves, kernels of
// its own, cuBLAS and cuRAND elsewhere.
#pragma once
#include "../thrust/backend.hpp"
#include "attention.hpp"
#include "conv.hpp"
#include "norm.hpp"
#include "reduce.hpp"
#include "system.hpp"
