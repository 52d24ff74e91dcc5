// Makes an average of a run's weights of any length, after training: average FILE... --std 0.1
// --out MODEL. The files are snapshots or checkpoints of one run that kept averages by power
// functions (train --average-stds 0.05,0.1; Karras et al., arXiv 2312.02696, section 3).
#include <CLI/CLI.hpp>
#include <cstdio>
#include <multistage/io.hpp>
#include <multistage/multistage.hpp>
#include <multistage/training/average_series.hpp>

#include "command_line.hpp"

namespace ms = multistage;

int main(int argc, char** argv) {
  CLI::App app{"Makes an average of the weights of any length from snapshots of a run"};
  std::vector<std::string> paths;
  double relative_std = 0.1;
  std::string out;
  app.add_option("snapshots", paths, "snapshots or checkpoints of one run, the last one last")
      ->required();
  app.add_option("--std", relative_std, "relative standard deviation of the average's profile")
      ->capture_default_str();
  app.add_option("--out", out, "where the model goes")->required();
  return command_line::run(app, argc, argv, [&] {
    auto model = ms::load(paths.back(), ms::cpu());
    const auto counted = ms::average_of_series(paths, relative_std, model);
    ms::save(out, model);
    for (const ms::snapshot_average& a : counted)
      std::printf("%s, %s: %.3f of the shared part\n", paths[a.file].c_str(),
                  a.name.empty() ? "the model" : a.name.c_str(), a.count[0]);
    std::printf("%s: the average of std %g\n", out.c_str(), relative_std);
    return 0;
  });
}
