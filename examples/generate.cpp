// Draws pictures with a checkpoint: generate MODEL.safetensors [--seeds 0-63] [--labels 0-9]
// [--sampler edm_heun] [--num-steps N | N,N,...] [--out PATH] ... Each sampler takes its own
// options by name (--list-samplers); one that it has not, or that has no effect, is refused.
// PATH ending in .png: a grid; in .npz: an array of bytes; else a folder with a PNG a picture,
// which is gone on with where it was left. How pictures were made is written into each PNG, and
// beside an .npz as JSON. Processes that mpirun starts share the pictures out.
#include <chrono>
#include <cstdio>
#include <multistage/io.hpp>
#include <multistage/io/file_fingerprint.hpp>
#include <multistage/multistage.hpp>

#include "host_models.hpp"
#include "named_sampler.hpp"

namespace ms = multistage;
using json = ms::io::json;

namespace {

struct settings {
  std::string model;
  std::string autoencoder;
  std::string weak;
  std::string seeds = "0-15";
  std::string out = "samples.png";
  std::string preview;
  std::string backend = "cpu";
  bool label_grid = false;
  int threads = 0;
  int columns = 0;
  int zoom = 1;
  ms::sampling_options sampling;
};

/// Refuses options of a grid where there is none. @throws value_error
void check_grid(const settings& s, bool columns, bool zoom) {
  for (const auto& [was_given, flag] :
       {std::pair{columns, "--columns"}, std::pair{zoom, "--zoom"}})
    ms::require<ms::value_error>(!was_given || command_line::extension_of(s.out) == ".png",
                                 "generate: ", flag, " is of a grid, and --out ", s.out,
                                 " is none; leave it out");
}

enum class output { grid, archive, folder };
/// What a path asks for. @throws value_error for a name that looks like another kind of file
output output_of(const std::string& path) {
  const std::string extension = command_line::extension_of(path);
  if (extension == ".png")
    return output::grid;
  if (extension == ".npz")
    return output::archive;
  ms::require<ms::value_error>(
      !path.empty() && (extension.empty() || std::filesystem::is_directory(path)),
      "generate: --out ", path,
      " is no .png and no .npz; a folder's name has no dot, or ends in /");
  return output::folder;
}

/// A hash of a model's file; empty for no file.
std::string hash_of(const std::string& path) {
  return path.empty() ? "" : ms::io::fingerprint_of_file(ms::io::checkpoint_of(path));
}

/// What makes a seed's picture what it is, for records.
json origin_of(const settings& s, json j) {
  j["model"] = hash_of(s.model);
  j["weak model"] = hash_of(s.weak);
  j["autoencoder"] = hash_of(s.autoencoder);
  return j;
}

/// The same as a PNG holds it. @param of what this picture is
ms::io::picture_texts texts_of(json origin, const json& of) {
  origin.update(of);
  return {{"Software", std::string("multistage ") + ms::library_version},
          {"multistage", origin.dump(-1, ' ', true, json::error_handler_t::replace)}};
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

/// A picture to draw: its seed, its label and that of guidance's weak side; -1: none.
struct request {
  std::uint64_t seed;
  int label;
  int negative;
  std::size_t number;  ///< among all that are asked for, by which it has its embedding
  int embedding;       ///< which that is of several; -1: all have the same
};
/// What is to be drawn: a picture a seed, or with --label-grid a row of all seeds a class.
std::vector<request> requests_of(const settings& s, const ms::any_model& model) {
  const ms::index_t classes = model.label_dim(ms::input_slot::class_labels);
  const auto& names = model.trained().class_names;
  ms::seed_list seeds(s.seeds);
  std::vector<int> labels;
  if (s.label_grid) {
    ms::require<ms::value_error>(classes > 0, "generate: --label-grid, but ", s.model,
                                 " knows no classes");
    const bool some = s.sampling.class_label.any();
    const ms::label_list rows =
        some ? s.sampling.class_label : ms::label_list("0-" + std::to_string(classes - 1));
    std::vector<std::uint64_t> repeated;
    for (const int label : rows.listed(classes, names)) {
      labels.insert(labels.end(), seeds.size(), label);
      repeated.insert(repeated.end(), seeds.begin(), seeds.end());
    }
    seeds = repeated;
  } else {
    labels = s.sampling.class_label.of(seeds, classes, names);
  }
  const std::vector<int> negative = s.sampling.negative_label.of(seeds, classes, names);
  const ms::index_t size = model.label_dim(ms::input_slot::context);
  const std::size_t several =
      size > 0 ? s.sampling.context.size() / std::size_t(size) : std::size_t{0};
  std::vector<request> all;
  for (std::size_t i = 0; i < seeds.size(); ++i)
    all.push_back({seeds[i], labels[i], negative[i], i, several > 1 ? int(i % several) : -1});
  return all;
}

/// A folder's name for a picture; with its class and embedding where seeds do not tell pictures
/// apart.
std::string path_of(const settings& s, const request& r) {
  char seed[32];
  std::snprintf(seed, sizeof seed, "/%06llu", static_cast<unsigned long long>(r.seed));
  std::string path = s.out + seed;
  if (s.label_grid || s.sampling.class_label.is_list())
    path += r.label < 0 ? "-none" : "-" + std::to_string(r.label);
  if (r.embedding >= 0)
    path += "-e" + std::to_string(r.embedding);
  return path + ".png";
}

/// What draws: the model, what decodes its latents, and guidance's weak side.
struct drawing {
  const host_models& files;
  ms::any_model model;
  const named_sampler& sampler;
  std::optional<ms::any_model> weak{};
  std::optional<ms::latent_decoder> decoder{};

  /// Extents of n pictures.
  ms::shape pictures(ms::index_t n) const {
    return decoder ? decoder->extents(model.images(n)) : model.images(n);
  }
  /// Pictures [n, h, w, c] of what the model drew.
  std::vector<double> decoded(const std::vector<double>& images) const {
    if (!decoder)
      return images;
    const ms::index_t rows = ms::index_t(images.size()) / model.images(1).size();
    return (*decoder)(images, model.images(rows));
  }
  /// Of the embeddings of all pictures, those of some; as they are where all have the same.
  std::vector<double> embeddings(std::span<const request> some,
                                 const std::vector<double>& all) const {
    const std::size_t size = std::size_t(model.label_dim(ms::input_slot::context));
    if (size == 0 || all.size() <= size || all.size() % size != 0)
      return all;  // sample says what is wrong with them
    std::vector<double> own;
    for (const request& r : some) {
      const auto from = all.begin() + std::ptrdiff_t(r.number * size % all.size());
      own.insert(own.end(), from, from + std::ptrdiff_t(size));
    }
    return own;
  }
  /// The pictures of some requests, and the stages' evaluations.
  ms::sampling_result operator()(std::span<const request> some, ms::sampling_options o) const {
    std::vector<std::uint64_t> seeds;
    std::vector<int> labels;
    std::vector<int> negative;
    for (const request& r : some) {
      seeds.push_back(r.seed);
      labels.push_back(r.label);
      negative.push_back(r.negative);
    }
    o.context = embeddings(some, o.context);
    o.weak_context = embeddings(some, o.weak_context);
    o.seeds = seeds;
    o.class_label = labels;
    o.negative_label = negative;
    ms::sampling_result result =
        sampler.draw(files.walker(), model, o, weak ? &*weak : nullptr);
    result.images = decoded(result.images);
    result.extents = pictures(result.extents.rows);
    return result;
  }
};

/// Where pictures go: a grid, an archive or a folder, with a record of how they were made.
class destination {
 public:
  /// What would fail at the end fails now: a grid that is no picture, latents as PNGs, a path
  /// that cannot be written. @param drawn extents of all pictures. @param world of which rank 0
  /// writes what holds all of them. @throws value_error, file_error
  destination(const settings& s,
              const json& origin,
              const ms::shape& drawn,
              ms::process_group world)
      : s_(s),
        origin_(origin),
        drawn_(drawn),
        kind_(output_of(s.out)),
        world_(world) {
    const int square = std::max(1, int(std::lround(std::sqrt(double(drawn.rows)))));
    columns_ = s.columns > 0  ? s.columns
               : s.label_grid ? int(ms::seed_list(s.seeds).size())
                              : square;
    zoom_ = s.zoom > 1 ? s.zoom : std::max(1, int(96 / drawn.width));
    if (kind_ == output::grid || !s.preview.empty())
      ms::io::grid_layout(drawn, columns_, zoom_);
    for (const std::string& path : {kind_ == output::folder ? std::string() : s.out, s.preview})
      if (!path.empty() && world.rank() == 0)
        ms::io::check_writable(path);
    ms::require<ms::value_error>(
        (kind_ == output::archive && s.preview.empty()) || drawn.channels == 1 ||
            drawn.channels == 3,
        "generate: ", s.model, " draws ", drawn.channels,
        " channels, which are latents and no PNGs; name their --autoencoder, or an .npz for "
        "--out");
    if (kind_ == output::folder)
      ms::io::make_directory(s_.out);
  }

  /// Takes out what a folder has already. @throws value_error where that was drawn otherwise
  void leave_out_what_is_there(std::vector<request>& requests) const {
    if (kind_ != output::folder)
      return;
    const std::size_t asked = requests.size();
    std::erase_if(requests, [&](const request& r) { return is_png(path_of(s_, r)); });
    claim(s_.out, origin_, requests.size() < asked);
    if (requests.size() < asked)
      std::printf("%zu of %zu pictures are there already\n", asked - requests.size(), asked);
  }
  /// Shows some pictures in the file of --preview.
  void show(const std::vector<double>& images) const {
    ms::shape some = drawn_;
    some.rows = ms::index_t(images.size()) / drawn_.row_size();
    ms::io::image_grid(images, some, columns_, zoom_).save(s_.preview);
  }
  /// The picture that was asked for.
  void add(const request& r, std::span<const double> values) {
    if (kind_ == output::grid)
      return void(values_.insert(values_.end(), values.begin(), values.end()));
    ms::io::picture p{drawn_.height, drawn_.width, drawn_.channels, {}};
    for (const double v : values)
      p.bytes.push_back(ms::io::to_byte(v));
    if (kind_ == output::archive)
      bytes_.insert(bytes_.end(), p.bytes.begin(), p.bytes.end());
    else
      ms::io::write_png(path_of(s_, r), p,
                        texts_of(origin_, {{"seed", r.seed}, {"label", r.label}}));
  }
  /// Writes what holds the pictures of all processes, each of which calls it.
  void finish() {
    if (world_.size() > 1) {
      values_ = ms::gather(world_, std::span<const double>(values_));
      bytes_ = ms::gather(world_, std::span<const unsigned char>(bytes_));
    }
    ms::together(world_, [&] {
      if (world_.rank() == 0)
        write();
    });
  }

 private:
  void write() const {
    const json all{{"seeds", s_.seeds}, {"label grid", s_.label_grid}};
    if (kind_ == output::grid)
      ms::io::image_grid(values_, drawn_, columns_, zoom_).save(s_.out, texts_of(origin_, all));
    if (kind_ == output::archive) {
      ms::io::write_npz(s_.out, "samples",
                        {drawn_.rows, drawn_.height, drawn_.width, drawn_.channels}, bytes_);
      json record = origin_;
      record.update(all);
      record["software"] = std::string("multistage ") + ms::library_version;
      ms::io::write_file(s_.out + ".json",
                         record.dump(1, ' ', false, json::error_handler_t::replace) + "\n");
    }
    std::printf("written: %s\n", s_.out.c_str());
  }

  const settings& s_;
  const json& origin_;
  ms::shape drawn_;
  output kind_;
  ms::process_group world_;
  int columns_ = 1;
  int zoom_ = 1;
  std::vector<double> values_;        // of a grid
  std::vector<unsigned char> bytes_;  // of an archive
};

/// Shows D in a file, about twice a second.
std::function<bool(const ms::sampling_step&)> preview(const drawing& draw,
                                                      const destination& to) {
  using clock = std::chrono::steady_clock;
  return [&draw, &to, last = clock::time_point()](const ms::sampling_step& step) mutable {
    if (clock::now() - last > std::chrono::milliseconds(500)) {
      to.show(draw.decoded(step.denoised()));
      last = clock::now();
    }
    return true;
  };
}

/// Draws pictures and puts them where they go.
void draw_all(const drawing& draw,
              std::span<const request> requests,
              const ms::sampling_options& options,
              destination& to) {
  ms::progress bar("drawing");
  const std::size_t batch = std::size_t(options.batch);
  for (std::size_t at = 0; at < requests.size(); at += batch) {
    const auto some = requests.subspan(at, std::min(batch, requests.size() - at));
    const ms::sampling_result r = draw(some, options);
    if (options.observer)
      to.show(r.images);
    const std::size_t size = std::size_t(r.extents.row_size());
    for (std::size_t i = 0; i < some.size(); ++i)
      to.add(some[i], std::span(r.images).subspan(i * size, size));
    bar.show(double(at + some.size()) / double(requests.size()), "");
    if (at == 0) {
      std::string evaluations;
      for (const auto n : r.evaluations)
        evaluations += " " + std::to_string(n);
      std::printf("evaluations by stage:%s\n", evaluations.c_str());
    }
  }
  bar.end();
}

int generate(const settings& s, const named_sampler& sampler, ms::process_group world) {
  const host_models files(s.backend, s.threads);
  std::optional<drawing> draw;
  std::vector<request> requests;
  json origin;
  std::optional<destination> to;
  ms::together(world, [&] {
    draw.emplace(drawing{files, files.load(s.model), sampler});
    sampler.check_for(draw->model);
    if (!s.weak.empty())
      draw->weak = files.load(s.weak);
    if (!s.autoencoder.empty())
      draw->decoder = files.load_decoder(s.autoencoder, draw->model);
    else if (draw->model.trained().images.value_or("pictures") != "pictures")
      ms::warn(s.model,
               ": draws latents, whose channels are taken for colours; name their "
               "--autoencoder to see pictures");
    requests = requests_of(s, draw->model);
    origin = origin_of(s, sampler.options(draw->model, s.sampling));
    to.emplace(s, origin, draw->pictures(ms::index_t(requests.size())), world);
    if (world.rank() == 0)
      to->leave_out_what_is_there(requests);
    else
      requests.clear();
  });
  ms::require_same(world, "generate: model or options", origin.dump(1));
  requests = ms::all_gather(world, std::span<const request>(requests));  // rank 0's

  ms::sampling_options options = s.sampling;
  if (!s.preview.empty() && world.rank() == 0)
    options.observer = preview(*draw, *to);
  const ms::index_range own =
      ms::share_of(ms::index_t(requests.size()), world.rank(), world.size());
  const auto mine = std::span<const request>(requests).subspan(std::size_t(own.begin),
                                                               std::size_t(own.size()));
  ms::together(world, [&] { draw_all(*draw, mine, options, *to); });
  to->finish();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  named_sampler sampler("generate");
  CLI::App app{
      "Draws pictures with a checkpoint; a seed gives the same picture whatever the batch"};
  app.add_option("MODEL", s.model, "a checkpoint, or the folder of the run that has it");
  app.add_option("--out", s.out,
                 "a .png (grid), a .npz, or a folder (a PNG a seed, gone on with)")
      ->capture_default_str();
  app.add_option("--seeds", s.seeds, "like 0-63,70")->capture_default_str();
  sampler.add_options(app);
  app.add_flag(
      "--label-grid", s.label_grid,
      "a row of all seeds for each class of --labels, or for all that the model knows");
  app.add_option("--preview", s.preview,
                 "a .png that shows during the run what the pictures look like by now");
  app.add_option("--weak-model", s.weak,
                 "a smaller model as the weak side of guidance (autoguidance)");
  app.add_option("--autoencoder", s.autoencoder, "decodes latent pictures");
  command_line::add_backend(app, s.backend, s.threads);
  const auto* columns =
      app.add_option("--columns", s.columns, "of the grid; 0: as many as rows")
          ->check(CLI::Range(0, 100000))
          ->capture_default_str();
  const auto* zoom = app.add_option("--zoom", s.zoom, "of the grid")
                         ->check(CLI::Range(1, 1000))
                         ->capture_default_str();
  return command_line::run(app, argc, argv, [&](ms::process_group world) {
    ms::together(world, [&] {
      ms::require<ms::value_error>(!s.model.empty(), "generate: no MODEL is named; see --help");
      sampler.set(s.sampling, !s.weak.empty());
      ms::parse_seeds(s.seeds);
      output_of(s.out);
      if (!s.preview.empty())
        command_line::require_png("--preview", s.preview);
      check_grid(s, columns->count() > 0, zoom->count() > 0);
      sampler.check();  // bad options are told before the model is opened
    });
    return generate(s, sampler, world);
  });
}
