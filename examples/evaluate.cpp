// Compares two sets of pictures: evaluate REFERENCE GENERATED [--features pixels|random|inception] [--inception FILE] [--json] ...
// Sets are anything that `cluster` reads. What is printed says with how many pictures, which features (with the hash of their weights) and which seeds.
// With --likelihood MODEL, also how likely a model finds the first pictures of the reference.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <multistage/io.hpp>
#include <multistage/metrics/feature_extractor.hpp>
#include <multistage/metrics/features.hpp>
#include <multistage/metrics/frechet_distance.hpp>
#include <multistage/multistage.hpp>

namespace ms = multistage;
using json = ms::io::json;

namespace {

struct settings {
  std::string reference, generated, features = "pixels", inception, likelihood;
  bool as_json = false;
  int k = 3, subsets = 20, threads = 0;
  ms::index_t subset_size = 500, likelihood_images = 16;
  std::uint64_t seed = 0;
  double largest = 0;
};

ms::feature_extractor extractor(const settings& s, const ms::cpu& backend, const ms::shape& images) {
  if (s.features == "pixels") return ms::pixel_features(images);
  if (s.features == "random") return ms::random_features(backend, images, s.seed);
  ms::require<ms::value_error>(!s.inception.empty(),
                               "evaluate: --features inception needs --inception FILE; examples/convert_checkpoint.py inception makes it");
  const ms::io::mapped_file file(s.inception);
  return ms::inception_features(ms::io::load_inception(s.inception, backend), ms::fingerprint(file.bytes()));
}

/// Bits per value of pictures under a model: mean and standard error.
json likelihood(const settings& s, const ms::cpu& backend, const ms::io::image_set& images) {
  auto model = ms::load<float>(s.likelihood, backend);
  const ms::index_t n = std::min(s.likelihood_images, images.count());
  ms::shape some = images.extents;
  some.rows = n;
  ms::require<ms::shape_error>(some == model.images(n), "evaluate: pictures are ", some, ", the model's are ", model.images(n));
  const std::vector<double> values(images.values.begin(), images.values.begin() + some.size());
  const ms::tensor<double, ms::cpu> x(backend, some, values);
  std::vector<double> sigmas(std::size_t(n), 0.0);
  const auto at = [&](double sigma) -> const std::vector<double>& { return std::fill(sigmas.begin(), sigmas.end(), sigma), sigmas; };
  const auto l = ms::log_likelihood(
      model.backend(), x.view(), ms::probability_flow{.tolerance = {1e-4, 1e-4}},
      [&](ms::view<const double> y, double sigma, ms::view<double> d) { model.denoise(y, at(sigma), d); },
      [&](ms::view<const double> y, double sigma, ms::view<const double> v, ms::view<double> jv) { model.denoise_transposed(y, at(sigma), v, jv); }, s.seed);
  double mean = 0, square = 0;
  for (const double b : l.bits_per_value) mean += b / double(n);
  for (const double b : l.bits_per_value) square += (b - mean) * (b - mean);
  return {{"bits_per_value", mean}, {"standard_error", n > 1 ? std::sqrt(square / double(n - 1) / double(n)) : 0.0}, {"n", n}, {"evaluations", l.evaluations}};
}

int evaluate(const settings& s) {
  const ms::cpu backend(s.threads);
  const ms::io::image_set a = ms::io::read_images(s.reference, {s.largest}), b = ms::io::read_images(s.generated);
  ms::require<ms::shape_error>(s.features == "inception" || a.extents.row_size() == b.extents.row_size(), "evaluate: pictures of ", a.extents, " and ",
                               b.extents, " cannot be compared over ", s.features, "; Inception resizes them");
  const ms::feature_extractor f = extractor(s, backend, a.extents);
  const std::vector<double> x = f.features(a.span(), a.extents), y = f.features(b.span(), b.extents);
  const auto near = ms::neighbourhoods(x, y, f.dimension, s.k);
  const ms::index_t size = std::min({s.subset_size, a.count(), b.count()});
  const auto kid = ms::kid_in_blocks(x, y, f.dimension, s.subsets, size, s.seed);
  const auto hash = [](const ms::io::image_set& i) { return ms::fingerprint_of(i.span()); };
  json out{{"reference", {{"path", s.reference}, {"n", a.count()}, {"hash", hash(a)}}},
           {"generated", {{"path", s.generated}, {"n", b.count()}, {"hash", hash(b)}}},
           {"features", {{"name", f.name}, {"hash", f.hash}, {"dimension", f.dimension}}},
           {"frechet_distance", ms::frechet_distance(x, y, f.dimension)},
           {"kid", {{"mean", kid.mean}, {"standard_error", kid.standard_error}, {"subsets", s.subsets}, {"subset_size", size}, {"seed", s.seed}}},
           {"precision", near.precision},
           {"recall", near.recall},
           {"density", near.density},
           {"coverage", near.coverage},
           {"k", s.k}};
  if (f.probabilities) out["inception_score"] = ms::inception_score(f.probabilities(b.span(), b.extents), f.classes);
  if (!s.likelihood.empty()) out["likelihood"] = likelihood(s, backend, a);
  if (const auto n = std::min(a.count(), b.count()); n < 10'000)
    std::fprintf(stderr, "evaluate: %lld pictures in the smaller set; the Frechet distance is biased upwards below 10000\n", static_cast<long long>(n));
  if (s.as_json) {
    std::cout << out.dump(1) << '\n';
    return 0;
  }
  const auto line = [](const char* name, const std::string& text) { std::printf("%-20s %s\n", name, text.c_str()); };
  const auto number = [](double v, const char* format = "%.4f") {
    char text[64];
    std::snprintf(text, sizeof text, format, v);
    return std::string(text);
  };
  for (const char* set : {"reference", "generated"})
    line(set, out[set]["path"].get<std::string>() + ", " + std::to_string(out[set]["n"].get<ms::index_t>()) + " pictures, hash " +
                  out[set]["hash"].get<std::string>());
  line("features", f.name + ", " + std::to_string(f.dimension) + " values, hash " + f.hash);
  line("Frechet distance", number(out["frechet_distance"]));
  line("KID", number(kid.mean, "%.5g") + " +- " + number(kid.standard_error, "%.2g") + " (" + std::to_string(s.subsets) + " subsets of " +
                  std::to_string(size) + ", seed " + std::to_string(s.seed) + ")");
  for (const char* name : {"precision", "recall", "density", "coverage"}) line(name, number(out[name]));
  if (out.contains("inception_score")) line("Inception score", number(out["inception_score"]));
  if (out.contains("likelihood"))
    line("bits per value", number(out["likelihood"]["bits_per_value"]) + " +- " + number(out["likelihood"]["standard_error"]) + " (" +
                               std::to_string(out["likelihood"]["n"].get<ms::index_t>()) + " pictures of the reference, seed " + std::to_string(s.seed) + ")");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Frechet distance, KID, precision, recall, density and coverage of two sets of pictures"};
  app.add_option("REFERENCE", s.reference, "real pictures")->required();
  app.add_option("GENERATED", s.generated, "pictures to judge")->required();
  app.add_option("--features", s.features, "what is compared")->check(CLI::IsMember({"pixels", "random", "inception"}))->capture_default_str();
  app.add_option("--inception", s.inception, "Inception's weights, made by convert_checkpoint.py");
  app.add_option("--k", s.k, "neighbours of precision and recall")->check(CLI::Range(1, 100))->capture_default_str();
  app.add_option("--kid-subsets", s.subsets, "random subsets for KID's standard error")->check(CLI::Range(2, 10000))->capture_default_str();
  app.add_option("--kid-size", s.subset_size, "their size")->check(CLI::Range(2, 1000000))->capture_default_str();
  app.add_option("--seed", s.seed, "of the subsets, of random features, of the likelihood's signs")->capture_default_str();
  app.add_option("--reference-largest", s.largest, "value of white where the reference is an array of integers; 0: 255")->capture_default_str();
  app.add_option("--likelihood", s.likelihood, "a checkpoint: also how likely it finds the reference");
  app.add_option("--likelihood-images", s.likelihood_images, "how many of its pictures")->check(CLI::Range(1, 1000000))->capture_default_str();
  app.add_option("--threads", s.threads, "0: one a core")->check(CLI::Range(0, 1024))->capture_default_str();
  app.add_flag("--json", s.as_json, "print JSON");
  CLI11_PARSE(app, argc, argv);
  return ms::exit_status([&] { return evaluate(s); });
}
