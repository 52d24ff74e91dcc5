#!/usr/bin/env bash
# run.sh SOURCE.cu PROGRAM [nvcc options...]: builds a program (build.sh) and runs it.
set -euo pipefail
bash "$(dirname "$0")/build.sh" "$@"
exec "$2"
