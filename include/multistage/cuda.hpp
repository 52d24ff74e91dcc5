// multistage on a GPU: the same lines with the backend argument multistage::cuda. For nvcc,
// with cuBLAS and cuRAND.
#pragma once
#if !defined(__CUDACC__)
// On the CPU it is <multistage/multistage.hpp>, or <multistage/thrust.hpp> for Thrust's host
// systems.
#error "multistage: <multistage/cuda.hpp> needs nvcc; <multistage/multistage.hpp> does not"
#endif
#include "backend/cuda/backend.hpp"
#include "library.hpp"
