// What a project's units need not compile each for itself: the library's large templates at one
// scalar and backend, as lists of explicit instantiations. A unit that is told of them
// (MULTISTAGE_COMPILED, which the target multistage::compiled defines) takes them from the one
// library that has them; all else stays header-only.
//
//   namespace multistage {                                   // in every unit, behind the
//   umbrella MULTISTAGE_NETWORKS(extern template, float, cpu)
//   }
//   namespace multistage {                                   // in one unit
//   MULTISTAGE_NETWORKS(template, float, cpu)
//   }
//
// The umbrellas write the first of these for float on cpu, CMake's target the second.
// PREFIX is `extern template` or `template`. Samplers of one's own, models of another scalar or
// backend are compiled where they are used, as ever, or listed in the same way.
#pragma once

#include <string>

/// The library's networks as graphs: <multistage/multistage.hpp>.
#define MULTISTAGE_RECORDINGS(PREFIX)                                            \
  PREFIX described_network record<song_unet>(const song_unet&, const decoders&); \
  PREFIX described_network record<adm_unet>(const adm_unet&, const decoders&);   \
  PREFIX described_network record<ncsnpp>(const ncsnpp&, const decoders&);       \
  PREFIX described_network record<ldm_unet>(const ldm_unet&, const decoders&);

/// Networks and the models made of them: <multistage/multistage.hpp>.
#define MULTISTAGE_NETWORKS(PREFIX, SCALAR, BACKEND) \
  PREFIX class executor<SCALAR, BACKEND>;            \
  PREFIX class dynamic_model<SCALAR, BACKEND>;

/// Training: <multistage/multistage.hpp>.
#define MULTISTAGE_TRAINING(PREFIX, SCALAR, BACKEND) \
  PREFIX class denoising_objective<SCALAR, BACKEND>; \
  PREFIX class averaged_adam<SCALAR, BACKEND>;       \
  PREFIX class trainer<SCALAR, BACKEND>;

/// Stages of a data set: <multistage/multistage.hpp>.
#define MULTISTAGE_CLUSTERING(PREFIX, BACKEND)                         \
  PREFIX class optimal_denoiser<double, BACKEND>;                      \
  PREFIX clustering cluster_by_optimal_denoiser<BACKEND, vp_schedule>( \
      BACKEND, const image_source&, const clustering_options&, const vp_schedule&);

/// A sampler of one name, walking on a backend: with models of any type, and with its own.
#define MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, SAMPLER)                                 \
  PREFIX sampling_result sample<SAMPLER, BACKEND>(                                           \
      const any_model&, const SAMPLER&, const sampling_options&, const any_model*, BACKEND); \
  PREFIX sampling_result sample<SCALAR, BACKEND, SAMPLER>(                                   \
      dynamic_model<SCALAR, BACKEND>&, const SAMPLER&, const sampling_options&,              \
      dynamic_model<SCALAR, BACKEND>*);

/// Every sampler: <multistage/multistage.hpp>.
#define MULTISTAGE_SAMPLERS(PREFIX, SCALAR, BACKEND)            \
  PREFIX class model_denoiser<SCALAR, BACKEND>;                 \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, edm_heun)         \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, edm_ablation)     \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, ddim)             \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, gddim)            \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, flow_ode)         \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, pfgm)             \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, pndm)             \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, dpm_solver)       \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, dpm_solver_sde)   \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, deis)             \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, unipc)            \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, score_sde)        \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, probability_flow) \
  MULTISTAGE_SAMPLER(PREFIX, SCALAR, BACKEND, restart)

/// The JSON parser: <multistage/io.hpp>.
#define MULTISTAGE_JSON(PREFIX) \
  PREFIX io::json_document io::parse_json<void>(std::string_view, const io::broken_json&);

/// Checkpoints: <multistage/io.hpp>.
#define MULTISTAGE_FILES(PREFIX, SCALAR, BACKEND)                                            \
  PREFIX void save<SCALAR, BACKEND>(const std::string&, dynamic_model<SCALAR, BACKEND>&);    \
  PREFIX void save<SCALAR, BACKEND>(const std::string&, trainer<SCALAR, BACKEND>&,           \
                                    const std::string&);                                     \
  PREFIX void save_snapshot<SCALAR, BACKEND>(const std::string&, trainer<SCALAR, BACKEND>&); \
  PREFIX void load_weights<SCALAR, BACKEND>(const std::string&,                              \
                                            dynamic_model<SCALAR, BACKEND>&);                \
  PREFIX start_report start_from<SCALAR, BACKEND>(const std::string&,                        \
                                                  dynamic_model<SCALAR, BACKEND>&);          \
  PREFIX void resume<SCALAR, BACKEND>(const io::safetensors&, trainer<SCALAR, BACKEND>&,     \
                                      const resume_options&);                                \
  PREFIX void resume<SCALAR, BACKEND>(const std::string&, trainer<SCALAR, BACKEND>&,         \
                                      const resume_options&);

/// Whole runs: <multistage/runs.hpp>.
#define MULTISTAGE_RUNS(PREFIX, BACKEND) PREFIX class training_run<BACKEND>;

/// Autoencoders and their training: <multistage/runs.hpp>.
#define MULTISTAGE_AUTOENCODERS(PREFIX, SCALAR, BACKEND) \
  PREFIX class autoencoder_model<SCALAR, BACKEND>;       \
  PREFIX class autoencoder_trainer<SCALAR, BACKEND>;     \
  PREFIX class autoencoder_run<BACKEND>;
