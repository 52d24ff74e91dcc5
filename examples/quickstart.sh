#!/usr/bin/env bash
# Sets up, builds and runs the quickstart: bash examples/quickstart.sh [OUT_DIR] [--seconds N] [--seed N] [--threads N] [--backend cpu|thrust] [--help]
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
bash "$here/examples/setup.sh"
(
  cd "$here"
  cmake --preset native -DMULTISTAGE_BUILD_TESTS=OFF -DMULTISTAGE_BUILD_BENCH=OFF -B build/quickstart >build.quickstart.log 2>&1 || { cat build.quickstart.log >&2; exit 2; }
  mkdir -p build && mv build.quickstart.log build/quickstart.log
  echo "building (about half a minute)" >&2
  cmake --build build/quickstart --target quickstart >>build/quickstart.log 2>&1 || { tail -n 40 build/quickstart.log >&2; exit 2; }
)
exec "$here/build/quickstart/examples/quickstart" "$@"
