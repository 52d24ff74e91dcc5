#!/usr/bin/env bash
# preset.sh PROJECT WORK_DIR: the cuda preset configures, and what it builds beyond the other presets,
# all that nvcc compiles, builds and links, for each of its architectures. What nvcc made on the way is
# kept in WORK_DIR/keep for golden.sh.
set -euo pipefail
project=$1 work=$2
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
mkdir -p "$work/keep"
cd "$project"
cmake --preset cuda -B "$work" -DCMAKE_CUDA_COMPILER="$nvcc" -DMULTISTAGE_BUILD_EXAMPLES=OFF \
  -DCMAKE_CUDA_FLAGS="--keep --keep-dir $work/keep" >"$work/configure.log" 2>&1 || { cat "$work/configure.log"; exit 1; }
cmake --build "$work" --target golden_check_cuda cuda_primitives cuda_kernels
