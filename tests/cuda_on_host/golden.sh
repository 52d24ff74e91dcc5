#!/usr/bin/env bash
# golden.sh PROJECT WORK_DIR [FILE_OR_DIRECTORY...]: golden cases on the CUDA backend, without a GPU;
# those of the repository where none are named. What preset.sh compiled there is not compiled again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
project=$1 work=$2
shift 2
bash "$here/preset.sh" "$project" "$work"
object=$work/tests/CMakeFiles/golden_check_cuda.dir/golden_check_cuda.cu.o
RACE=1 bash "$here/link.sh" "$object" "$work/keep/golden_check_cuda.compute_80.ptx" "$work/golden_on_host"
[ $# -gt 0 ] || set -- "$project/tests/data/golden"
exec "$work/golden_on_host" "$@"
