#!/usr/bin/env bash
# link.sh OBJECT.o MODULE.ptx PROGRAM: from what nvcc made of a source to a program that runs without
# a GPU. The PTX becomes C++, and the CUDA runtime and cuBLAS of this folder stand in for NVIDIA's.
# RACE=1 also looks for races. RUNTIME=LIBRARY.a takes a compiled runtime (with the same RACE) instead
# of compiling it; CUDA=FOLDER says where the toolkit lies; LINK='...' adds to the link line.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
object=$1 ptx=$2 program=$3
work=$program.parts
mkdir -p "$work"
cuda=${CUDA:-/usr/local/cuda}
flags=(-std=c++20 -w -I"$here" -I"$cuda/include")
[ -z "${RACE:-}" ] || flags+=(-DEMU_RACE)
"${PYTHON:-python3}" "$here/translate.py" "$ptx" "$work/kernels.cpp"
g++ "${flags[@]}" -march=native -O1 -ffp-contract=off -fno-strict-aliasing -c "$work/kernels.cpp" -o "$work/kernels.o"
if [ -z "${RUNTIME:-}" ]; then
  RUNTIME=$work/runtime.a
  rm -f "$RUNTIME"
  for part in block launch memory state runtime cublas; do
    g++ "${flags[@]}" -march=native -O2 -DNDEBUG -I/usr/include/eigen3 -c "$here/$part.cpp" -o "$work/$part.o"
    ar rc "$RUNTIME" "$work/$part.o"
  done
fi
# shellcheck disable=SC2086
g++ "$object" "$work/kernels.o" "$RUNTIME" -o "$program" -lpthread ${LINK:-}
