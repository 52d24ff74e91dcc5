// Run configurations to begin with, by name: sizes that train on a desktop in minutes, and the
// paper's own networks with the optimisation of the papers that they come from. The data decide
// resolution, channels and classes. Each also as "NAME-unified", one network for all noise
// levels, and "NAME-separate", a whole network a stage.
//
//   run_configuration c = preset("small-32");
//   for (const preset_name& p : preset_names())
//     std::printf("%s  %s\n", p.name, p.meaning);
#pragma once
#include "../diffusion/paper_models.hpp"
#include "configuration_file.hpp"

namespace multistage {

/// A preset's name, and what it is for.
struct preset_name {
  const char* name;     ///< as `preset` takes it
  const char* meaning;  ///< one line
};

namespace presets {

/// The library's quickstart: 8x8 digits in a minute.
inline run_configuration quickstart() {
  run_configuration c;
  c.model.network = song_unet{.resolution = 8,
                              .channels = 1,
                              .encoder_channels = 32,
                              .channel_mult = {1, 2},
                              .num_blocks = 1,
                              .attn_resolutions = {4},
                              .norm_groups = 16};
  c.model.stages = {.widths = {48, 32, 16}};
  c.levels = {.p_mean = -0.5, .p_std = 1.4};
  c.training.learning_rate = 3e-3;
  c.training.ema_rampup_ratio = 0.1;
  c.training.batch_size = 128;
  c.training.least_stage_share = 0.05;
  c.run.hours = 1.0 / 60;
  c.run.snapshot_kimg = 50;
  return c;
}

/// Pictures of 32x32 on a desktop: something to show after minutes. Few channels where there
/// are many pixels, more below: 70 million multiply-accumulates a picture, so that two cores
/// see each of a thousand pictures dozens of times in ten minutes.
inline run_configuration small_32() {
  run_configuration c;
  c.model.network = song_unet{.resolution = 32,
                              .encoder_channels = 16,
                              .channel_mult = {1, 1, 4},
                              .num_blocks = 1,
                              .attn_resolutions = {8},
                              .norm_groups = 8};
  c.model.stages = {.widths = {16, 16, 16}, .blocks = {1, 1, 1}};
  c.levels = {.p_mean = -0.6, .p_std = 1.4};
  c.training.learning_rate = 2e-3;
  c.training.lr_rampup_kimg = 1;
  c.training.ema_halflife_kimg = 50;
  c.training.ema_rampup_ratio = 0.1;
  c.training.batch_size = 16;
  c.training.least_stage_share = 0.1;
  c.run.snapshot_kimg = 10;
  c.run.frechet_images = 128;
  return c;
}

/// The same for 64x64, with fewer channels still where there are most pixels.
inline run_configuration small_64() {
  run_configuration c = small_32();
  c.model.network = song_unet{.resolution = 64,
                              .encoder_channels = 8,
                              .channel_mult = {1, 2, 2, 8},
                              .num_blocks = 1,
                              .attn_resolutions = {8},
                              .norm_groups = 8};
  c.model.stages.widths = {8, 8, 8};
  c.run.snapshot_seeds = "0-24";
  return c;
}

/// EDM on CIFAR-10 (Karras et al., arXiv 2206.00364, table 7), in three stages.
inline run_configuration edm_cifar10() {
  run_configuration c;
  song_unet net = paper::edm_32;
  net.dropout = 0.13;
  c.model = {net, paper::pixels, preconditioning{}};
  c.augment.kind = augmentation_kind::edm;
  c.training.learning_rate = 1e-3;
  c.training.batch_size = 512;
  c.training.lr_rampup_kimg = 10'000;
  c.training.ema_halflife_kimg = 500;
  c.run.measure_sigma_data = false;
  c.run.snapshot_kimg = 2000;
  c.run.kimg = 200'000;
  c.run.frechet_images = 10'000;
  return c;
}

/// Score matching along the VP schedule on CIFAR-10 (Song et al., arXiv 2011.13456, appendix
/// H), in three stages.
inline run_configuration vp_cifar10() {
  run_configuration c;
  ncsnpp net = paper::vp_32;
  net.dropout = 0.1;
  c.model = {net, paper::pixels, preconditioning{.kind = precondition::vp}};
  c.training.learning_rate = 2e-4;
  c.training.batch_size = 128;
  c.training.lr_rampup_kimg = 640;     // 5,000 steps
  c.training.ema_halflife_kimg = 887;  // 0.9999 a step
  c.training.ema_rampup_ratio = 0;
  c.training.gradient_clip = 1;
  c.training.levels = time_uniform_levels<>{};
  c.training.weight = epsilon_weight{};
  c.run.measure_sigma_data = false;
  c.run.snapshot_kimg = 2000;
  c.run.kimg = 166'400;  // 1.3 million steps
  c.run.frechet_images = 10'000;
  return c;
}

/// Latent diffusion (Rombach et al., arXiv 2112.10752): what both of its presets share.
inline run_configuration latent_diffusion(const ldm_unet& net) {
  run_configuration c;
  c.model = {net, paper::latents, preconditioning{.kind = precondition::ddpm}};
  c.data.latents = true;
  c.training.lr_rampup_kimg = 0;
  c.training.ema_rampup_ratio = 0;
  c.training.levels = time_uniform_levels<>{};
  c.training.weight = epsilon_weight{};
  c.run.measure_sigma_data = false;
  c.run.features = snapshot_features::pixels;
  c.run.snapshot_kimg = 1000;
  return c;
}

/// On CelebA-HQ's latents (its table 12).
inline run_configuration ldm_celeba256() {
  run_configuration c = latent_diffusion(paper::celeba_256);
  c.model.stages.attention = paper::reference_celeba_attention;
  c.training.learning_rate = 9.6e-5;
  c.training.batch_size = 48;
  c.training.ema_halflife_kimg = 333;  // 0.9999 a step
  c.run.kimg = 19'680;                 // 410,000 steps
  return c;
}

/// On ImageNet's latents by class (its table 13).
inline run_configuration ldm_imagenet256_class() {
  run_configuration c = latent_diffusion(paper::imagenet_256(224));
  c.model.stages.attention = paper::reference_imagenet_attention;
  c.training.learning_rate = 1e-4;
  c.training.batch_size = 1200;
  c.training.ema_halflife_kimg = 8318;  // 0.9999 a step
  c.training.label_dropout = 0.1;
  c.run.kimg = 213'600;  // 178,000 steps
  return c;
}

/// One network for all noise levels: the paper's of ImageNet has a wider encoder then.
inline void unify(run_configuration& c) {
  std::visit(
      [&](auto& net) {
        if constexpr (requires { net.context_dim; })
          if (net.context_dim > 0)
            net.encoder_channels = paper::imagenet_256(256).encoder_channels;
        c.model.stages = {.widths = {net.encoder_channels},
                          .blocks = {c.model.stages.blocks[0]}};
      },
      c.model.network);
  c.stages.stages = "1";
}
/// A whole network a stage, each as wide as its decoder would be.
inline void separate(run_configuration& c) {
  c.model.stages.shared_encoder = false;
  c.model.stages.attention = {};
}

/// A preset with its maker.
struct maker {
  preset_name named;            ///< what it is called
  run_configuration (*make)();  ///< makes it
};
/// All presets, in the order in which people are shown them.
inline constexpr std::array<maker, 7> makers{
    maker{{"quickstart", "8x8 digits in a minute"}, quickstart},
    maker{{"small-32", "pictures of 32x32 on a desktop"}, small_32},
    maker{{"small-64", "pictures of 64x64 on a desktop"}, small_64},
    maker{{"edm_cifar10", "EDM's DDPM++ for CIFAR-10, decoders of 192, 128, 16"}, edm_cifar10},
    maker{{"vp_cifar10", "deep NCSN++ on the VP schedule, decoders of 192, 128, 16"},
          vp_cifar10},
    maker{{"ldm_celeba256", "latent diffusion on CelebA-HQ, decoders of 256, 192, 128"},
          ldm_celeba256},
    maker{{"ldm_imagenet256_class", "latent diffusion by class, decoders of 256, 192, 128"},
          ldm_imagenet256_class}};

}  // namespace presets

/// The presets there are; each also with "-unified" or "-separate" behind its name.
inline std::vector<preset_name> preset_names() {
  std::vector<preset_name> names;
  for (const presets::maker& one : presets::makers)
    names.push_back(one.named);
  return names;
}

/// The configuration of a name; what it sets is said to come from the preset.
/// @throws value_error that lists the names there are
MULTISTAGE_COLD inline run_configuration preset(const std::string& name) {
  std::string known;
  for (const presets::maker& one : presets::makers) {
    const std::string base = one.named.name;
    known += (known.empty() ? "" : ", ") + base;
    if (name != base && name != base + "-unified" && name != base + "-separate")
      continue;
    run_configuration c = one.make();
    if (name == base + "-unified")
      presets::unify(c);
    if (name == base + "-separate")
      presets::separate(c);
    const io::json_document usual(to_json(run_configuration()));
    const io::json_document own(to_json(c));
    for (const auto& [section, settings] : own->items())
      if (section != "origins")
        for (const auto& [key, value] : settings.items())
          if (section == "model" || (*usual)[section][key] != value)
            c.origins[section + "." + key] = "preset " + name;
    return c;
  }
  fail<value_error>("preset '", name, "' is unknown; known: ", known,
                    ", each also with -unified or -separate behind it");
}

}  // namespace multistage
