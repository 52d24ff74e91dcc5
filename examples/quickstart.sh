#!/usr/bin/env bash
# Sets up, builds and runs the quickstart: bash examples/quickstart.sh [OUT_DIR] [--seconds N] [--seed N] [--threads N] [--backend cpu|eigen|thrust] [--help]
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
bash "$here/examples/setup.sh"
(
  cd "$here"
  mkdir -p build/quickstart
  log=build/quickstart/build.log
  cmake --preset native -DMULTISTAGE_BUILD_TESTS=OFF -DMULTISTAGE_BUILD_BENCH=OFF -B build/quickstart >"$log" 2>&1 || { cat "$log" >&2; exit 2; }
  echo "building (about half a minute)" >&2
  cmake --build build/quickstart --target quickstart >>"$log" 2>&1 || { tail -n 40 "$log" >&2; exit 2; }
)
exec "$here/build/quickstart/examples/quickstart" "$@"
