#!/usr/bin/env bash
# Races the library against PyTorch on identical work: race.sh [OUT_DIR] [--quick]
# Makes a virtual environment outside the repository (under the user's cache), builds race_unet, runs both sides in turn, and writes a table
# (race.md), the lines (race.jsonl) and a picture (race.png) to OUT_DIR. --quick: the quickstart network and batch 4 of EDM's only.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/race
quick=
for a in "$@"; do [ "$a" = --quick ] && quick=--quick || out=$a; done
bash examples/setup.sh python3 python3-venv libbenchmark-dev
env=${MULTISTAGE_RACE_ENV:-${XDG_CACHE_HOME:-$HOME/.cache}/multistage-race}
[ -x "$env/bin/python3" ] || python3 -m venv "$env"
"$env/bin/python3" -c 'import torch, matplotlib' 2>/dev/null || "$env/bin/pip" install -q torch numpy matplotlib
mkdir -p build/native "$out"
cmake --preset native >build/native/configure.log 2>&1 || { cat build/native/configure.log; exit 1; }
cmake --build build/native --target race_unet machine
"$env/bin/python3" bench/race.py "$PWD/build/native/bench" "$out" $quick
