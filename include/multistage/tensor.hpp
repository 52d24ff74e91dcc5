// Tensors by themselves: owning tensors and views of any number of axes, on the CPU or on
// another backend whose headers are included too; expressions, reductions, random numbers,
// printing. docs/tensors.md is a tour. It needs threads, nothing else; Eigen, DLPack and mdspan
// are met in <multistage/interop/...>.
#pragma once
#include "backend/cpu/cpu.hpp"
#include "tensor/create.hpp"
#include "tensor/print.hpp"
#include "tensor/reduce.hpp"
