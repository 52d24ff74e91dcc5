// Draws pictures with a checkpoint: generate MODEL.safetensors [--seeds 0-63] [--sampler edm_heun] [--steps N] [--out PATH] ...
// PATH ending in .png: a grid; in .npz: an array of bytes; else a folder with a PNG a seed, which is gone on with where it was left.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <multistage/io.hpp>
#include <multistage/multistage.hpp>
#include <multistage/samplers/all.hpp>

namespace ms = multistage;

namespace {

struct settings {
  std::string model, autoencoder, weak, seeds = "0-15", sampler = "edm_heun", spacing = "logSNR", boundary = "carry", out = "samples.png";
  int steps = 18, order = 2, label = -1, threads = 0, columns = 0, zoom = 1, encoder_every = 1, augmented = 1;
  ms::index_t batch = 64;
  double eta = 0, churn = 0, guidance = 1, guidance_low = 0, guidance_high = HUGE_VAL, encoder_low = 0, encoder_high = HUGE_VAL, sigma_min = 0.002,
         sigma_max = 80;
  std::vector<double> guidance_by_stage;
};

using model_type = ms::dynamic_model<float, ms::cpu>;

/// Noise levels for the samplers that take a list: down to sigma_min, then 0 where the sampler can end there.
std::vector<double> levels(const settings& s, bool to_zero) {
  const ms::edm_schedule schedule{s.sigma_min, s.sigma_max};
  std::vector<double> l = ms::noise_levels(schedule, ms::spacing_from(s.spacing), s.sigma_max, s.sigma_min, std::max(1, s.steps - (to_zero ? 1 : 0)));
  if (to_zero) l.push_back(0);
  return l;
}

ms::sampling_result draw(const settings& s, model_type& model, model_type* weak, const std::string& seeds) {
  ms::sampling_options o;
  o.seeds = seeds;
  o.batch = s.batch;
  o.class_label = s.label;
  o.reuse = {s.encoder_every, s.encoder_low, s.encoder_high};
  o.guide = {s.guidance, s.guidance_by_stage, s.guidance_low, s.guidance_high};
  const ms::stage_crossing crossing{model.stages(), s.boundary == "carry"   ? ms::boundary_policy::carry
                                                    : s.boundary == "align" ? ms::boundary_policy::align
                                                                            : ms::boundary_policy::restart};
  const auto run = [&](const auto& sampler) { return ms::sample(model, sampler, o, weak); };
  if (s.sampler == "edm_heun") return run(ms::edm_heun{.num_steps = s.steps, .sigma_min = s.sigma_min, .sigma_max = s.sigma_max, .s_churn = s.churn});
  if (s.sampler == "ddim") return run(ms::ddim{levels(s, true), s.eta});
  if (s.sampler == "ddpm") return run(ms::ddim{levels(s, true), 1});
  if (s.sampler == "gddim") return run(ms::gddim<>{.levels = levels(s, s.eta > 0), .lambda = s.eta, .order = s.order, .crossing = crossing});
  if (s.sampler == "flow_euler" || s.sampler == "flow_heun") return run(ms::flow_ode{levels(s, true), s.sampler == "flow_heun"});
  if (s.sampler == "pfgm") return run(ms::pfgm{{.num_steps = s.steps, .sigma_min = s.sigma_min, .sigma_max = s.sigma_max}, s.augmented});
  if (s.sampler == "pndm") return run(ms::pndm{levels(s, false), crossing});
  if (s.sampler == "deis") return run(ms::deis<>{.levels = levels(s, false), .order = s.order, .crossing = crossing});
  if (s.sampler == "unipc") return run(ms::unipc{levels(s, true), s.order, ms::unipc_variant::bh2, crossing});
  if (s.sampler == "dpm_solver_sde") return run(ms::dpm_solver_sde{levels(s, true), std::min(s.order, 2), crossing});
  ms::dpm_solver<ms::edm_schedule> p{.num_steps = s.steps, .order = s.order, .steps = ms::spacing_from(s.spacing), .schedule = {s.sigma_min, s.sigma_max}};
  p.crossing = crossing;
  p.denoise_to_zero = true;
  if (s.sampler == "dpm_solver") p.predict_data = false;
  if (s.sampler == "dpm_solver++_singlestep") p.method = ms::dpm_method::singlestep;
  return run(p);
}

int generate(const settings& s) {
  const ms::cpu b(s.threads);
  model_type model = ms::load<float>(s.model, b, {.lazy = true});
  std::optional<model_type> weak;
  if (!s.weak.empty()) weak.emplace(ms::load<float>(s.weak, b));
  std::optional<ms::autoencoder_model<float, ms::cpu>> decoder;
  if (!s.autoencoder.empty()) decoder.emplace(ms::io::load_autoencoder<float>(s.autoencoder, b));

  const bool grid = s.out.size() > 4 && s.out.substr(s.out.size() - 4) == ".png", archive = s.out.size() > 4 && s.out.substr(s.out.size() - 4) == ".npz",
             folder = !grid && !archive;
  std::vector<std::uint64_t> seeds = ms::parse_seeds(s.seeds);
  const auto name = [&](std::uint64_t seed) {
    char text[32];
    std::snprintf(text, sizeof text, "/%06llu.png", static_cast<unsigned long long>(seed));
    return s.out + text;
  };
  if (folder) {
    ms::io::make_directory(s.out);
    const std::size_t asked = seeds.size();
    std::erase_if(seeds, [&](std::uint64_t seed) { return std::filesystem::exists(name(seed)); });
    if (seeds.size() < asked) std::printf("%zu of %zu pictures are there already\n", asked - seeds.size(), asked);
  }
  std::vector<unsigned char> all;
  ms::shape pictures{};
  std::vector<double> values;
  ms::progress bar("drawing");
  for (std::size_t at = 0; at < seeds.size(); at += std::size_t(s.batch)) {
    const std::size_t count = std::min(std::size_t(s.batch), seeds.size() - at);
    std::string list;
    for (std::size_t i = 0; i < count; ++i) list += (i ? "," : "") + std::to_string(seeds[at + i]);
    ms::sampling_result r = draw(s, model, weak ? &*weak : nullptr, list);
    if (decoder) {
      const ms::tensor<float, ms::cpu> z(b, r.extents, std::vector<float>(r.images.begin(), r.images.end()));
      ms::tensor<float, ms::cpu> x(b, decoder->images(r.extents.rows));
      decoder->decode(z.view(), x.view());
      const auto host = x.to_host();
      r.images.assign(host.begin(), host.end());
      r.extents = x.extents();
    }
    pictures = r.extents;
    const std::size_t size = std::size_t(pictures.row_size());
    for (std::size_t i = 0; i < count; ++i) {
      ms::io::picture p{pictures.height, pictures.width, pictures.channels, {}};
      for (std::size_t k = 0; k < size; ++k) p.bytes.push_back(ms::io::to_byte(r.images[i * size + k]));
      if (folder) ms::io::write_png(name(seeds[at + i]), p);
      if (archive) all.insert(all.end(), p.bytes.begin(), p.bytes.end());
    }
    if (grid) values.insert(values.end(), r.images.begin(), r.images.end());
    bar.show(double(at + count) / double(seeds.size()), "");
    if (at == 0) {
      std::string evaluations;
      for (const auto n : r.evaluations) evaluations += " " + std::to_string(n);
      std::printf("evaluations by stage:%s\n", evaluations.c_str());
    }
  }
  bar.end();
  pictures.rows = ms::index_t(seeds.size());
  if (grid) {
    const int columns = s.columns > 0 ? s.columns : std::max(1, int(std::lround(std::sqrt(double(seeds.size())))));
    ms::io::image_grid(values, pictures, columns, s.zoom > 1 ? s.zoom : std::max(1, int(96 / pictures.width))).save(s.out);
  }
  if (archive) ms::io::write_npz(s.out, "samples", {pictures.rows, pictures.height, pictures.width, pictures.channels}, all);
  std::printf("written: %s\n", s.out.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Draws pictures with a checkpoint; a seed gives the same picture whatever the batch"};
  app.add_option("MODEL", s.model, "a checkpoint")->required();
  app.add_option("--out", s.out, "a .png (grid), a .npz, or a folder (a PNG a seed, gone on with)")->capture_default_str();
  app.add_option("--seeds", s.seeds, "like 0-63,70")->capture_default_str();
  app.add_option("--sampler", s.sampler)
      ->check(CLI::IsMember({"edm_heun", "ddim", "ddpm", "gddim", "flow_euler", "flow_heun", "pfgm", "pndm", "deis", "unipc", "dpm_solver", "dpm_solver++",
                             "dpm_solver++_singlestep", "dpm_solver_sde"}))
      ->capture_default_str();
  app.add_option("--steps", s.steps, "of the sampler")->check(CLI::Range(1, 100000))->capture_default_str();
  app.add_option("--order", s.order, "of multistep samplers")->check(CLI::Range(1, 3))->capture_default_str();
  app.add_option("--spacing", s.spacing, "time_uniform, time_quadratic, logSNR, karras or beta (edm_heun: karras always)")->capture_default_str();
  app.add_option("--boundary", s.boundary, "what multistep samplers do between stages")
      ->check(CLI::IsMember({"carry", "restart", "align"}))
      ->capture_default_str();
  app.add_option("--eta", s.eta, "of ddim, and gddim's lambda")->check(CLI::Range(0.0, 1.0))->capture_default_str();
  app.add_option("--augmented", s.augmented, "dimensions of pfgm")->check(CLI::Range(1, 1000000))->capture_default_str();
  app.add_option("--encoder-every", s.encoder_every, "of so many evaluations in a row one runs the shared encoder, the others reuse its features; 1: all do")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--encoder-low", s.encoder_low, "no reuse at or below this noise level")->capture_default_str();
  app.add_option("--encoder-high", s.encoder_high, "no reuse above this noise level");
  app.add_option("--churn", s.churn, "of edm_heun")->capture_default_str();
  app.add_option("--sigma-min", s.sigma_min)->capture_default_str();
  app.add_option("--sigma-max", s.sigma_max)->capture_default_str();
  app.add_option("--label", s.label, "class to draw; -1: none")->capture_default_str();
  app.add_option("--guidance", s.guidance, "scale of guidance; 1: none")->capture_default_str();
  app.add_option("--guidance-by-stage", s.guidance_by_stage, "a scale for each stage, lowest noise first");
  app.add_option("--guidance-low", s.guidance_low, "no guidance at or below this noise level")->capture_default_str();
  app.add_option("--guidance-high", s.guidance_high, "no guidance above this noise level");
  app.add_option("--weak-model", s.weak, "a smaller model as the weak side of guidance (autoguidance)");
  app.add_option("--autoencoder", s.autoencoder, "decodes latent pictures");
  app.add_option("--batch", s.batch)->check(CLI::Range(1, 100000))->capture_default_str();
  app.add_option("--threads", s.threads, "0: one a core")->capture_default_str();
  app.add_option("--columns", s.columns, "of the grid");
  app.add_option("--zoom", s.zoom, "of the grid");
  CLI11_PARSE(app, argc, argv);
  return ms::exit_status([&] { return generate(s); });
}
