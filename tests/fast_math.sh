#!/usr/bin/env bash
# fast_math.sh SOURCE_DIR EIGEN_DIR COMPILER...: options that give the compiler freedom with arithmetic are refused with the remedy, or harmless.
set -uo pipefail
root=$1 eigen=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
wrong() { echo "wrong: $*"; failures=$((failures + 1)); }
for compiler in "$@"; do
  command -v "$compiler" >/dev/null || { echo "$compiler: not installed, not tested"; continue; }
  flags="-std=c++20 -O2 -I$root/include -isystem $eigen -pthread"
  for refused in -Ofast -ffast-math -ffinite-math-only; do
    text=$("$compiler" $flags $refused -fsyntax-only "$root/tests/fast_math.cpp" 2>&1) && wrong "$compiler $refused compiles"
    grep -q 'put -fno-finite-math-only behind it' <<<"$text" || wrong "$compiler $refused: no remedy in: $text"
  done
  for march in x86-64 x86-64-v3 native; do
    [[ $(uname -m) == x86_64 ]] || march=native
    for allowed in "" "-Ofast -fno-finite-math-only" "-funsafe-math-optimizations" "-fassociative-math -fno-signed-zeros -fno-trapping-math"; do
      "$compiler" $flags -march=$march $allowed "$root/tests/fast_math.cpp" -o "$work/probe" 2>"$work/errors" || { wrong "$compiler $march $allowed: $(cat "$work/errors")"; continue; }
      "$work/probe" || wrong "$compiler -march=$march $allowed"
    done
  done
  "$compiler" $flags -DMULTISTAGE_WHOLE -march=native -Ofast -fno-finite-math-only "$root/tests/fast_math.cpp" -o "$work/probe" || wrong "$compiler: does not compile"
  "$work/probe" || wrong "$compiler -Ofast -fno-finite-math-only"
done
((failures == 0)) && echo "fast_math: passed"
exit $((failures > 0))
