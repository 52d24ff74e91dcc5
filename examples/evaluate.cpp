// Compares two sets of pictures: evaluate REFERENCE GENERATED [--json] [--k K] [--kid-subsets N --kid-size N]
// Sets are anything that `cluster` reads. Features are pixels.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <multistage/io.hpp>
#include <multistage/metrics/features.hpp>
#include <multistage/metrics/frechet_distance.hpp>

namespace ms = multistage;
using json = ms::io::json;

int main(int argc, char** argv) {
  std::string reference, generated;
  bool as_json = false;
  int k = 3, subsets = 20;
  ms::index_t subset_size = 500;
  std::uint64_t seed = 0;
  double largest = 0;
  CLI::App app{"Frechet distance, KID, precision, recall, density and coverage of two sets of pictures, over pixels"};
  app.add_option("REFERENCE", reference, "real pictures")->required();
  app.add_option("GENERATED", generated, "pictures to judge")->required();
  app.add_option("--k", k, "neighbours of precision and recall")->check(CLI::Range(1, 100))->capture_default_str();
  app.add_option("--kid-subsets", subsets, "random subsets for KID's standard error")->check(CLI::Range(2, 10000))->capture_default_str();
  app.add_option("--kid-size", subset_size, "their size")->check(CLI::Range(2, 1000000))->capture_default_str();
  app.add_option("--seed", seed, "of the subsets")->capture_default_str();
  app.add_option("--reference-largest", largest, "value of white where the reference is an array of integers; 0: 255")->capture_default_str();
  app.add_flag("--json", as_json, "print JSON");
  CLI11_PARSE(app, argc, argv);
  return ms::exit_status([&] {
    const ms::io::image_set a = ms::io::read_images(reference, largest), b = ms::io::read_images(generated);
    ms::require<ms::shape_error>(a.extents.row_size() == b.extents.row_size(), "evaluate: pictures of ", a.extents, " and ", b.extents, " cannot be compared");
    const ms::index_t d = a.extents.row_size();
    const std::vector<double> x = a.as_double(), y = b.as_double();
    const auto near = ms::neighbourhoods(x, y, d, k);
    const auto kid = ms::kid_in_blocks(x, y, d, subsets, std::min({subset_size, a.count(), b.count()}), seed);
    const json out{{"reference", {{"path", reference}, {"n", a.count()}}},
                   {"generated", {{"path", generated}, {"n", b.count()}}},
                   {"features", "pixels"},
                   {"dimension", d},
                   {"frechet_distance", ms::frechet_distance(x, y, d)},
                   {"kid", kid.mean},
                   {"kid_standard_error", kid.standard_error},
                   {"precision", near.precision},
                   {"recall", near.recall},
                   {"density", near.density},
                   {"coverage", near.coverage},
                   {"k", k},
                   {"seed", seed}};
    if (std::min(a.count(), b.count()) < 10'000)
      std::fprintf(stderr, "evaluate: %lld pictures in the smaller set; the Frechet distance is biased upwards below 10000\n",
                   static_cast<long long>(std::min(a.count(), b.count())));
    if (as_json) {
      std::cout << out.dump(1) << '\n';
      return 0;
    }
    std::printf("%-20s %s (%lld pictures)\n%-20s %s (%lld pictures)\n%-20s pixels, %lld values\n", "reference", reference.c_str(),
                static_cast<long long>(a.count()), "generated", generated.c_str(), static_cast<long long>(b.count()), "features", static_cast<long long>(d));
    std::printf("%-20s %.4f\n%-20s %.5g +- %.2g\n", "Frechet distance", out["frechet_distance"].get<double>(), "KID", kid.mean, kid.standard_error);
    std::printf("%-20s %.4f\n%-20s %.4f\n%-20s %.4f\n%-20s %.4f\n", "precision", near.precision, "recall", near.recall, "density", near.density, "coverage",
                near.coverage);
    return 0;
  });
}
