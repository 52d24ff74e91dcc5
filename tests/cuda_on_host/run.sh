#!/usr/bin/env bash
# run.sh SOURCE.cu PROGRAM [nvcc options...]: builds a program (build.sh) and runs it once for each of
# ORDERS, how threads and blocks take turns; all three of them where the environment names none.
set -euo pipefail
bash "$(dirname "$0")/build.sh" "$@"
for order in ${ORDERS:-forward rev shuffle}; do
  EMU_ORDER=$order "$2"
done
