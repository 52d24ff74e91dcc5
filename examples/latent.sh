#!/usr/bin/env bash
# Latent diffusion from a folder of pictures to samples: bash examples/latent.sh OUT (16 minutes on two cores; trainings end after 5 and 6 and a half)
# Emoji (128 pixels high, scaled to 64) -> an autoencoder -> latents of 16 x 16 -> their stages -> a multi-decoder model -> samples.
# OUT keeps every step's folder; a step whose result is there is not made again.
set -euo pipefail
out=${1:?give the folder that is to hold everything: latent.sh OUT}
here=$(cd "$(dirname "$0")/.." && pwd)
bash "$here/examples/setup.sh" fonts-noto-color-emoji python3-fonttools
mkdir -p "$out"
(
  cd "$here"
  cmake --preset native -DMULTISTAGE_BUILD_TESTS=OFF -DMULTISTAGE_BUILD_BENCH=OFF -DMULTISTAGE_PROGRAM_BACKENDS= -B build/programs >"$out/build.log" 2>&1 || { cat "$out/build.log" >&2; exit 2; }
  echo "building (a few minutes)" >&2
  cmake --build build/programs --target prepare train encode cluster generate >>"$out/build.log" 2>&1 || { tail -n 40 "$out/build.log" >&2; exit 2; }
)
bin="$here/build/programs/examples"
[ -d "$out/emoji" ] || /usr/bin/python3 "$here/examples/emoji.py" "$out/emoji"
[ -f "$out/pictures/index.json" ] || "$bin/prepare" "$out/emoji" "$out/pictures" --size 64 --labels none
# 1. The autoencoder: four numbers a pixel of the latents without a codebook: in short tries 256 codes learned shapes long before colours.
[ -f "$out/autoencoder/model.safetensors" ] ||
  "$bin/train" --autoencoder kl-f4 --data "$out/pictures" --out "$out/autoencoder" --encoder-channels 16 --channel-mult 1,2,2 --num-blocks 1 \
    --norm-groups 8 --z-channels 4 --embed-dim 4 --batch 8 --learning-rate 2e-3 --lr-rampup-kimg 0.2 --ema-halflife-kimg 0.5 --mirror true --reconstruction l2 \
    --perceptual-weight 0 --discriminator-weight 0 --kimg 16 --hours 0.085 --snapshot 2
cp "$(ls "$out"/autoencoder/snapshots/*.png | tail -n 1)" "$out/reconstructions.png"
# 2. The data set of latents.
[ -f "$out/latents/index.json" ] || "$bin/encode" "$out/pictures" "$out/autoencoder" "$out/latents"
# 3. Their stages, and how alike the optimal denoisers of two noise levels are.
[ -f "$out/stages/clustering.json" ] || "$bin/cluster" "$out/latents" --out "$out/stages"
# 4. The model: one encoder, a decoder a stage.
[ -f "$out/model/model.safetensors" ] ||
  "$bin/train" --preset small-32 --data "$out/latents" --out "$out/model" --stages "$out/stages/clustering.json" --encoder-channels 32 \
    --channel-mult 1,2,2 --attn-resolutions 8,4 --decoder-channels 32,32,16 --num-blocks 1 --hours 0.11 --features none --snapshot 0
# 5. Samples.
"$bin/generate" "$out/model" --autoencoder "$out/latents/autoencoder.safetensors" --seeds 0-63 --out "$out/samples.png"
echo "$out: reconstructions.png (pictures and what is left of them), stages/similarity.png, samples.png"
