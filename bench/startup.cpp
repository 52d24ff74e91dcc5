// How long from the start of a process to a model in memory: startup [--network NAME] [--lazy]
// [--repeats N] Writes a checkpoint, then starts itself that many times; each process loads the
// checkpoint and ends. Prints a JSON line: the process's whole time, and what reading the file
// once takes ("one read": into memory taken for it, the file in the page cache either way),
// best of the repeats.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <multistage/io.hpp>

#include "machine_peak.hpp"
#include "networks.hpp"

namespace ms = multistage;

namespace {

void load(const std::string& path, bool lazy) {
  auto model = ms::load<float>(path, ms::cpu(), {.lazy = lazy});
  ms::require<ms::error>(model.parameter_count() > 0, "startup: an empty model");
}

/// Starts this program again to load `path`, and waits for its end.
void run_once(const std::string& path, bool lazy) {
  const pid_t child = ::fork();
  ms::require<ms::error>(child >= 0, "startup: cannot start a process");
  if (child == 0) {
    ::execl("/proc/self/exe", "startup", "--load", path.c_str(), lazy ? "--lazy" : nullptr,
            nullptr);
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ms::require<ms::error>(status == 0, "startup: the process that loads failed");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"From the start of a process to a model in memory, in milliseconds"};
  std::string name = "edm_cifar10_multistage";
  std::string path;
  int repeats = 10;
  bool lazy = false;
  app.add_option("--network", name)
      ->check(CLI::IsMember(bench::network_names))
      ->capture_default_str();
  app.add_option("--repeats", repeats)->check(CLI::Range(1, 1000))->capture_default_str();
  app.add_flag("--lazy", lazy, "read a stage's weights when it is first used: here none");
  app.add_option("--load", path, "only load this checkpoint, and end");
  CLI11_PARSE(app, argc, argv);
  return ms::exit_status([&] {
    if (!path.empty()) {
      load(path, lazy);
      return 0;
    }
    const std::string file =
        (std::filesystem::temp_directory_path() /
         ("multistage_startup_" + std::to_string(::getpid()) + ".safetensors"))
            .string();
    struct remover {
      const std::string& file;
      ~remover() {
        std::filesystem::remove(file);
      }
    } remove{file};
    {
      const ms::configuration c = bench::network(name);
      ms::dynamic_model<float, ms::cpu> model(ms::cpu(), c, bench::stages_of(c), 1);
      ms::save(file, model);
    }
    run_once(file, lazy);  // the file is in the page cache
    const double process = bench::seconds_of(repeats, [&] { run_once(file, lazy); });
    const double read = bench::seconds_of(repeats, [&] { ms::io::read_file(file); });
    std::printf(
        "{\"network\": \"%s\", \"lazy\": %s, \"megabytes\": %.1f, \"start_to_model_ms\": %.2f, "
        "\"one_read_ms\": %.2f}\n",
        name.c_str(), lazy ? "true" : "false", double(std::filesystem::file_size(file)) * 1e-6,
        process * 1e3, read * 1e3);
    return 0;
  });
}
