// Compares two sets of pictures: evaluate REFERENCE GENERATED [--features
// pixels|random|inception] [--inception FILE] [--json] ... Sets are anything that `cluster`
// reads; grey pictures compare with grey ones, also where a file has them as colours. What is
// printed says with how many pictures, which features (with the hash of their weights) and
// which seeds. With --likelihood MODEL, also how likely a model finds the first pictures of the
// reference. With --steps 5,10,20,50, GENERATED is a checkpoint: how good its pictures are by
// the number of evaluations, as a table and as a curve in --out; sampler, labels, guidance,
// backend and autoencoder are named as to generate. Processes that mpirun starts share out
// reading, drawing, features and neighbourhoods.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <multistage/data/draw_moments.hpp>
#include <multistage/io.hpp>
#include <multistage/metrics/feature_extractor.hpp>
#include <multistage/metrics/features.hpp>
#include <multistage/metrics/frechet_distance.hpp>
#include <multistage/multistage.hpp>
#include <numeric>

#include "host_models.hpp"
#include "image_options.hpp"
#include "named_sampler.hpp"

namespace ms = multistage;
using model_type = ms::dynamic_model<float, ms::cpu>;
using json = ms::io::json;

namespace {

struct settings {
  std::string reference;
  std::string generated;
  std::string features = "pixels";
  std::string inception;
  std::string likelihood;
  std::string autoencoder;
  std::string backend = "cpu";
  bool as_json = false;
  int k = 3;
  int subsets = 20;
  int threads = 0;
  ms::index_t subset_size = 500;
  ms::index_t likelihood_images = 16;
  std::uint64_t seed = 0;
  std::vector<int> steps;
  std::string seeds = "0-255";
  std::string out = "curve.png";
  ms::sampling_options sampling;
  ms::io::image_rule reference_rule;
  ms::io::image_rule generated_rule;
};

/// Two sets whose pictures have the same channels.
struct picture_pair {
  ms::image_source reference;
  ms::image_source generated;
};

/// Opens both. Where one is grey the other is taken as grey, too, if its channels agree.
picture_pair open_pictures(const settings& s) {
  picture_pair p{ms::io::open_images(s.reference, s.reference_rule),
                 ms::io::open_images(s.generated, s.generated_rule)};
  if (s.features == "inception")
    return p;  // resizes them and makes three channels of grey
  if (p.reference.extents.channels == 1)
    p.generated = ms::io::with_channels(s.generated, p.generated, 1);
  if (p.generated.extents.channels == 1)
    p.reference = ms::io::with_channels(s.reference, p.reference, 1);
  const ms::shape a = p.reference.extents;
  const ms::shape b = p.generated.extents;
  ms::require<ms::shape_error>(
      a.height == b.height && a.width == b.width && a.channels == b.channels,
      "evaluate: pictures of ", a, " and ", b, " cannot be compared over ", s.features,
      "; Inception resizes them");
  return p;
}

/// This process's share of a set, read. @param told the share of it that is read
ms::io::image_set own_share(const ms::image_source& images,
                            const ms::process_group& world,
                            const std::function<void(double)>& told = {}) {
  const auto own = ms::share_of(images.extents.rows, world.rank(), world.size());
  return ms::io::read_all(images.part(own.begin, own.end), told);
}

/// What processes have of a set, together at rank 0; the others get nothing.
ms::io::image_set at_rank_0(ms::process_group world, ms::io::image_set own) {
  if (world.size() > 1)
    own.values = ms::gather(world, std::span<const float>(own.values));
  own.extents.rows = ms::index_t(own.values.size()) / own.extents.row_size();
  return own;
}

/// Rows of features of some pictures, block by block.
std::vector<double> features_of(const std::string& what,
                                const ms::feature_extractor& f,
                                const ms::io::image_set& images) {
  constexpr ms::index_t block = 64;
  ms::progress bar("features of the " + what + " pictures");
  std::vector<double> rows;
  for (ms::index_t first = 0; first < images.count(); first += block) {
    ms::shape some = images.extents;
    some.rows = std::min(block, images.count() - first);
    const auto part =
        images.span().subspan(std::size_t(first * some.row_size()), std::size_t(some.size()));
    const std::vector<double> values = f.features(part, some);
    rows.insert(rows.end(), values.begin(), values.end());
    bar.show(double(first + some.rows) / double(images.count()), "");
  }
  return rows;
}
/// The rows of all processes' pictures.
std::vector<double> features_of(const std::string& what,
                                const ms::feature_extractor& f,
                                const ms::io::image_set& own,
                                ms::process_group world) {
  std::vector<double> rows;
  ms::together(world, [&] { rows = features_of(what, f, own); });
  return world.size() == 1 ? rows : ms::all_gather(world, std::span<const double>(rows));
}

ms::feature_extractor extractor(const settings& s,
                                const ms::cpu& backend,
                                const ms::shape& images) {
  if (s.features == "pixels")
    return ms::pixel_features(images);
  if (s.features == "random")
    return ms::random_features(backend, images, s.seed);
  ms::require<ms::value_error>(!s.inception.empty(),
                               "evaluate: --features inception needs --inception FILE; "
                               "examples/convert_checkpoint.py inception makes it");
  return ms::inception_features(ms::io::load_inception(s.inception, backend),
                                ms::fingerprint(ms::io::read_file(s.inception)));
}

/// How many of its pictures a model is asked about, once it is clear that they fit. @throws
/// shape_error
ms::shape asked_about(const settings& s, const model_type& model, ms::shape images) {
  images.rows = std::min(s.likelihood_images, images.rows);
  ms::require<ms::shape_error>(images == model.images(images.rows), "evaluate: pictures are ",
                               images, ", the model's are ", model.images(images.rows));
  return images;
}

/// Bits per value of pictures under a model: mean and standard error.
json likelihood(const settings& s,
                const ms::cpu& backend,
                model_type& model,
                const ms::io::image_set& images) {
  const ms::shape some = asked_about(s, model, images.extents);
  const ms::index_t n = some.rows;
  const std::vector<double> values(images.values.begin(), images.values.begin() + some.size());
  const ms::tensor<double, ms::cpu> x(backend, some, values);
  std::vector<double> sigmas(std::size_t(n), 0.0);
  const auto at = [&](double sigma) -> const std::vector<double>& {
    return std::fill(sigmas.begin(), sigmas.end(), sigma), sigmas;
  };
  const auto l = ms::log_likelihood(
      model.backend(), x.view(), ms::probability_flow{.tolerance = {1e-4, 1e-4}},
      [&](ms::view<const double> y, double sigma, ms::view<double> d) {
        model.denoise(y, at(sigma), d);
      },
      [&](ms::view<const double> y, double sigma, ms::view<const double> v,
          ms::view<double> jv) { model.denoise_transposed(y, at(sigma), v, jv); },
      s.seed);
  double mean = 0;
  double square = 0;
  for (const double b : l.bits_per_value)
    mean += b / double(n);
  for (const double b : l.bits_per_value)
    square += (b - mean) * (b - mean);
  return {{"bits_per_value", mean},
          {"standard_error", n > 1 ? std::sqrt(square / double(n - 1) / double(n)) : 0.0},
          {"n", n},
          {"evaluations", l.evaluations}};
}

/// What is compared, and with what.
struct compared_sets {
  ms::feature_extractor f;
  std::optional<model_type> model;  // whose likelihood is asked for
  ms::io::image_set a;              // the reference
  ms::io::image_set b;              // what is judged
  std::vector<double> x;            // features of the reference
  std::vector<double> y;            // of what is judged
};

/// Opens what is asked for and reads this process's share. @throws whatever does not fit,
/// before the work begins
compared_sets opened(const settings& s,
                     const ms::cpu& backend,
                     const ms::process_group& world) {
  compared_sets c;
  const picture_pair p = open_pictures(s);
  for (const auto* images : {&p.reference, &p.generated})
    ms::require<ms::value_error>(images->extents.rows > s.k, "evaluate: ", images->extents.rows,
                                 " pictures in ",
                                 images == &p.reference ? s.reference : s.generated,
                                 "; with --k ", s.k, " at least ", s.k + 1, " are needed");
  if (!s.likelihood.empty()) {
    c.model.emplace(ms::load<float>(s.likelihood, backend));
    asked_about(s, *c.model, p.reference.extents);
  }
  c.f = extractor(s, backend, p.reference.extents);
  ms::progress bar("reading");
  c.a = own_share(p.reference, world, [&](double share) { bar.show(share / 2, s.reference); });
  c.b = own_share(p.generated, world,
                  [&](double share) { bar.show(0.5 + share / 2, s.generated); });
  return c;
}

/// Measures, and says what comes of it.
void report(const settings& s,
            const ms::cpu& backend,
            compared_sets& c,
            const ms::neighbourhood_report& near) {
  const auto& [f, model, a, b, x, y] = c;
  ms::progress bar("distances");
  bar.show(0, "Frechet");
  const double frechet = ms::frechet_distance(x, y, f.dimension);
  bar.show(0.7, "KID");
  const ms::index_t size = std::min({s.subset_size, a.count(), b.count()});
  const auto kid = ms::kid_in_blocks(x, y, f.dimension, s.subsets, size, s.seed);
  bar.show(1, "");
  bar.end();
  const auto hash = [](const ms::io::image_set& i) {
    return ms::fingerprint_of(i.span());
  };
  json out{{"reference", {{"path", s.reference}, {"n", a.count()}, {"hash", hash(a)}}},
           {"generated", {{"path", s.generated}, {"n", b.count()}, {"hash", hash(b)}}},
           {"features", {{"name", f.name}, {"hash", f.hash}, {"dimension", f.dimension}}},
           {"frechet_distance", frechet},
           {"kid",
            {{"mean", kid.mean},
             {"standard_error", kid.standard_error},
             {"subsets", s.subsets},
             {"subset_size", size},
             {"seed", s.seed}}},
           {"precision", near.precision},
           {"recall", near.recall},
           {"density", near.density},
           {"coverage", near.coverage},
           {"k", s.k}};
  if (f.probabilities)
    out["inception_score"] =
        ms::inception_score(f.probabilities(b.span(), b.extents), f.classes);
  if (!s.likelihood.empty())
    out["likelihood"] = likelihood(s, backend, *c.model, a);
  if (const auto n = std::min(a.count(), b.count()); n < 10'000)
    std::fprintf(stderr,
                 "evaluate: %lld pictures in the smaller set; the Frechet distance is biased "
                 "upwards below 10000\n",
                 static_cast<long long>(n));
  if (s.as_json) {
    std::cout << out.dump(1, ' ', false, json::error_handler_t::replace)
              << '\n';  // a path may be any bytes
    return;
  }
  const auto line = [](const char* name, const std::string& text) {
    std::printf("%-20s %s\n", name, text.c_str());
  };
  const auto number = [](double v, const char* format = "%.4f") {
    char text[64];
    std::snprintf(text, sizeof text, format, v);
    return std::string(text);
  };
  for (const char* set : {"reference", "generated"})
    line(set, out[set]["path"].get<std::string>() + ", " +
                  std::to_string(out[set]["n"].get<ms::index_t>()) + " pictures, hash " +
                  out[set]["hash"].get<std::string>());
  line("features", f.name + ", " + std::to_string(f.dimension) + " values, hash " + f.hash);
  line("Frechet distance", number(out["frechet_distance"]));
  line("KID", number(kid.mean, "%.5g") + " +- " + number(kid.standard_error, "%.2g") + " (" +
                  std::to_string(s.subsets) + " subsets of " + std::to_string(size) +
                  ", seed " + std::to_string(s.seed) + ")");
  for (const char* name : {"precision", "recall", "density", "coverage"})
    line(name, number(out[name]));
  if (out.contains("inception_score"))
    line("Inception score", number(out["inception_score"]));
  if (out.contains("likelihood"))
    line("bits per value", number(out["likelihood"]["bits_per_value"]) + " +- " +
                               number(out["likelihood"]["standard_error"]) + " (" +
                               std::to_string(out["likelihood"]["n"].get<ms::index_t>()) +
                               " pictures of the reference, seed " + std::to_string(s.seed) +
                               ")");
}

int evaluate(const settings& s, ms::process_group world) {
  const ms::cpu backend(s.threads);
  std::optional<compared_sets> c;
  ms::together(world, [&] { c.emplace(opened(s, backend, world)); });
  ms::require_same(world, "evaluate: features", c->f.name + ", hash " + c->f.hash);
  c->x = features_of("reference", c->f, c->a, world);
  c->y = features_of("generated", c->f, c->b, world);
  c->a = at_rank_0(world, std::move(c->a));
  c->b = at_rank_0(world, std::move(c->b));
  ms::progress bar("neighbourhoods");
  bar.show(0, "");
  const auto near = ms::neighbourhoods(c->x, c->y, c->f.dimension, s.k, world);
  bar.end();
  ms::together(world, [&] {
    if (world.rank() == 0)
      report(s, backend, *c, near);
  });
  return 0;
}

/// What draws pictures of a checkpoint.
struct drawing {
  const host_models& files;
  const named_sampler& sampler;
  ms::any_model model;
  ms::sampling_options options;
  std::optional<ms::latent_decoder> decoder{};

  /// Extents of its pictures.
  ms::shape pictures(ms::index_t n) const {
    return decoder ? decoder->extents(model.images(n)) : model.images(n);
  }
  /// Of the pictures of all seeds, this process's share. @param as_bytes whether values are
  /// those that bytes would keep
  ms::io::image_set operator()(bool as_bytes, ms::index_t& evaluations) const {
    ms::progress bar("drawing");
    ms::sampling_options told = options;
    told.observer = [&](const ms::sampling_step& step) {
      bar.show(double(step.batch_first) / double(options.seeds.size()), "");
      return true;
    };
    const ms::sampling_result r = sampler.draw(files.walker(), model, told);
    evaluations = std::accumulate(r.evaluations.begin(), r.evaluations.end(), ms::index_t{0});
    const ms::process_group& world = options.processes;
    const auto own = ms::share_of(r.extents.rows, world.rank(), world.size());
    const ms::index_t size = r.extents.row_size();
    const auto first = r.images.begin() + own.begin * size;
    std::vector<double> values(first, first + own.size() * size);
    if (decoder)
      values = (*decoder)(values, model.images(own.size()));
    ms::io::image_set drawn{{}, pictures(own.size())};
    for (const double v : values)
      drawn.values.push_back(as_bytes ? float(ms::io::to_byte(v)) / 127.5f - 1 : float(v));
    return drawn;
  }
};

/// The checkpoint with what it is told; classes that nobody names are drawn by each seed.
drawing drawing_of(const settings& s,
                   const host_models& files,
                   const named_sampler& sampler,
                   const ms::process_group& world) {
  drawing draw{files, sampler, files.load(s.generated), s.sampling};
  sampler.check_for(draw.model);
  draw.options.seeds = s.seeds;
  draw.options.processes = world;
  if (draw.model.label_dim(ms::input_slot::class_labels) > 0 &&
      !draw.options.class_label.any()) {
    draw.options.class_label = "random";
    if (world.rank() == 0)
      std::fprintf(stderr, "evaluate: classes are drawn at random; --labels names some\n");
  }
  if (!s.autoencoder.empty())
    draw.decoder = files.load_decoder(s.autoencoder, draw.model);
  return draw;
}

/// The real pictures, or latents, of the extents that are drawn. @throws shape_error
ms::image_source reference_for(const settings& s, const ms::shape& drawn) {
  ms::image_source reference =
      ms::one_draw_each(ms::io::open_images(s.reference, s.reference_rule));
  if (drawn.channels == 1)
    reference = ms::io::with_channels(s.reference, reference, 1);
  const bool latents = reference.kind != ms::image_values::pictures;
  const bool same = reference.extents.height == drawn.height &&
                    reference.extents.width == drawn.width &&
                    reference.extents.channels == drawn.channels;
  ms::require<ms::shape_error>(
      same || (s.features == "inception" && !latents && drawn.channels <= 3),
      "evaluate: pictures of ", reference.extents, ", the model draws ", drawn,
      s.autoencoder.empty() ? "; latents are drawn as pictures with --autoencoder" : "");
  return reference;
}

/// What a curve is measured with.
struct curve_inputs {
  drawing draw;
  ms::feature_extractor f;
  bool as_bytes;  // the reference has pictures
  ms::index_t reference_count;
  ms::io::image_set reference;  // this process's share
};
/// Opens it. @throws whatever does not fit, before the work begins
curve_inputs opened_for_curve(const settings& s,
                              named_sampler& sampler,
                              const host_models& files,
                              const ms::process_group& world) {
  sampler.check();
  for (const int n : s.steps)
    sampler.set_steps(n);  // a number that the sampler refuses is said before the work begins
  if (world.rank() == 0)
    ms::io::check_writable(s.out);
  drawing draw = drawing_of(s, files, sampler, world);
  const ms::image_source reference = reference_for(s, draw.pictures(1));
  return {std::move(draw), extractor(s, files.walker(), reference.extents),
          reference.kind == ms::image_values::pictures, reference.extents.rows,
          own_share(reference, world)};
}

/// How good a model's pictures are by the number of evaluations.
int curve(const settings& s, named_sampler& sampler, ms::process_group world) {
  const host_models files(s.backend, s.threads);
  std::optional<curve_inputs> in;
  ms::together(world, [&] { in.emplace(opened_for_curve(s, sampler, files, world)); });
  const ms::feature_extractor& f = in->f;
  ms::require_same(world, "evaluate: features", f.name + ", hash " + f.hash);
  const std::vector<double> x = features_of("reference", f, in->reference, world);
  ms::io::curve line{sampler.name(), {}, {}, ms::io::stage_colour(0)};
  json rows = json::array();
  for (const int n : s.steps) {
    sampler.set_steps(n);
    ms::index_t evaluations = 0;
    const ms::io::image_set drawn = in->draw(in->as_bytes, evaluations);
    const std::vector<double> y = features_of("drawn", f, drawn, world);
    if (world.rank() != 0)
      continue;
    const double distance = ms::frechet_distance(x, y, f.dimension);
    line.x.push_back(double(evaluations));
    line.y.push_back(distance);
    rows.push_back(
        {{"steps", n}, {"evaluations", evaluations}, {"frechet_distance", distance}});
    if (!s.as_json)
      std::printf("%6d steps %6lld evaluations   Frechet distance %.4f\n", n,
                  static_cast<long long>(evaluations), distance);
  }
  if (world.rank() != 0)
    return 0;
  const std::string what = std::to_string(in->draw.options.seeds.size()) + " of " +
                           std::to_string(in->reference_count) + " pictures, " + f.name;
  ms::io::line_chart({line}, "Frechet distance: " + what, "evaluations of a picture",
                     "Frechet distance", true, true)
      .save(s.out);
  if (s.as_json)
    std::cout << json{{"model", s.generated},
                      {"autoencoder", s.autoencoder},
                      {"sampler", sampler.options(in->draw.model, in->draw.options)},
                      {"seeds", s.seeds},
                      {"reference", {{"path", s.reference}, {"n", in->reference_count}}},
                      {"features", {{"name", f.name}, {"hash", f.hash}}},
                      {"curve", rows}}
                     .dump(1, ' ', false, json::error_handler_t::replace)
              << '\n';
  else
    std::printf("written: %s\n", s.out.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  named_sampler sampler("evaluate");
  CLI::App app{
      "Frechet distance, KID, precision, recall, density and coverage of two sets of pictures"};
  app.add_option("REFERENCE", s.reference, "real pictures")->required();
  app.add_option("GENERATED", s.generated, "pictures to judge; with --steps a checkpoint")
      ->required();
  app.add_option("--features", s.features, "what is compared")
      ->check(CLI::IsMember({"pixels", "random", "inception"}))
      ->capture_default_str();
  app.add_option("--inception", s.inception,
                 "Inception's weights, made by convert_checkpoint.py");
  app.add_option("--k", s.k, "neighbours of precision and recall")
      ->check(CLI::Range(1, 100))
      ->capture_default_str();
  app.add_option("--kid-subsets", s.subsets, "random subsets for KID's standard error")
      ->check(CLI::Range(2, 10000))
      ->capture_default_str();
  app.add_option("--kid-size", s.subset_size, "their size")
      ->check(CLI::Range(2, 1000000))
      ->capture_default_str();
  app.add_option("--seed", s.seed,
                 "of the subsets, of random features, of the likelihood's signs")
      ->check(command_line::seed_number())
      ->capture_default_str();
  add_image_options(app, s.reference_rule, "reference");
  add_image_options(app, s.generated_rule, "generated");
  app.add_option("--likelihood", s.likelihood,
                 "a checkpoint: also how likely it finds the reference");
  app.add_option("--likelihood-images", s.likelihood_images, "how many of its pictures")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command_line::add_backend(app, s.backend, s.threads);
  app.add_flag("--json", s.as_json, "print JSON");
  const CLI::Option* steps =
      app.add_option("--steps", s.steps,
                     "of a checkpoint's pictures, like 5,10,20,50: quality by evaluations")
          ->delimiter(',')
          ->check(CLI::Range(1, 1000000));
  const CLI::Option* seeds =
      app.add_option("--seeds", s.seeds, "with --steps: what is drawn")->capture_default_str();
  const CLI::Option* out = app.add_option("--out", s.out, "with --steps: a .png of the curve")
                               ->capture_default_str();
  const CLI::Option* autoencoder = app.add_option(
      "--autoencoder", s.autoencoder, "with --steps: decodes the latents that are drawn");
  sampler.add_options(app, {"num_steps", "levels"});
  return command_line::run(app, argc, argv, [&](ms::process_group world) {
    if (steps->count() > 0) {
      ms::together(world, [&] {
        command_line::require_png("--out", s.out);
        sampler.set(s.sampling, false);
      });
      return curve(s, sampler, world);
    }
    ms::together(world, [&] {
      ms::require<ms::value_error>(
          seeds->count() == 0 && out->count() == 0 && autoencoder->count() == 0 &&
              app.count("--backend") == 0 && !sampler.given(),
          "evaluate: --seeds, --out, --backend, --autoencoder, --sampler and the options of "
          "what is drawn go with --steps; pictures that are there already are not drawn");
    });
    return evaluate(s, world);
  });
}
