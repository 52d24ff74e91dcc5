// Compares two sets of pictures: evaluate REFERENCE GENERATED [--features
// pixels|random|inception] [--inception FILE] [--json] ... Sets are anything that `cluster`
// reads; grey pictures compare with grey ones, also where a file has them as colours. What is
// printed says with how many pictures, which features (with the hash of their weights) and
// which seeds. With --likelihood MODEL, also how likely a model finds the first pictures of the
// reference. With --steps 5,10,20,50, GENERATED is a checkpoint: how good its pictures are by
// the number of evaluations, as a table and as a curve in --out.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <multistage/io.hpp>
#include <multistage/metrics/feature_extractor.hpp>
#include <multistage/metrics/features.hpp>
#include <multistage/metrics/frechet_distance.hpp>
#include <multistage/multistage.hpp>
#include <numeric>

#include "image_options.hpp"
#include "named_sampler.hpp"

namespace ms = multistage;
using json = ms::io::json;

namespace {

struct settings {
  std::string reference;
  std::string generated;
  std::string features = "pixels";
  std::string inception;
  std::string likelihood;
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

/// Rows of features of a set, block by block.
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

int evaluate(const settings& s) {
  const ms::cpu backend(s.threads);
  // What does not fit is said before the work begins.
  std::optional<model_type> model;
  ms::feature_extractor f;
  ms::io::image_set a;
  ms::io::image_set b;
  {
    const picture_pair p = open_pictures(s);
    for (const auto* images : {&p.reference, &p.generated})
      ms::require<ms::value_error>(images->extents.rows > s.k,
                                   "evaluate: ", images->extents.rows, " pictures in ",
                                   images == &p.reference ? s.reference : s.generated,
                                   "; with --k ", s.k, " at least ", s.k + 1, " are needed");
    if (!s.likelihood.empty()) {
      model.emplace(ms::load<float>(s.likelihood, backend));
      asked_about(s, *model, p.reference.extents);
    }
    f = extractor(s, backend, p.reference.extents);
    ms::progress bar("reading");
    a = ms::io::read_all(p.reference, [&](double share) { bar.show(share / 2, s.reference); });
    b = ms::io::read_all(p.generated,
                         [&](double share) { bar.show(0.5 + share / 2, s.generated); });
  }
  const std::vector<double> x = features_of("reference", f, a);
  const std::vector<double> y = features_of("generated", f, b);
  ms::progress bar("distances");
  bar.show(0, "Frechet");
  const double frechet = ms::frechet_distance(x, y, f.dimension);
  bar.show(0.3, "neighbourhoods");
  const auto near = ms::neighbourhoods(x, y, f.dimension, s.k);
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
    out["likelihood"] = likelihood(s, backend, *model, a);
  if (const auto n = std::min(a.count(), b.count()); n < 10'000)
    std::fprintf(stderr,
                 "evaluate: %lld pictures in the smaller set; the Frechet distance is biased "
                 "upwards below 10000\n",
                 static_cast<long long>(n));
  if (s.as_json) {
    std::cout << out.dump(1, ' ', false, json::error_handler_t::replace)
              << '\n';  // a path may be any bytes
    return 0;
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
  return 0;
}

/// What a model draws of the seeds, as bytes would keep it.
ms::io::image_set drawn_pictures(const settings& s,
                                 const named_sampler& sampler,
                                 model_type& model,
                                 ms::index_t& evaluations) {
  ms::sampling_options options{.seeds = s.seeds};
  if (model.label_dim(ms::input_slot::class_labels) > 0)
    options.class_label = "random";
  ms::progress bar("drawing");
  options.observer = [&](const ms::sampling_step& step) {
    bar.show(double(step.batch_first) / double(options.seeds.size()), "");
    return true;
  };
  const ms::sampling_result r = sampler.draw(model, options);
  evaluations = std::accumulate(r.evaluations.begin(), r.evaluations.end(), ms::index_t{0});
  ms::io::image_set pictures{{}, r.extents};
  for (const double v : r.images)
    pictures.values.push_back(float(ms::io::to_byte(v)) / 127.5f - 1);
  return pictures;
}

/// How good a model's pictures are by the number of evaluations.
int curve(const settings& s, named_sampler& sampler) {
  const ms::cpu backend(s.threads);
  sampler.check();
  for (const int n : s.steps)
    sampler.set_steps(n);  // a number that the sampler refuses is said before the work begins
  ms::io::check_writable(s.out);
  model_type model = ms::load<float>(s.generated, backend);
  ms::image_source reference = ms::io::open_images(s.reference, s.reference_rule);
  if (model.images(1).channels == 1)
    reference = ms::io::with_channels(s.reference, reference, 1);
  ms::require<ms::shape_error>(
      model.images(reference.extents.rows) == reference.extents || s.features == "inception",
      "evaluate: pictures of ", reference.extents, ", the model draws ", model.images(1));
  const ms::feature_extractor f = extractor(s, backend, reference.extents);
  const ms::io::image_set real = ms::io::read_all(reference);
  const std::vector<double> x = features_of("reference", f, real);
  ms::io::curve line{sampler.name(), {}, {}, ms::io::stage_colour(0)};
  json rows = json::array();
  for (const int n : s.steps) {
    sampler.set_steps(n);
    ms::index_t evaluations = 0;
    const ms::io::image_set pictures = drawn_pictures(s, sampler, model, evaluations);
    const std::vector<double> y = features_of("drawn", f, pictures);
    const double distance = ms::frechet_distance(x, y, f.dimension);
    line.x.push_back(double(evaluations));
    line.y.push_back(distance);
    rows.push_back(
        {{"steps", n}, {"evaluations", evaluations}, {"frechet_distance", distance}});
    if (!s.as_json)
      std::printf("%6d steps %6lld evaluations   Frechet distance %.4f\n", n,
                  static_cast<long long>(evaluations), distance);
  }
  const std::string what = std::to_string(ms::seed_list(s.seeds).size()) + " of " +
                           std::to_string(real.count()) + " pictures, " + f.name;
  ms::io::line_chart({line}, "Frechet distance: " + what, "evaluations of a picture",
                     "Frechet distance", true, true)
      .save(s.out);
  if (s.as_json)
    std::cout << json{{"model", s.generated},
                      {"sampler", sampler.options(model)},
                      {"seeds", s.seeds},
                      {"reference", {{"path", s.reference}, {"n", real.count()}}},
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
  app.add_option("--threads", s.threads, "0: one a processor that may be used")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
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
  sampler.add_options(app, {"num_steps", "levels"});
  return command_line::run(app, argc, argv, [&] {
    if (steps->count() > 0)
      return curve(s, sampler);
    ms::require<ms::value_error>(seeds->count() == 0 && out->count() == 0 && !sampler.given(),
                                 "evaluate: --seeds, --out, --sampler and its options go with "
                                 "--steps; pictures that are "
                                 "there already are not drawn");
    return evaluate(s);
  });
}
