// Trains a model on pictures of one's own: train --data DATA --out RUN [--preset NAME |
// --config FILE.json] [--stages auto|N|FILE|0.5,20] [--kimg N | --hours H] ... The run's folder
// holds checkpoints, grids of samples, a log and report.html; `train --resume --out RUN` goes
// on with it and needs nothing else. Every option of every part can be given by its name;
// --print-config shows what is in force and where it came from.
#include <CLI/CLI.hpp>
#include <multistage/io.hpp>
#include <multistage/runs.hpp>
#include <multistage/runs/restarts.hpp>
#include <sstream>

#include "backends.hpp"
#include "command_line.hpp"

#ifdef MULTISTAGE_COMPILED_HOSTS  // whole runs on these backends, too
namespace multistage {
#ifdef MULTISTAGE_WITH_EIGEN
MULTISTAGE_RUNS(extern template, eigen)
MULTISTAGE_AUTOENCODERS(extern template, float, eigen)
#endif
#ifdef MULTISTAGE_WITH_THRUST
MULTISTAGE_RUNS(extern template, thrust_host)
MULTISTAGE_AUTOENCODERS(extern template, float, thrust_host)
#endif
}  // namespace multistage
#endif

namespace ms = multistage;
using json = ms::io::json;

namespace {

struct settings {
  std::string preset = "small-32";
  std::string config;
  std::string autoencoder;
  std::string out;
  std::string backend = "cpu";
  std::string mpirun;
  int restarts = 0;
  int threads = 0;
  bool resume = false;
  bool preset_given = false;
  bool other_data = false;
  bool print_config = false;
  bool json = false;
  bool list_presets = false;
};

/// The network's extents and classes are the data's.
const std::set<std::string> of_data{"resolution", "columns", "channels", "label_dim"};

/// Takes the options of every part of a run, whatever its network.
void add_options(CLI::App& app, command_line::named_options& options) {
  ms::run_configuration c;
  ms::run_configuration::sections(c, [&](const char* section, const auto& part) {
    options.add(app, part, {}, std::string("Of ") + section);
  });
  options.add(app, ms::song_unet{}, of_data, "Of the model");
  options.add(app, ms::adm_unet{}, of_data, "Of the model");
  options.add(app, ms::ncsnpp{}, of_data, "Of the model");
  options.add(app, ms::ldm_unet{}, of_data, "Of the model");
  options.add(app, ms::decoders{}, {}, "Of the model");
  options.add(app, ms::preconditioning{}, {}, "Of the model");
  ms::autoencoder_configuration a;
  ms::autoencoder_configuration::sections(a, [&](const char* section, const auto& part) {
    options.add(app, part, of_data, std::string("Of an autoencoder's ") + section);
  });
}

/// @throws value_error for options that were given and are not of what is trained
void refuse_others(const command_line::named_options& options,
                   const std::set<std::string>& known,
                   const char* of) {
  for (const std::string& name : options.given())
    ms::require<ms::value_error>(known.count(name) > 0, "train: ", command_line::flag_of(name),
                                 " is no option of ", of);
}

/// Refuses to change a section of a configuration that a run has from its beginning.
/// @param what that is, for the message. @throws value_error naming the option
void refuse_change(const settings& s,
                   const json& before,
                   const json& now,
                   const char* section,
                   const char* what) {
  for (const auto& [name, value] : now[section].items())
    ms::require<ms::value_error>(
        before[section].value(name, json()) == value, "train: ", command_line::flag_of(name),
        " has no effect on ", s.out, ", whose ", what, "; leave it out, or begin another run");
}

/// Refuses to change what a run has from its beginning. @throws value_error
void refuse_what_is_decided(const settings& s,
                            const ms::run_configuration& before,
                            const ms::run_configuration& now) {
  for (const auto& [name, origin] : before.origins)
    ms::require<ms::value_error>(
        !s.preset_given || !origin.starts_with("preset ") || origin == "preset " + s.preset,
        "train: --preset ", s.preset, " has no effect on ", s.out, ", which began with ",
        origin, "; leave it out");
  const ms::io::json_document was(ms::to_json(before));
  const ms::io::json_document is(ms::to_json(now));
  refuse_change(s, *was, *is, "stages", "stages are found");
  refuse_change(s, *was, *is, "model", "network is made");
}

/// Refuses an option that was given where what it is of is not in force. @throws value_error
void refuse_idle(const command_line::named_options& options,
                 const char* name,
                 bool acts,
                 const char* without) {
  const std::vector<std::string> given = options.given();
  ms::require<ms::value_error>(
      acts || std::find(given.begin(), given.end(), name) == given.end(),
      "train: ", command_line::flag_of(name), " has no effect without ", without,
      "; leave it out, or give both");
}

/// The same for all options of a diffusion model's run.
void refuse_idle(const command_line::named_options& options, const ms::run_configuration& c) {
  const auto refuse = [&](const char* name, bool acts, const char* without) {
    refuse_idle(options, name, acts, without);
  };
  const bool augments = c.augment.kind == ms::augmentation_kind::edm;
  ms::augment_options::fields(c.augment.amounts, [&](const ms::option& o, const auto&) {
    refuse(o.name, augments, "--augment edm");
  });
  const std::string levels = c.training.levels.name();
  for (const char* name : {"p_mean", "p_std"})
    refuse(name, levels == "log_normal", "--levels log_normal");
  for (const char* name : {"knee", "suppression"})
    refuse(name, levels == "time_kneed", "--levels time_kneed");
  const ms::rate_decay decay = c.training.schedule.decay;
  refuse("lr_decay_kimg", decay != ms::rate_decay::constant, "--lr-decay");
  refuse("lr_least", decay == ms::rate_decay::cosine, "--lr-decay cosine");
  refuse("ema_halflife_kimg", c.training.ema_std == 0, "--ema-std 0");
  refuse("inception", c.run.features == ms::snapshot_features::inception,
         "--features inception");
  for (const char* name : {"importance.history", "importance.uniform"})
    refuse(name, c.training.importance.bins > 0, "--importance.bins");
}

/// The preset or the run that is gone on with, the file laid over it, the command line on top.
ms::run_configuration configuration_of(const settings& s,
                                       const command_line::named_options& options,
                                       const ms::run_directory* run) {
  ms::run_configuration c = run ? run->read_run() : ms::preset(s.preset);
  if (!s.config.empty())
    ms::lay_over(c, *ms::read_configuration(s.config), s.config, s.config);
  std::set<std::string> known;
  const auto patch = ms::settings_by(c, [&](auto& part, auto&& note) {
    options.set_each(part, [&](const ms::option& o, const auto& value) {
      known.insert(o.name);
      note(o, value);
    });
  });
  refuse_others(options, known, "this model's network");
  const ms::run_configuration before = c;
  ms::lay_over(c, *patch, "command line", "train");
  if (run && run->has_checkpoint())
    refuse_what_is_decided(s, before, c);
  refuse_idle(options, c);
  return c;
}

constexpr const char* no_folder = "train: name the run's folder: --out RUN; see --help";

/// Prints what is in force, and gives the exit status.
template <class Configuration>
int print_configuration(const settings& s, const Configuration& c) {
  std::printf("%s", s.json ? (ms::to_json(c).dump(1) + "\n").c_str() : ms::table_of(c).c_str());
  return 0;
}

/// Says how a run ended, and gives the exit status.
int ended(const settings& s, const ms::run_outcome& end) {
  std::printf("%s\n", end.text.c_str());
  if (!end.finished || end.signal != 0)
    std::printf("  train --resume --out %s\n", s.out.c_str());
  return end.signal != 0 ? 128 + end.signal : 0;
}

template <class Backend>
int train_autoencoder(Backend backend,
                      const settings& s,
                      const ms::autoencoder_configuration& c,
                      const ms::run_directory& place) {
  ms::autoencoder_run run(backend, ms::open_data(c.data), c, place);
  return ended(s, run.run(s.other_data));
}

/// A kind or a file, or the run that is gone on with, the command line on top.
ms::autoencoder_configuration autoencoder_configuration_of(
    const settings& s,
    const command_line::named_options& options,
    const ms::run_directory* run) {
  ms::require<ms::value_error>(!s.preset_given,
                               "train: --preset is of diffusion models; leave it out");
  ms::autoencoder_configuration c;
  const bool in_file = std::filesystem::exists(s.autoencoder);
  if (run)
    c = run->read_run<ms::autoencoder_configuration>();
  else if (!in_file)
    c = ms::autoencoder_preset(s.autoencoder);
  if (run && !in_file && !s.autoencoder.empty()) {
    const ms::autoencoder kind = ms::autoencoder_of_kind(s.autoencoder);
    ms::require<ms::value_error>(kind.kind == c.model.kind && kind.depth() == c.model.depth(),
                                 "train: --autoencoder ", s.autoencoder, " has no effect on ",
                                 s.out, ", which began otherwise; leave it out");
  }
  for (const std::string& file : {in_file ? s.autoencoder : std::string(), s.config})
    if (!file.empty())
      ms::lay_over(c, *ms::read_configuration(file), file, file);
  const ms::io::json_document before(ms::to_json(c));
  std::set<std::string> known;
  ms::autoencoder_configuration::sections(c, [&](const char* section, auto& part) {
    options.set_each(part, [&](const ms::option& o, const auto&) {
      known.insert(o.name);
      c.origins[std::string(section) + "." + o.name] = "command line";
    });
    ms::check_options(section, part);
  });
  refuse_others(options, known, "an autoencoder");
  const ms::io::json_document now(ms::to_json(c));
  if (run && run->has_checkpoint())
    refuse_change(s, *before, *now, "model", "network is made");
  const bool has_codes = c.model.kind == ms::latent_kind::vq;
  for (const char* name : {"n_embed", "commitment_beta", "revive_kimg"})
    refuse_idle(options, name, has_codes, "codes (vq)");
  refuse_idle(options, "kl_weight", !has_codes, "a Gaussian (kl)");
  return c;
}

int train_autoencoder(const settings& s,
                      const command_line::named_options& options,
                      const ms::process_group& world) {
  if (world.size() > 1)
    ms::say_once<ms::value_error>(world,
                                  "train: an autoencoder trains on one process; start it "
                                  "without mpirun");
  std::optional<ms::run_directory> place;
  if (s.resume)
    place.emplace(s.out, ms::run_directory::resume);
  ms::autoencoder_configuration c =
      autoencoder_configuration_of(s, options, place ? &*place : nullptr);
  if (s.print_config) {
    if (!c.data.path.empty())
      ms::fit_to_data(c, ms::open_data(c.data));
    return print_configuration(s, c);
  }
  // Whatever is wrong with a new run is said before its folder is there.
  ms::require<ms::value_error>(!s.out.empty(), no_folder);
  c.run.check_end();
  ms::open_data(c.data);
  if (!place)
    place.emplace(s.out, ms::run_directory::begin);
  return std::visit([&](const auto& b) { return train_autoencoder(b, s, c, *place); },
                    backend_of(s.backend, s.threads));
}

template <class Backend>
int train(Backend backend,
          const settings& s,
          const ms::run_configuration& c,
          const ms::run_directory& place,
          const ms::process_group& world) {
  using run_type = ms::training_run<Backend>;
  run_type run(backend, ms::open_data(c.data), c, place, run_type::print_line, {}, world);
  // Options that are given beside --resume are meant.
  return ended(s, run.run({.other_images = s.other_data, .other_options = true}));
}

int train(const settings& s,
          const command_line::named_options& options,
          ms::process_group world) {
  if (s.list_presets) {
    for (const ms::preset_name& one : ms::preset_names())
      std::printf("%-22s %s\n", one.name, one.meaning);
    return 0;
  }
  if (!s.autoencoder.empty() || (s.resume && ms::is_autoencoder_run(s.out)))
    return train_autoencoder(s, options, world);
  if (s.print_config) {
    std::optional<ms::run_directory> run;
    if (s.resume)
      run.emplace(s.out, ms::run_directory::resume);
    ms::run_configuration c = configuration_of(s, options, run ? &*run : nullptr);
    if (!c.data.path.empty())
      ms::fit_to_data(c, ms::one_draw_each(ms::open_data(c.data)));
    return print_configuration(s, c);
  }
  ms::require<ms::value_error>(!s.out.empty(), no_folder);
  // Whatever is wrong with a new run is said before its folder is there.
  std::optional<ms::run_configuration> c;
  if (!s.resume) {
    c = configuration_of(s, options, nullptr);
    check(*c);
    ms::open_data(c->data);
  }
  const ms::run_directory place(
      s.out, s.resume ? ms::run_directory::resume : ms::run_directory::begin, world);
  if (s.resume)
    c = configuration_of(s, options, &place);
  return std::visit([&](const auto& b) { return train(b, s, *c, place, world); },
                    backend_of(s.backend, s.threads));
}

/// Watches a run of this program under mpirun, or of one process, and starts it again.
int watch(const settings& s, int argc, char** argv) {
  ms::require<ms::value_error>(!s.out.empty(), no_folder);
  std::vector<std::string> words;
  if (!s.mpirun.empty()) {
    words.push_back("mpirun");
    std::istringstream options(s.mpirun);
    for (std::string word; options >> word;)
      words.push_back(word);
  }
  words.push_back(argv[0]);
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--restarts" || word == "--mpirun")
      ++i;  // and its value
    else if (word.rfind("--restarts=", 0) != 0 && word.rfind("--mpirun=", 0) != 0)
      words.push_back(word);
  }
  std::vector<std::string> again = words;
  if (!s.resume)
    again.push_back("--resume");
  return ms::run_with_restarts(
      {.first = words, .again = again, .most = s.restarts, .has_begun = [&] {
         return ms::is_run(s.out);
       }});
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Trains a multi-stage, multi-decoder diffusion model on pictures of your own"};
  app.add_option("--out", s.out, "the run's folder");
  const auto* preset =
      app.add_option(
             "--preset", s.preset,
             "to begin with; --list-presets; each also with -unified or -separate behind "
             "its name")
          ->capture_default_str();
  app.add_option("--config", s.config, "JSON that is laid over the preset (RUN/config.json)");
  app.add_option("--autoencoder", s.autoencoder,
                 "train an autoencoder: vq-f4, vq-f8, kl-f4, kl-f8, or a file like its "
                 "config.json");
  app.add_flag("--resume", s.resume, "go on with the run in --out");
  app.add_flag("--other-data", s.other_data,
               "with --resume: go on although the images are others than before");
  app.add_flag("--print-config", s.print_config,
               "print every option, its value and where it came from, and end");
  app.add_flag("--json", s.json, "with --print-config: as JSON, for --config");
  app.add_flag("--list-presets", s.list_presets, "print the presets and end");
  command_line::add_backend(app, s.backend, s.threads);
  app.add_option("--mpirun", s.mpirun,
                 "start so many processes: what mpirun is told, like '-n 4' or '-n 16 --host "
                 "A:8,B:8'");
  app.add_option("--restarts", s.restarts,
                 "how often a run that failed is started again from its last checkpoint")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  command_line::named_options options("of several parts; see docs/training.md");
  add_options(app, options);
  return command_line::run(app, argc, argv, [&](ms::process_group world) {
    s.preset_given = preset->count() > 0;
    return s.restarts > 0 || !s.mpirun.empty() ? watch(s, argc, argv)
                                               : train(s, options, world);
  });
}
