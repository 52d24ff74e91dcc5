#!/usr/bin/env bash
# What every change has to pass, on a bare machine: installs what is missing, builds, runs ctest on the
# native build, the unit tests again under AddressSanitizer with UndefinedBehaviorSanitizer, and what
# uses threads under ThreadSanitizer.
# The builds are MULTISTAGE_CI's: -O1 where tests do not look at kernels, what tests and programs share of
# the library compiled once, tests of one kind in one program (the others of it are listed as disabled),
# benchmarks by the compiler's front end alone; what the sanitizers' build runs of files, pictures and
# distances is not built a second time.
#   run.sh --quick      the unit tests and the small golden data, in a build of their own that compiles
#                       fast (under 4 minutes on two cores from nothing): while one works
#   run.sh --thorough   all of it and the tests labelled `thorough`: each header alone, every flag and
#                       compiler, the programs of all pages, what nvcc builds and the golden data on
#                       CUDA's emulator, the faults that it finds, fuzzing, kernels of all backends under
#                       sanitizers, a failure at every allocation: before a release
set -euo pipefail
cd "$(dirname "$0")/.."
quick=false
thorough=false
case "${1:-}" in
  '') ;;
  --quick) quick=true ;;
  --thorough) thorough=true ;;
  --help) sed -n '2,/^set/s/^# \?//p' tests/run.sh; exit 0 ;;
  *) echo "run.sh: unknown option $1; there are --quick and --thorough" >&2; exit 2 ;;
esac
if $quick; then bash examples/setup.sh python3 catch2; else bash examples/setup.sh python3 catch2 libbenchmark-dev clang libclang-rt-14-dev doxygen libopenmpi-dev openmpi-bin; fi
build() {  # preset, targets
  local preset=$1
  shift
  mkdir -p "build/$preset"
  cmake --preset "$preset" -DMULTISTAGE_CI=ON -DMULTISTAGE_THOROUGH=$thorough >"build/$preset/configure.log" 2>&1 || { cat "build/$preset/configure.log"; exit 1; }
  cmake --build "build/$preset" --target "$@"
}
if $quick; then
  build quick quick
  exec ctest --test-dir build/quick -j "$(nproc)" -L '^unit$|^golden$' -E '^golden$|^golden_(eigen|thrust)$' --output-on-failure
fi
build sanitize test_network test_ops test_distances test_io test_pictures test_stages test_latent_ops test_core  # the longest first
build tsan test_core test_sampling
build native all
status=0
# Side by side: most tests have one thread, or wait for a compiler.
without=(-LE thorough)
if $thorough; then without=(); fi
ctest --test-dir build/sanitize -j "$(nproc)" -R '^(core|io|pictures|distances|stages|ops|latent_ops|network)$' --output-on-failure || status=1
ctest --test-dir build/tsan -j "$(nproc)" -R '^(core|sampling)$' --output-on-failure || status=1
ctest --test-dir build/native -j "$(nproc)" "${without[@]}" --output-on-failure || status=1
exit $status
