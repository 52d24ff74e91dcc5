#!/usr/bin/env bash
# Processes under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer: distributed_sanitized.sh COMPILER SCRATCH MPIRUN [SOURCE.cpp FLAGS...]
# What Open MPI reports of itself is left out (mpi_leaks.supp, mpi_threads.supp). By hand also with tests/test_distributed.cpp -isystem /usr/include/eigen3 -lCatch2,
# which takes minutes to compile.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd) compiler=$1 scratch=$2 mpirun=$3
shift 3
[ "$#" -gt 0 ] || set -- "$here/distributed_probe.cpp"
read -ra mpi_flags <<<"$(pkg-config --cflags ompi-cxx) -DOMPI_SKIP_MPICXX"
read -ra mpi_libs <<<"$(pkg-config --libs ompi-cxx)"
mkdir -p "$scratch"
# Leaks are named by the library that they are of, which is still there only where nobody closes it.
echo 'int dlclose(void* library) { (void)library; return 0; }' | cc -shared -fPIC -x c - -o "$scratch/keep_libraries.so"
asan=$("$compiler" -print-file-name=libasan.so)
check() {
  if ! timeout 100 "$mpirun" --oversubscribe -n 3 "$@" >"$scratch/log" 2>&1 || grep -E 'Sanitizer|runtime error' "$scratch/log"; then
    head -c 5000 "$scratch/log"
    exit 1
  fi
}
"$compiler" -std=c++20 -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all "${mpi_flags[@]}" -I"$here/../include" "$@" -o "$scratch/address" "${mpi_libs[@]}"
check -x LD_PRELOAD="$asan $scratch/keep_libraries.so" -x ASAN_OPTIONS=fast_unwind_on_malloc=0 -x LSAN_OPTIONS=print_suppressions=0:suppressions="$here/mpi_leaks.supp" "$scratch/address"
"$compiler" -std=c++20 -O1 -g1 -fsanitize=thread "${mpi_flags[@]}" -I"$here/../include" "$@" -o "$scratch/thread" "${mpi_libs[@]}"
check -x TSAN_OPTIONS=suppressions="$here/mpi_threads.supp" "$scratch/thread"
echo "no reports under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer"
