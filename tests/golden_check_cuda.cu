// golden_check on a GPU: the same cases on the CUDA backend. Exits with 77 where there is no GPU.
#include <multistage/cuda.hpp>

#define MULTISTAGE_GOLDEN_CUDA
#include "golden_check.cpp"
