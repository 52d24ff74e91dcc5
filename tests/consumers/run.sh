#!/usr/bin/env bash
# The library from the outside: installed and found by CMake, added as a subdirectory, by pkg-config, and by a plain -I.
set -euo pipefail
source=$1 build=$2 compiler=$3
here=$source/tests/consumers
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export CXX=$compiler
# The headers and packages; the programs, where they are built, come along.
DESTDIR= cmake --install "$build" --prefix "$dir/prefix" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
for name in architectures inspect cluster generate evaluate; do
  [ ! -x "$build/examples/$name" ] || "$dir/prefix/bin/multistage-$name" --help >/dev/null || { echo "multistage-$name does not run"; exit 1; }
done
[ ! -d "$build/examples" ] || "$dir/prefix/bin/multistage-convert-checkpoint" --help | grep -q to-multistage
once() {  # what a build that makes training slow says, once however many trainers there are
  [ "$(grep -c "$1" "$dir/said")" = 1 ] || { echo "'$1' is not said once:"; cat "$dir/said"; exit 1; }
}
project() {  # name, lines
  mkdir -p "$dir/$1"
  printf 'cmake_minimum_required(VERSION 3.24)\nproject(consumer CXX)\n%s\nadd_executable(consumer %s/main.cpp)\ntarget_link_libraries(consumer PRIVATE multistage::multistage)\n' "$2" "$here" >"$dir/$1/CMakeLists.txt"
  cmake -S "$dir/$1" -B "$dir/$1/build" -G Ninja -DCMAKE_PREFIX_PATH="$dir/prefix" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
  cmake --build "$dir/$1/build" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
  "$dir/$1/build/consumer" 2>"$dir/said" || { cat "$dir/said"; exit 1; }
  once 'without optimisation'  # nobody chose a build type there
}
project find_package 'find_package(multistage REQUIRED)
foreach(target compiled compiled_io)
  if(NOT TARGET multistage::${target})
    message(FATAL_ERROR "find_package does not bring multistage::${target}")
  endif()
endforeach()'
project add_subdirectory "add_subdirectory($source multistage)"
pc=$(dirname "$(find "$dir/prefix" -name multistage.pc)")
# The .pc file finds the headers beside it, under whatever prefix, and after a move.
mv "$dir/prefix" "$dir/moved"
pc=$dir/moved${pc#"$dir/prefix"}
flags=$(PKG_CONFIG_PATH=$pc pkg-config --cflags --libs multistage)
"$compiler" -std=c++20 -O1 "$here/main.cpp" -o "$dir/by_pkg_config" $flags
"$dir/by_pkg_config"
PKG_CONFIG_PATH=$pc pkg-config --exists --print-errors multistage-io
"$compiler" -std=c++20 -O1 "$here/main.cpp" -o "$dir/plain" -I"$source/include" -I/usr/include/eigen3 -pthread
"$dir/plain" 2>"$dir/said"
[ "$(uname -m)" != x86_64 ] || once 'for the oldest x86-64 processors'

# Packages of Eigen that call other versions incompatible, as stand-ins for those not installed: 3.3 to 5 are taken.
eigen() {  # version
  mkdir -p "$dir/eigen-$1"
  cat >"$dir/eigen-$1/Eigen3Config.cmake" <<'E'
if(NOT TARGET Eigen3::Eigen)
  add_library(Eigen3::Eigen INTERFACE IMPORTED)
  set_target_properties(Eigen3::Eigen PROPERTIES INTERFACE_INCLUDE_DIRECTORIES /usr/include/eigen3)
endif()
E
  cat >"$dir/eigen-$1/Eigen3ConfigVersion.cmake" <<E
set(PACKAGE_VERSION $1)
if(PACKAGE_FIND_VERSION AND NOT PACKAGE_FIND_VERSION VERSION_EQUAL $1)
  set(PACKAGE_VERSION_UNSUITABLE TRUE)
endif()
E
  cmake -S "$source" -B "$dir/with-eigen-$1" -G Ninja -DEigen3_DIR="$dir/eigen-$1" -DMULTISTAGE_BUILD_TESTS=OFF -DMULTISTAGE_BUILD_EXAMPLES=OFF \
    -DMULTISTAGE_BUILD_BENCH=OFF >"$dir/log" 2>&1
}
for version in 3.3.0 3.4.90 5.0.1; do
  eigen $version || { cat "$dir/log"; exit 1; }
done
# Nobody said how to build: optimised, then.
grep -q '^CMAKE_BUILD_TYPE:STRING=Release$' "$dir/with-eigen-5.0.1/CMakeCache.txt"
for version in 3.2.10 6.0.0; do
  if eigen $version || ! tr -s ' \n' ' ' <"$dir/log" | grep -q "Eigen $version was found"; then
    echo "Eigen $version:"; cat "$dir/log"; exit 1
  fi
done
