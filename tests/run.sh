#!/usr/bin/env bash
# All tests on a bare machine: installs what is missing, builds, runs ctest on the native build, and the unit tests again under
# AddressSanitizer with UndefinedBehaviorSanitizer, and what uses threads under ThreadSanitizer.
set -euo pipefail
cd "$(dirname "$0")/.."
bash examples/setup.sh python3 catch2 libbenchmark-dev clang libclang-rt-14-dev
build() {  # preset, targets
  local preset=$1
  shift
  mkdir -p "build/$preset"
  cmake --preset "$preset" >"build/$preset/configure.log" 2>&1 || { cat "build/$preset/configure.log"; exit 1; }
  cmake --build "build/$preset" --target "$@"
}
build sanitize test_core test_io test_stages test_ops test_latent_ops test_network
build tsan test_core test_sampling
build native all
status=0
ctest --test-dir build/sanitize -R '^(core|io|stages|ops|latent_ops|network)$' --output-on-failure || status=1
ctest --test-dir build/tsan -R '^(core|sampling)$' --output-on-failure || status=1
ctest --test-dir build/native --output-on-failure || status=1
exit $status
