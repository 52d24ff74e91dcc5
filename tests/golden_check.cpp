// golden_check FILE_OR_DIRECTORY... [--backend NAME]: rebuilds each golden case from the file's
// configuration alone, on every backend that was built, and holds all outputs, losses and
// gradients against the file.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "golden/algorithms.hpp"
#include "golden/augment.hpp"
#include "golden/averages.hpp"
#include "golden/edm_unet.hpp"
#include "golden/raw_networks.hpp"
#include "golden/sampling.hpp"
#ifdef MULTISTAGE_TEST_THRUST
#include <multistage/thrust.hpp>
#endif
#ifdef __CUDACC__
#include <multistage/cuda.hpp>
#else
#include <multistage/eigen.hpp>
#include <multistage/multistage.hpp>

#include "compiled.hpp"
#endif

namespace {

template <class Backend>
golden::outputs run(const golden::golden_case& g, Backend backend) {
  if (g.family == "edm_unet")
    return golden::run_edm_unet(g, backend);
  if (g.family == "ncsnpp" || g.family == "ldm_unet")
    return golden::run_raw_network(g, backend);
  if (g.family == "autoencoder")
    return golden::run_autoencoder(g, backend);
  if (g.family == "samplers")
    return golden::run_samplers(g, backend);
  if (g.family == "schedules")
    return golden::run_schedules(g);
  if (g.family == "losses")
    return golden::run_losses(g);
  if (g.family == "metrics")
    return golden::run_metrics(g);
  if (g.family == "random")
    return golden::run_random(g, backend);
  if (g.family == "ema")
    return golden::run_ema(g, backend);
  if (g.family == "augment")
    return golden::run_augment(g);
  if (g.family == "clustering" && g.file.contains("input.images"))
    return golden::run_optimal_denoiser(g, backend);
  if (g.family == "clustering" && g.config.contains("matrices"))
    return golden::run_n_stage(g);
  if (g.family == "clustering" && g.config.contains("size_limits"))
    return golden::run_interval_programme(g);
  multistage::fail<multistage::value_error>("family '", g.family, "', case '", g.name,
                                            "' is not supported by this library yet");
}

template <class Backend>
bool check(const std::string& path, Backend backend) {
  try {
    const golden::golden_case g(path);
    const golden::outputs got = run(g, backend);
    const golden::verdict v = golden::compare(g, got, true);
    const bool ok = v.compared > 0 && v.failed == 0 && v.missing == 0;
    std::printf("%s %s/%s on %s: %d outputs, worst %.2g of what is allowed (%s)%s\n",
                ok ? "ok  " : "FAIL", g.family.c_str(), g.name.c_str(),
                std::string(Backend::name).c_str(), v.compared, v.worst, v.worst_name.c_str(),
                v.compared == 0 ? "; nothing was compared" : "");
    return ok;
  } catch (const std::exception& e) {
    std::printf("FAIL %s on %s: %s\n", path.c_str(), std::string(Backend::name).c_str(),
                e.what());
    return false;
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Holds the library against golden data"};
  std::vector<std::string> paths;
  std::string only;
  app.add_option("paths", paths, "golden files, or directories of them")->required();
  app.add_option("--backend", only,
                 "run on this backend alone: cpu, eigen, thrust (all its systems), thrust_cpp, "
                 "thrust_omp");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }

  std::vector<std::string> files;
  for (const auto& p : paths) {
    if (!std::filesystem::exists(p)) {
      std::fprintf(stderr, "golden_check: %s does not exist\n", p.c_str());
      return 2;
    }
    if (!std::filesystem::is_directory(p))
      files.push_back(p);
    else
      for (const auto& e : std::filesystem::recursive_directory_iterator(p))
        if (e.path().extension() == ".safetensors")
          files.push_back(e.path().string());
  }
  std::sort(files.begin(), files.end());
  int passed = 0;
  int failed = 0;
  bool any = false;
  const auto on = [&](auto backend) {
    // "thrust" means all of its systems
    const std::string name(decltype(backend)::name);
    if (!only.empty() && only != name && name.rfind(only + "_", 0) != 0)
      return;
    any = true;
    for (const auto& f : files)
      check(f, backend) ? ++passed : ++failed;
  };
#ifdef __CUDACC__
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no GPU here");
    return 77;  // skipped, to ctest
  }
  on(multistage::cuda());
#else
  on(multistage::cpu());
#ifndef MULTISTAGE_TEST_CPU_ALONE
  on(multistage::eigen());
#endif
#endif
#ifdef MULTISTAGE_TEST_THRUST
  on(multistage::thrust_cpp());
#ifdef _OPENMP
  on(multistage::thrust_omp());
#endif
#endif
  if (!any) {
    std::fprintf(stderr, "golden_check: backend '%s' is not built\n", only.c_str());
    return 2;
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
