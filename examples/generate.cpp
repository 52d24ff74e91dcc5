// Draws pictures with a checkpoint: generate MODEL.safetensors [--seeds 0-63] [--sampler
// edm_heun] [--num-steps N] [--out PATH] ... Each sampler takes its own options by name
// (--list-samplers); one that it has not, or that has no effect, is refused. PATH ending in
// .png: a grid; in .npz: an array of bytes; else a folder with a PNG a seed, which is gone on
// with where it was left.
#include <cstdio>
#include <multistage/io.hpp>
#include <multistage/multistage.hpp>
#include <multistage/samplers/all.hpp>

#include "command_line.hpp"

namespace ms = multistage;
using json = ms::io::json;

namespace {

struct settings {
  std::string model;
  std::string autoencoder;
  std::string weak;
  std::string seeds = "0-15";
  std::string sampler = "edm_heun";
  std::string out = "samples.png";
  int threads = 0;
  int columns = 0;
  int zoom = 1;
  ms::sampling_options sampling;
};

using model_type = ms::dynamic_model<float, ms::cpu>;

/// Calls f(name, sampler) for every sampler that can be named, with its defaults.
template <class F>
void for_each_sampler(F&& f) {
  f("edm_heun", ms::edm_heun{});
  f("edm_ablation", ms::edm_ablation{});
  f("ddim", ms::ddim{});
  f("ddpm", ms::ddim{.eta = 1});
  f("gddim", ms::gddim{});
  f("flow_euler", ms::flow_ode{});
  f("flow_heun", ms::flow_ode{.heun = true});
  f("pfgm", ms::pfgm{});
  f("pndm", ms::pndm{});
  f("dpm_solver", ms::dpm_solver{.predict_data = false, .denoise_to_zero = true});
  f("dpm_solver++", ms::dpm_solver{.denoise_to_zero = true});
  f("dpm_solver++_singlestep",
    ms::dpm_solver{.method = ms::dpm_method::singlestep, .denoise_to_zero = true});
  f("dpm_solver_sde", ms::dpm_solver_sde{});
  f("deis", ms::deis{.order = 2});
  f("unipc", ms::unipc{});
  f("score_sde", ms::score_sde{});
  f("probability_flow", ms::probability_flow{});
  f("restart", ms::restart{});
}
/// What `sample` is told of by other means than numbers on the command line.
const std::set<std::string> not_numbers{"context", "weak_context", "from", "known", "mask"};

std::string sampler_names() {
  std::string names;
  for_each_sampler([&](const char* name, const auto&) {
    names += std::string(names.empty() ? "" : ", ") + name;
  });
  return names;
}
void list_samplers() {
  for_each_sampler([]<class Sampler>(const char* name, const Sampler& sampler) {
    std::printf("%s\n", name);
    Sampler::fields(sampler, [](const ms::option& o, const auto& value) {
      std::printf("  %-28s %s\n",
                  (command_line::flag_of(o.name) + " " + ms::option_text(value)).c_str(),
                  o.meaning);
    });
  });
}

/// Refuses options that were given and have no effect on this sampler. @throws value_error
template <class Sampler>
void check_given(const std::string& name,
                 const Sampler& sampler,
                 const command_line::named_options& options) {
  for (const std::string& one : options.given()) {
    std::string own;
    bool has = false;
    Sampler::fields(sampler, [&](const ms::option& o, const auto&) {
      has = has || o.name == one;
      own += " " + command_line::flag_of(o.name);
    });
    ms::require<ms::value_error>(has, "generate: ", command_line::flag_of(one),
                                 " is no option of the sampler ", name, "; it takes", own);
    const char* why = ms::sampling::no_effect(sampler, one);
    ms::require<ms::value_error>(why == nullptr, "generate: ", command_line::flag_of(one),
                                 " has no effect on ", name, " ", why ? why : "",
                                 "; leave it out");
  }
}

/// Calls f with the sampler that was asked for and its options.
template <class F>
void with_sampler(const settings& s,
                  const command_line::named_options& options,
                  const ms::training_facts& trained,
                  F&& f) {
  bool found = false;
  for_each_sampler([&](const std::string& name, auto sampler) {
    if (name != s.sampler)
      return;
    found = true;
    if constexpr (requires { sampler.augmented; })  // as it was trained
      if (trained.augmented.value_or(0) > 0)
        sampler.augmented = *trained.augmented;
    options.set(sampler.name(), sampler);
    check_given(name, sampler, options);
    sampler.sigmas();  // whatever else is wrong is said before anything is drawn
    f(sampler);
  });
  ms::require<ms::value_error>(found, "generate: sampler '", s.sampler,
                               "' is unknown; known: ", sampler_names());
}

/// Refuses options of `sample` that were given and have no effect. @throws value_error
void check_given(const settings& s,
                 const command_line::named_options& options,
                 bool columns,
                 bool zoom) {
  const std::vector<std::string> given = options.given();
  const auto has = [&](const char* name) {
    return std::find(given.begin(), given.end(), name) != given.end();
  };
  const auto needs = [&](bool good, const std::string& flag, const char* why) {
    ms::require<ms::value_error>(good, "generate: ", flag, " has no effect ", why,
                                 "; leave it out, or give both");
  };
  const bool guides = s.sampling.guide.acts();
  for (const char* name : {"guidance_low", "guidance_high"})
    needs(!has(name) || guides, command_line::flag_of(name),
          "without --guidance or --guidance-by-stage other than 1");
  needs(s.weak.empty() || guides, "--weak-model",
        "without --guidance or --guidance-by-stage other than 1");
  ms::require<ms::value_error>(
      !(has("guidance") && has("guidance_by_stage")),
      "generate: --guidance-by-stage takes the place of --guidance; give one of them");
  for (const char* name : {"encoder_low", "encoder_high"})
    needs(!has(name) || s.sampling.reuse.every > 1, command_line::flag_of(name),
          "without --encoder-every of 2 or more");
  ms::check(s.sampling);
  for (const auto& [was_given, flag] :
       {std::pair{columns, "--columns"}, std::pair{zoom, "--zoom"}})
    ms::require<ms::value_error>(
        !was_given || std::filesystem::path(s.out).extension() == ".png" ||
            std::filesystem::path(s.out).extension() == ".PNG",
        "generate: ", flag, " is of a grid, and --out ", s.out, " is none; leave it out");
}

enum class output { grid, archive, folder };
/// What a path asks for. @throws value_error for a name that looks like another kind of file
output output_of(const std::string& path) {
  const std::filesystem::path p(path);
  std::string extension = p.extension().string();
  for (char& c : extension)
    c = char(std::tolower(static_cast<unsigned char>(c)));
  if (extension == ".png")
    return output::grid;
  if (extension == ".npz")
    return output::archive;
  ms::require<ms::value_error>(
      !path.empty() && (extension.empty() || std::filesystem::is_directory(p)),
      "generate: --out ", path,
      " is no .png and no .npz; a folder's name has no dot, or ends in /");
  return output::folder;
}

/// A hash of a file that need not fit in memory; empty for no file.
std::string hash_of(const std::string& path) {
  if (path.empty())
    return "";
  const ms::io::byte_source file(path);
  std::string parts;
  constexpr std::uint64_t block = std::uint64_t{1} << 24;
  for (std::uint64_t at = 0; at < file.size(); at += block)
    parts += ms::fingerprint(file.bytes(at, block));
  return ms::fingerprint_of(std::span<const char>(parts));
}

/// What makes a seed's picture what it is, for the folder's record.
template <class Sampler>
json origin_of(const settings& s, const Sampler& sampler) {
  json j{{"model", hash_of(s.model)},
         {"weak model", hash_of(s.weak)},
         {"autoencoder", hash_of(s.autoencoder)},
         {"sampler", s.sampler}};
  const auto note = [&](const ms::option& o, const auto& value) {
    if (o.name != std::string("batch") && !not_numbers.count(o.name))
      j[command_line::flag_of(o.name)] = ms::option_text(value);
  };
  Sampler::fields(sampler, note);
  ms::sampling_options::fields(s.sampling, note);
  return j;
}

/// Whether a path holds a PNG, or its beginning.
bool is_png(const std::string& path) {
  if (!std::filesystem::is_regular_file(path))
    return false;
  const ms::io::byte_source file(path);
  const std::vector<unsigned char> start = file.bytes(0, 8);
  return start == std::vector<unsigned char>{0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
}

/// Refuses to go on with a folder of pictures that were drawn otherwise, and notes how those of
/// this one are drawn. @throws value_error
void claim(const std::string& folder, const json& origin, bool holds_pictures) {
  const std::string record = folder + "/.generate.json";
  if (std::filesystem::exists(record)) {
    const auto bytes = ms::io::read_file(record, 1 << 20);
    const ms::io::json_document before =
        ms::io::parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, record);
    std::string differs;
    for (const auto& [key, value] : origin.items())
      if (!before->is_object() || before->value(key, json()) != value)
        differs += (differs.empty() ? "" : ", ") + key;
    ms::require<ms::value_error>(
        differs.empty() || !holds_pictures, "generate: the pictures in ", folder,
        " were drawn otherwise (", differs,
        "); give the same model and options to go on with it, or another folder");
    if (differs.empty())
      return;
  } else {
    ms::require<ms::value_error>(!holds_pictures, "generate: ", folder,
                                 " holds pictures of these seeds and no record of how they "
                                 "were drawn; give another folder");
  }
  ms::io::write_file(record, origin.dump(1) + "\n");
}

template <class Sampler>
int generate(settings s, const ms::cpu& b, model_type& model, const Sampler& sampler) {
  std::optional<model_type> weak;
  if (!s.weak.empty())
    weak.emplace(ms::load<float>(s.weak, b));
  std::optional<ms::autoencoder_model<float, ms::cpu>> decoder;
  if (!s.autoencoder.empty())
    decoder.emplace(ms::io::load_autoencoder<float>(s.autoencoder, b));

  const output kind = output_of(s.out);
  const bool grid = kind == output::grid;
  const bool archive = kind == output::archive;
  const bool folder = kind == output::folder;
  std::vector<std::uint64_t> seeds = ms::parse_seeds(s.seeds);
  const auto name = [&](std::uint64_t seed) {
    char text[32];
    std::snprintf(text, sizeof text, "/%06llu.png", static_cast<unsigned long long>(seed));
    return s.out + text;
  };
  if (folder) {
    ms::io::make_directory(s.out);
    const std::size_t asked = seeds.size();
    std::erase_if(seeds, [&](std::uint64_t seed) { return is_png(name(seed)); });
    claim(s.out, origin_of(s, sampler), seeds.size() < asked);
    if (seeds.size() < asked)
      std::printf("%zu of %zu pictures are there already\n", asked - seeds.size(), asked);
  }
  // What would fail at the end fails now: a grid that is no picture, latents as PNGs, a path
  // that cannot be written.
  const ms::index_t many = std::max<ms::index_t>(1, ms::index_t(seeds.size()));
  const ms::shape drawn = decoder ? decoder->images(many) : model.images(many);
  const int columns =
      s.columns > 0 ? s.columns : std::max(1, int(std::lround(std::sqrt(double(many)))));
  const int zoom = s.zoom > 1 ? s.zoom : std::max(1, int(96 / drawn.width));
  if (grid)
    ms::io::grid_layout(drawn, columns, zoom);
  if (!folder)
    ms::io::check_writable(s.out);
  ms::require<ms::value_error>(!folder || drawn.channels == 1 || drawn.channels == 3,
                               "generate: ", s.model, " draws ", drawn.channels,
                               " channels, which are latents and no PNGs; name their "
                               "--autoencoder, or an .npz for --out");

  std::vector<unsigned char> all;
  ms::shape pictures{};
  std::vector<double> values;
  ms::progress bar("drawing");
  const std::size_t batch = std::size_t(s.sampling.batch);
  for (std::size_t at = 0; at < seeds.size(); at += batch) {
    const std::size_t count = std::min(batch, seeds.size() - at);
    s.sampling.seeds = std::span(seeds).subspan(at, count);
    ms::sampling_result r = ms::sample(model, sampler, s.sampling, weak ? &*weak : nullptr);
    if (decoder) {
      const ms::tensor<float, ms::cpu> z(b, r.extents,
                                         std::vector<float>(r.images.begin(), r.images.end()));
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
      for (std::size_t k = 0; k < size; ++k)
        p.bytes.push_back(ms::io::to_byte(r.images[i * size + k]));
      if (folder)
        ms::io::write_png(name(seeds[at + i]), p);
      if (archive)
        all.insert(all.end(), p.bytes.begin(), p.bytes.end());
    }
    if (grid)
      values.insert(values.end(), r.images.begin(), r.images.end());
    bar.show(double(at + count) / double(seeds.size()), "");
    if (at == 0) {
      std::string evaluations;
      for (const auto n : r.evaluations)
        evaluations += " " + std::to_string(n);
      std::printf("evaluations by stage:%s\n", evaluations.c_str());
    }
  }
  bar.end();
  pictures.rows = ms::index_t(seeds.size());
  if (grid)
    ms::io::image_grid(values, pictures, columns, zoom).save(s.out);
  if (archive)
    ms::io::write_npz(s.out, "samples",
                      {pictures.rows, pictures.height, pictures.width, pictures.channels}, all);
  std::printf("written: %s\n", s.out.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  command_line::named_options of_samplers;
  command_line::named_options of_sampling;
  CLI::App app{
      "Draws pictures with a checkpoint; a seed gives the same picture whatever the batch"};
  app.add_option("MODEL", s.model, "a checkpoint");
  app.add_option("--out", s.out,
                 "a .png (grid), a .npz, or a folder (a PNG a seed, gone on with)")
      ->capture_default_str();
  app.add_option("--seeds", s.seeds, "like 0-63,70")->capture_default_str();
  app.add_option("--sampler", s.sampler, sampler_names())->capture_default_str();
  bool list = false;
  app.add_flag("--list-samplers", list,
               "print every sampler with its options and their defaults");
  for_each_sampler([&](const char*, const auto& sampler) { of_samplers.add(app, sampler); });
  of_sampling.add(app, s.sampling, not_numbers);
  app.add_option("--weak-model", s.weak,
                 "a smaller model as the weak side of guidance (autoguidance)");
  app.add_option("--autoencoder", s.autoencoder, "decodes latent pictures");
  app.add_option("--threads", s.threads, "0: one a processor that may be used")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  const auto* columns =
      app.add_option("--columns", s.columns, "of the grid; 0: as many as rows")
          ->check(CLI::Range(0, 100000))
          ->capture_default_str();
  const auto* zoom = app.add_option("--zoom", s.zoom, "of the grid")
                         ->check(CLI::Range(1, 1000))
                         ->capture_default_str();
  return command_line::run(app, argc, argv, [&] {
    if (list) {
      list_samplers();
      return 0;
    }
    ms::require<ms::value_error>(!s.model.empty(), "generate: no MODEL is named; see --help");
    of_sampling.set("sample", s.sampling);
    ms::parse_seeds(s.seeds);
    output_of(s.out);
    check_given(s, of_sampling, columns->count() > 0, zoom->count() > 0);
    with_sampler(s, of_samplers, {},
                 [](const auto&) {});  // bad options are told before the model is opened
    const ms::cpu b(s.threads);
    model_type model = ms::load<float>(s.model, b, {.lazy = true});
    int status = 0;
    with_sampler(s, of_samplers, model.trained(),
                 [&](const auto& sampler) { status = generate(s, b, model, sampler); });
    return status;
  });
}
