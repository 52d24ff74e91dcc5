#!/usr/bin/env bash
# The library from the outside: installed and found by CMake, added as a subdirectory, by pkg-config, and by a plain -I.
set -euo pipefail
source=$1 build=$2 compiler=$3
here=$source/tests/consumers
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export CXX=$compiler
cmake --install "$build" --prefix "$dir/prefix" >/dev/null
project() {  # name, lines
  mkdir -p "$dir/$1"
  printf 'cmake_minimum_required(VERSION 3.24)\nproject(consumer CXX)\n%s\nadd_executable(consumer %s/main.cpp)\ntarget_link_libraries(consumer PRIVATE multistage::multistage)\n' "$2" "$here" >"$dir/$1/CMakeLists.txt"
  cmake -S "$dir/$1" -B "$dir/$1/build" -G Ninja -DCMAKE_PREFIX_PATH="$dir/prefix" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
  cmake --build "$dir/$1/build" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
  "$dir/$1/build/consumer"
}
project find_package 'find_package(multistage REQUIRED)'
project add_subdirectory "add_subdirectory($source multistage)"
pc=$(dirname "$(find "$dir/prefix" -name multistage.pc)")
flags=$(PKG_CONFIG_PATH=$pc pkg-config --cflags --libs --define-variable=prefix="$dir/prefix" multistage)
"$compiler" -std=c++20 -O1 "$here/main.cpp" -o "$dir/by_pkg_config" -I"$dir/prefix/include" $flags
"$dir/by_pkg_config"
"$compiler" -std=c++20 -O1 "$here/main.cpp" -o "$dir/plain" -I"$source/include" -I/usr/include/eigen3 -pthread
"$dir/plain"
