#!/usr/bin/env bash
# examples/convert_checkpoint.py against PyTorch's and diffusers' own classes: makes a virtual environment outside the repository (first
# argument, or under the user's cache) and runs the comparison.
set -euo pipefail
cd "$(dirname "$0")/.."
bash examples/setup.sh python3 python3-venv catch2
env=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/multistage-python}
[ -x "$env/bin/python3" ] || python3 -m venv "$env"
"$env/bin/python3" -c 'import torch, diffusers, safetensors' 2>/dev/null || "$env/bin/pip" install -q torch diffusers safetensors numpy
mkdir -p build/native
cmake --preset native >build/native/configure.log 2>&1 || { cat build/native/configure.log; exit 1; }
cmake --build build/native --target run_network
exec "$env/bin/python3" tests/convert_checkpoint_test.py "$PWD" build/native/tests/run_network
