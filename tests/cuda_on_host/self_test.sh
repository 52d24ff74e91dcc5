#!/usr/bin/env bash
# self_test.sh WORK_DIR: every fault of self_test.cu is found, and none where there is none.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$1
mkdir -p "$work"
RACE=1 bash "$here/build.sh" "$here/self_test.cu" "$work/self_test"
wrong=0
status=0
"$work/self_test" 0 >"$work/0.log" 2>&1 || status=$?
if [ "$status" != 0 ] || ! grep -q "^EMU: 0 findings" "$work/0.log"; then
  echo "a program without a fault ends with $status"
  cat "$work/0.log"
  wrong=1
fi
count=0
while IFS='|' read -r number finds; do
  count=$((count + 1))
  status=0
  { bash -c '"$0" "$1"' "$work/self_test" "$number"; } >"$work/$number.log" 2>&1 || status=$?
  if [ "$status" != 86 ] && [ "$status" != 139 ] || ! grep -qF "$finds" "$work/$number.log"; then
    echo "not found: $number, $finds (status $status)"
    cat "$work/$number.log"
    wrong=1
  fi
done < <(sed -n 's/^ *case \([0-9]*\): *\/\/ finds: /\1|/p' "$here/self_test.cu")
echo "$count programs with a fault"
[ "$count" -ge 27 ] && exit $wrong
