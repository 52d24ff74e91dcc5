#!/usr/bin/env bash
# instruction_sets.sh SOURCE_DIR EIGEN_DIR COMPILER: units of one program compiled for different instruction sets do not share what differs with them.
set -euo pipefail
root=$1 eigen=$2 compiler=$3
[[ $(uname -m) == x86_64 ]] || { echo "not an x86-64 machine"; exit 77; }
sets=(x86-64 x86-64-v3)  # SSE2 and AVX2: registers of other widths, other panels
grep -q avx2 /proc/cpuinfo || { echo "no AVX2"; exit 77; }
grep -q avx512vl /proc/cpuinfo && sets+=(x86-64-v4)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags="-std=c++20 -O1 -I$root/include -isystem $eigen -pthread"
units=()
for set in "${sets[@]}"; do
  "$compiler" $flags -march=$set -DUNIT=${set//-/_} -c "$root/tests/instruction_sets.cpp" -o "$work/$set.o"
  nm -C --defined-only "$work/$set.o" | sed -n 's/^[0-9a-f]* [VuWwT] //p' | sort -u >"$work/$set.names"
  units+=("$work/$set.o")
done
main() {  # main UNIT...: a program that prints what each of these units computes
  echo "#include <cstdio>"
  for u in "$@"; do echo "void ${u//-/_}();"; done
  echo "int main() {"
  for u in "$@"; do echo "${u//-/_}();"; done
  echo "}"
}
failures=0
# Each alone, then all together in both orders.
for set in "${sets[@]}"; do
  main "$set" >"$work/main.cpp"
  "$compiler" "$work/main.cpp" "$work/$set.o" -o "$work/alone" -pthread
  "$work/alone" >>"$work/expected"
done
main "${sets[@]}" >"$work/main.cpp"
reversed=()
for ((i = ${#units[@]} - 1; i >= 0; --i)); do reversed+=("${units[i]}"); done
"$compiler" "$work/main.cpp" "${units[@]}" -o "$work/forth" -pthread
"$compiler" "$work/main.cpp" "${reversed[@]}" -o "$work/back" -pthread
for program in forth back; do
  "$work/$program" >"$work/$program.txt" || { echo "wrong: $program ends with $?"; failures=1; }
  diff "$work/expected" "$work/$program.txt" || { echo "wrong: units linked together ($program) compute something else than alone"; failures=1; }
done
[[ $(wc -l <"$work/expected") -ge 6 ]] || { echo "wrong: nothing was computed"; failures=1; }
# No name of a kernel, or of anything over the cpu backend, may be in two units.
for ((i = 0; i < ${#sets[@]}; ++i)); do
  grep -qE 'simd::|_kernel::|winograd::' "$work/${sets[i]}.names" || { echo "wrong: no kernels in ${sets[i]}"; failures=1; }
  for ((j = i + 1; j < ${#sets[@]}; ++j)); do
    shared=$(comm -12 "$work/${sets[i]}.names" "$work/${sets[j]}.names" | grep -E 'multistage::' | grep -E '\bcpu\b|simd::|[a-z]_kernel::|winograd::' || true)
    [[ -z $shared ]] || { echo "wrong: in both ${sets[i]} and ${sets[j]}:"; head -20 <<<"$shared"; failures=1; }
  done
done
((failures == 0)) && echo "instruction_sets: passed (${sets[*]})"
exit $failures
