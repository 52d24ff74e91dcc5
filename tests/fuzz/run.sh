#!/usr/bin/env bash
# Fuzzes the readers with libFuzzer under AddressSanitizer and UndefinedBehaviorSanitizer: run.sh [SECONDS EACH] [BUILD DIRECTORY] [TARGET...]
# Inputs have at most 4 KiB; no allocation may exceed 16 MiB, no input may take longer than 5 s. Every .cpp beside this file is a target; prints how many inputs each
# ran. Targets that need the same of the library are one program, which is the target that it is called by. Exits with 77 without clang++ and libFuzzer.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
seconds=${1:-20}
work=${2:-$root/build/fuzz}
mkdir -p "$work"
export compiler
compiler=$(command -v clang++) || { echo "skipped: no clang++"; exit 77; }
echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' >"$work/probe.cpp"
"$compiler" -fsanitize=fuzzer "$work/probe.cpp" -o "$work/probe" 2>/dev/null || { echo "skipped: clang++ has no libFuzzer"; exit 77; }
targets=("${@:3}")
[ ${#targets[@]} -gt 0 ] || targets=($(cd "$root/tests/fuzz" && basename -s .cpp *.cpp))
rm -rf "$work/corpus"
python3 "$root/tests/fuzz/make_corpus.py" "$work/corpus"
# Libraries of pictures, where they are.
packages=(libpng zlib)
flags=(-std=c++20 -O1 -g1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Wno-missing-braces -I"$root/include" -isystem /usr/include/eigen3)
pkg-config --exists libjpeg && packages+=(libjpeg) && flags+=(-DMULTISTAGE_JPEG)
pkg-config --exists libwebp libwebpdemux libwebpmux && packages+=(libwebp libwebpdemux libwebpmux) && flags+=(-DMULTISTAGE_WEBP)
pkg-config --exists lcms2 && packages+=(lcms2) && flags+=(-DMULTISTAGE_LCMS)
program() {  # name, targets: one program of them, under the name of each
  local name=$1 target
  shift
  [ $# -gt 0 ] || return 0
  {
    echo '#include <cstdlib>'
    echo '#include <string_view>'
    for target; do
      printf '#define LLVMFuzzerTestOneInput fuzz_%s\n#include "%s/tests/fuzz/%s.cpp"\n#undef LLVMFuzzerTestOneInput\n' "$target" "$root" "$target"
    done
    echo 'static int (*target)(const unsigned char*, std::size_t) = nullptr;'
    echo 'extern "C" int LLVMFuzzerInitialize(int*, char*** words) {'
    echo '  const std::string_view called = **words;'
    for target; do echo "  if (called.ends_with(\"/$target\")) target = fuzz_$target;"; done
    echo '  return target ? 0 : (std::abort(), 1);'
    echo '}'
    echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) { return target(data, size); }'
  } >"$work/$name.cpp"
  "$compiler" "${flags[@]}" "$work/$name.cpp" -o "$work/$name.program" "${libraries[@]}" -pthread
  for target; do ln -sf "$name.program" "$work/$target"; done
}
read -ra more < <(pkg-config --cflags "${packages[@]}")
flags+=("${more[@]}")
read -ra libraries < <(pkg-config --libs "${packages[@]}")
readers=() models=()
for target in "${targets[@]}"; do
  if grep -q '<multistage/multistage.hpp>' "$root/tests/fuzz/$target.cpp"; then models+=("$target"); else readers+=("$target"); fi
done
program models ${models[@]+"${models[@]}"} &
program readers ${readers[@]+"${readers[@]}"}
wait $!
fuzz() {  # one target; its log is shown when it ends
  local target=$1 status=0
  mkdir -p "$work/$target.found" "$work/corpus/$target"
  "$work/$target" -max_total_time="$seconds" -max_len=4096 -malloc_limit_mb=16 -rss_limit_mb=1024 -timeout=5 -print_final_stats=1 -verbosity=0 \
    -artifact_prefix="$work/$target-" "$work/$target.found" "$work/corpus/$target" 2>"$work/$target.log" || status=$?
  [ "$status" = 0 ] || tail -n 40 "$work/$target.log"
  echo "$target, $seconds s: $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log") executions"
  return "$status"
}
export -f fuzz
export work seconds
printf '%s\n' "${targets[@]}" | xargs -P 2 -I{} bash -c 'fuzz {}'
echo "no crash, no hang, no allocation beyond 16 MiB"
