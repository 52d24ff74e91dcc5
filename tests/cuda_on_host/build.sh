#!/usr/bin/env bash
# build.sh SOURCE.cu PROGRAM [nvcc options...]: a CUDA program of one source that runs without a GPU.
# NVCC=FILE is the compiler, SM=90 another architecture than 80; link.sh tells the rest.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=$1 program=$2
shift 2
work=$program.parts
mkdir -p "$work"
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
name=$(basename "$source" .cu)
sm=${SM:-80}
# the warnings left out are about functors that are also called on the host
"$nvcc" -std=c++20 -O2 -DNDEBUG -w -diag-suppress 20011,20012,20013,20014,20015 \
  -gencode "arch=compute_$sm,code=compute_$sm" --keep --keep-dir "$work" "$@" -c "$source" -o "$work/$name.o"
CUDA=${CUDA:-$(dirname "$(dirname "$(readlink -f "$nvcc")")")} bash "$here/link.sh" "$work/$name.o" "$work/$name.ptx" "$program"
