#!/usr/bin/env bash
# The CUDA path by one line of nvcc: a model that trains and draws, with cuBLAS and cuRAND. For machines with a GPU; elsewhere cuda_faults
# compiles such a model, and cuda_preset links with those libraries.
set -euo pipefail
[ -e /dev/nvidia0 ] || { echo "skipped: no GPU here"; exit 77; }
nvcc=$1 source=$2 build=$3
cat >"$build/cuda_unit.cu" <<'C'
#include <multistage/cuda.hpp>
#include <cstdio>
namespace ms = multistage;
using model = ms::multi_decoder<ms::song_unet{.resolution = 8, .channels = 1, .encoder_channels = 32, .channel_mult = {1, 2}, .num_blocks = 1, .attn_resolutions = {4}}, ms::decoders{{48, 32, 16}}, ms::edm_schedule, ms::cuda>;
static_assert(model::parameters == 2'074'499);
int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) { std::puts("no GPU here"); return 77; }
  model net(ms::partition({0.5, 40.0}), ms::seed{1});
  std::vector<float> images(10 * 64);
  for (std::size_t i = 0; i < images.size(); ++i) images[i] = float(i % 7) / 7;
  ms::trainer t{net, std::span<const float>(images), ms::shape{10, 8, 8, 1}, ms::trainer_options{.batch_size = 16}};
  for (int i = 0; i < 20; ++i) t.step();
  const auto pictures = ms::sample(net, ms::edm_heun{.num_steps = 4}, {.seeds = "0-3"});
  std::printf("on the GPU: %f\n", pictures.images[0]);
}
C
"$nvcc" -std=c++20 -O1 -arch=sm_80 -I"$source/include" "$build/cuda_unit.cu" -o "$build/cuda_unit" -lcublas -lcurand
"$build/cuda_unit"
