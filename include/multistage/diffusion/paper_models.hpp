// The networks of arXiv 2312.09181 at their own sizes (its tables 1 to 3 and appendices), ready
// to instantiate, with their unified counterparts. Parameters and multiply-accumulates are
// those of the reference implementation (tests/test_architectures.cpp holds them to it).
#pragma once
#include "multi_decoder.hpp"

namespace multistage::paper {

/// EDM's DDPM++ for 32x32 pictures.
inline constexpr song_unet edm_32{.encoder_channels = 128,
                                  .channel_mult = {2, 2, 2},
                                  .num_blocks = 4,
                                  .attn_resolutions = {16},
                                  .norm_groups = 16};
/// score_sde's deep NCSN++ with the VP schedule and residual progressive input, for 32x32
/// pictures.
inline constexpr ncsnpp vp_32{.encoder_channels = 128,
                              .channel_mult = {1, 2, 2, 2},
                              .num_blocks = 8,
                              .attn_resolutions = {16},
                              .progressive_input = auxiliary_path::residual,
                              .norm_groups = 16};
/// score_sde's deep DDPM++.
inline constexpr ncsnpp ddpmpp_32{.encoder_channels = 128,
                                  .channel_mult = {1, 2, 2, 2},
                                  .num_blocks = 8,
                                  .attn_resolutions = {16},
                                  .fir = false,
                                  .norm_groups = 16};
/// Latent diffusion on CelebA-HQ 256 (VQ-f4 latents).
inline constexpr ldm_unet celeba_256{.resolution = 64,
                                     .channels = 3,
                                     .encoder_channels = 224,
                                     .channel_mult = {1, 2, 3, 4},
                                     .num_blocks = 2,
                                     .attn_downsample = {8, 4, 2},
                                     .num_head_channels = 32};
/// Latent diffusion on ImageNet 256 by class (VQ-f8 latents); the class is a context of one
/// token. `encoder_channels` 256 unified, 224 multi-stage.
constexpr ldm_unet imagenet_256(int encoder_channels) {
  return {.resolution = 32,
          .channels = 4,
          .encoder_channels = encoder_channels,
          .channel_mult = {1, 2, 4},
          .num_blocks = 2,
          .attn_downsample = {4, 2, 1},
          .num_head_channels = 32,
          .spatial_transformer = true,
          .context_dim = 512};
}

/// Where the reference's decoders of latent networks attend: its counter of downsampling
/// factors is not reset between decoders, so those behind the first attend less. For loading
/// its checkpoints; without this, decoders attend alike.
inline constexpr std::array<block_choice, 8> reference_celeba_attention{
    block_choice{true, 0x1ff}, block_choice{true, 0}, block_choice{true, 0}};
/// The same of ImageNet's latent network, whose second decoder attends at some levels still.
inline constexpr std::array<block_choice, 8> reference_imagenet_attention{
    block_choice{true, 0x1ff}, block_choice{true, 0x7}, block_choice{true, 0}};

/// Widths of the decoders of networks on pixels, lowest noise first.
inline constexpr decoders pixels{.widths = {192, 128, 16}};
/// Widths of the decoders of networks on latent images, lowest noise first.
inline constexpr decoders latents{.widths = {256, 192, 128}};

/// EDM's network for CIFAR-10, one for all noise levels.
template <class Backend = cpu, class Scalar = float>
using edm_cifar10 = unified<edm_32, edm_schedule, Backend, Scalar>;
/// The same in three stages.
template <class Backend = cpu, class Scalar = float>
using edm_cifar10_multistage = multi_decoder<edm_32, pixels, edm_schedule, Backend, Scalar>;
/// The VP network for CIFAR-10, one for all noise levels.
template <class Backend = cpu, class Scalar = float>
using vp_cifar10 = unified<vp_32, vp_schedule, Backend, Scalar>;
/// The same in three stages.
template <class Backend = cpu, class Scalar = float>
using vp_cifar10_multistage = multi_decoder<vp_32, pixels, vp_schedule, Backend, Scalar>;
/// Latent diffusion on CelebA at 256 pixels, one network for all noise levels.
template <class Backend = cpu, class Scalar = float>
using ldm_celeba256 = unified<celeba_256, ddpm_schedule, Backend, Scalar>;
/// The same in three stages.
template <class Backend = cpu, class Scalar = float>
using ldm_celeba256_multistage =
    multi_decoder<celeba_256, latents, ddpm_schedule, Backend, Scalar>;
/// Latent diffusion on ImageNet at 256 pixels, one network for all noise levels.
template <class Backend = cpu, class Scalar = float>
using ldm_imagenet256 = unified<imagenet_256(256), ddpm_schedule, Backend, Scalar>;
/// The same in three stages, with a narrower encoder.
template <class Backend = cpu, class Scalar = float>
using ldm_imagenet256_multistage =
    multi_decoder<imagenet_256(224), latents, ddpm_schedule, Backend, Scalar>;

}  // namespace multistage::paper
