#!/usr/bin/env bash
# no_threads.sh LIBRARY QUICKSTART: a program that gets too few threads ends with status 2 and says why.
set -uo pipefail
library=$1 quickstart=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for backend in cpu thrust; do
  ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=$library timeout 100 \
    "$quickstart" "$work/out" --threads 8 --backend $backend >"$work/said" 2>&1
  status=$?
  if ((status != 2)) || ! grep -q 'error: thread_pool: of 8 threads the system gives only 4 ' "$work/said"; then
    echo "wrong: --backend $backend ended with $status:"
    cat "$work/said"
    exit 1
  fi
done
echo "no_threads: passed"
