#!/usr/bin/env bash
# Races the library against PyTorch on identical work, and its layers against oneDNN's: race.sh [OUT_DIR] [--quick] [--avx2]
# Makes a virtual environment outside the repository (under the user's cache), builds the benches, runs both sides in turn, and writes a table
# (race.md), the lines (race.jsonl) and a picture (race.png) to OUT_DIR. --quick: the quickstart network and EDM's at batch 1 and 4 only (10 minutes; all
# take 30). --avx2: both sides held to AVX2.
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/race
quick=
preset=native
for a in "$@"; do
  case $a in
    --quick) quick=--quick ;;
    --avx2)
      preset=portable
      export ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 DNNL_MAX_CPU_ISA=AVX2
      ;;
    *) out=$a ;;
  esac
done
bash examples/setup.sh python3 python3-venv libbenchmark-dev libdnnl-dev
env=${MULTISTAGE_RACE_ENV:-${XDG_CACHE_HOME:-$HOME/.cache}/multistage-race}
[ -x "$env/bin/python3" ] || python3 -m venv "$env"
"$env/bin/python3" -c 'import torch, matplotlib' 2>/dev/null || "$env/bin/pip" install -q torch numpy matplotlib
mkdir -p "build/$preset" "$out"
cmake --preset "$preset" -DMULTISTAGE_BUILD_BENCH=ON >"build/$preset/configure.log" 2>&1 || { cat "build/$preset/configure.log"; exit 1; }
cmake --build "build/$preset" --target race_unet machine startup race_onednn
"$env/bin/python3" bench/race.py "build/$preset/bench" "$out" $quick
