#!/usr/bin/env bash
# The claims of arXiv 2312.09181 measured in miniature: bash examples/reproduce.sh [--quick | --table N | --hours H] [--data FOLDER] [--inception FILE] OUT
# --quick: 8x8 digits, three seeds; nine minutes on two cores behind the build, the whole three and a half hours by estimate (docs/evidence.md). Without: icons (Debian's oxygen-icon-theme, LGPL-3+; or --data, a folder of your own), five seeds.
# Installs what is missing, builds, makes the data, and works with a process a processor. What was stopped goes on with the same command. OUT/report.html is the page.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
usage() { sed -n 2,4p "$0" | cut -c3- >&2; exit 2; }
scale=full options=() data="" inception="" out=""
while [ $# -gt 0 ]; do
  case $1 in
    --quick) scale=quick ;;
    --table | --hours) [ $# -ge 2 ] || usage; options+=("$1" "$2"); shift ;;
    --data) [ $# -ge 2 ] || usage; data=$2; shift ;;
    --inception) [ $# -ge 2 ] || usage; options+=("$1" "$2"); shift ;;
    -*) usage ;;
    *) [ -z "$out" ] || usage; out=$1 ;;
  esac
  shift
done
[ -n "$out" ] || usage
[ "$scale" = full ] || [ -z "$data" ] || { echo "reproduce.sh: --quick is of the digits; leave --data out" >&2; exit 2; }
packages=(); targets=(reproduce)
if [ "$scale" = full ]; then
  [ -n "$data" ] || packages=(oxygen-icon-theme)
  targets+=(prepare train encode)
fi
bash "$here/examples/setup.sh" "${packages[@]}"
mkdir -p "$out"
out=$(cd "$out" && pwd)
[ -z "$data" ] || data=$(cd "$data" && pwd)
(
  cd "$here"
  cmake --preset native -DMULTISTAGE_BUILD_TESTS=OFF -DMULTISTAGE_BUILD_BENCH=OFF -DMULTISTAGE_PROGRAM_BACKENDS= -B build/programs >"$out/build.log" 2>&1 || { cat "$out/build.log" >&2; exit 2; }
  echo "building (a few minutes)" >&2
  cmake --build build/programs --target "${targets[@]}" >>"$out/build.log" 2>&1 || { tail -n 40 "$out/build.log" >&2; exit 2; }
)
bin="$here/build/programs/examples"
folder="$here/examples/data"
if [ "$scale" = full ]; then
  folder="$out/data"
  mkdir -p "$folder"
  source=${data:-/usr/share/icons/oxygen/base/32x32}
  [ -d "$source" ] || { echo "reproduce.sh: $source is no folder of pictures" >&2; exit 2; }
  for size in 16 32; do
    [ -f "$folder/$size/index.json" ] || "$bin/prepare" "$source" "$folder/$size" --size $size --deduplicate --background white --labels none
  done
  if [ ! -f "$folder/files.txt" ]; then  # what the pictures are, by their bytes
    (cd "$source" && find . -type f | LC_ALL=C sort | tr '\n' '\0' | xargs -0 sha256sum) >"$folder/files.txt.part"
    mv "$folder/files.txt.part" "$folder/files.txt"
  fi
  echo "$(wc -l <"$folder/files.txt") files of $source, listed with their hashes in $folder/files.txt, whose own is $(sha256sum <"$folder/files.txt" | cut -c1-16)" >&2
  [ -n "$data" ] || echo "icons: KDE's Oxygen, LGPL-3+, see /usr/share/doc/oxygen-icon-theme/copyright" >&2
  # Latents: 32 x 32 pictures become 8 x 8 by an autoencoder that is trained here.
  if [ ! -f "$folder/latents/index.json" ]; then
    resume=(); [ ! -f "$folder/autoencoder/model.safetensors" ] || resume=(--resume)
    if [ "${#resume[@]}" -gt 0 ]; then
      "$bin/train" --resume --out "$folder/autoencoder"
    else
      "$bin/train" --autoencoder vq-f4 --data "$folder/32" --out "$folder/autoencoder" --encoder-channels 16 --channel-mult 1,2,2 --num-blocks 1 --norm-groups 8 \
        --n-embed 256 --revive-kimg 0.2 --batch 16 --learning-rate 2e-3 --lr-rampup-kimg 0.2 --ema-halflife-kimg 1 --mirror true --perceptual-weight 0.3 \
        --discriminator-weight 0 --kimg 40 --snapshot 10
    fi
    "$bin/encode" "$folder/32" "$folder/autoencoder/model.safetensors" "$folder/latents"
  fi
fi
command=("$bin/reproduce" "$out" --experiment "$here/examples/reproduce.json" --scale "$scale" --data "$folder" "${options[@]}")
workers=()
stop() { [ "${#workers[@]}" -eq 0 ] || kill "${workers[@]}" 2>/dev/null || true; }
trap stop EXIT
for ((i = 1; i < $(nproc); ++i)); do
  "${command[@]}" --worker &
  workers+=($!)
done
"${command[@]}"
