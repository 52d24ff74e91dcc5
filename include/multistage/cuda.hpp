// multistage on a GPU: the same lines with the backend argument multistage::cuda. For nvcc,
// with cuBLAS and cuRAND.
#pragma once
#if !defined(__CUDACC__)
#error \
    "multistage: <multistage/cuda.hpp> needs nvcc; include <multistage/multistage.hpp> for the CPU or <multistage/thrust.hpp> for Thrust's host systems"
#endif
#include "backend/cuda/backend.hpp"
#include "library.hpp"
