#!/usr/bin/env bash
# A run that is killed and resumed ends with the same checkpoint, byte by byte, as one that was left alone.
set -euo pipefail
probe=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$probe" "$dir/whole" 12
for at in 5 9; do
  if "$probe" "$dir/killed" 12 --kill-at "$at" 2>/dev/null; then echo "step $at: was not killed"; exit 1; fi
done
"$probe" "$dir/killed" 12
cmp "$dir/whole" "$dir/killed"
# killed while a checkpoint is being written, at many moments: what is there is always sound
"$probe" "$dir/half" 3
for ms in 05 10 15 20 25 30 40 50; do
  timeout -s KILL "0.$ms" "$probe" "$dir/half" 100000 2>/dev/null || true
done
steps=$("$probe" "$dir/half" 0 && python3 - "$dir/half" <<'P'
import json, struct, sys
with open(sys.argv[1], "rb") as f:
    n = struct.unpack("<Q", f.read(8))[0]
    print(json.loads(json.loads(f.read(n))["__metadata__"]["training"])["steps"])
P
)
echo "resumed at step $steps"
