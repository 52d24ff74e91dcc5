// The claims of arXiv 2312.09181 measured in miniature: reproduce OUT --experiment FILE --scale
// NAME --data FOLDER [--table N] [--hours H]. Trains every arm of an experiment with every
// seed, and writes OUT/report.html and OUT/evidence.md with tables, intervals and figures. What
// is stopped goes on with the same command. Any number of processes may work in one OUT at a
// time (--worker: without a page at the end); each takes cells that nobody works on.
// examples/reproduce.sh does all of it: sets up, builds, makes data, starts a process a
// processor.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <multistage/io.hpp>
#include <multistage/multistage.hpp>
#include <multistage/runs.hpp>
// what stands before decides the backend
#include <multistage/evidence.hpp>

#include "command_line.hpp"
#include "quickstart_origin.hpp"

namespace ms = multistage;

namespace {

struct settings {
  std::string out;
  std::string file;
  std::string scale = "quick";
  std::string data = ".";
  std::string table;
  std::string inception;
  double hours = 0;
  int threads = 1;
  bool worker = false;
  bool page = false;
  bool list = false;
};

/// The experiment that is asked for.
ms::experiment experiment_of(const settings& s) {
  ms::experiment e = ms::read_experiment(s.file, s.scale, s.data);
  if (!s.table.empty())
    e = ms::with_tables(std::move(e), {s.table});
  if (s.hours > 0)
    for (ms::arm& a : e.arms)
      a.teraflops *= s.hours / e.hours;
  return e;
}

/// Every arm with what it costs, and how much there is of it.
int list(const settings& s, const ms::experiment& e) {
  double all = 0;
  for (const ms::cell& c : ms::cells_of(e))
    all += c.share * e.arm_of(c.arm_name).teraflops;
  for (const ms::arm& a : e.arms) {
    const ms::arm_data data(ms::cpu(s.threads), a, s.out, s.inception);
    const ms::described_network network = ms::record(data.config().model);
    std::printf("%-24s %5.2f million parameters, MMAC an image", a.name.c_str(),
                double(ms::parameters_of(network.structure)) / 1e6);
    for (const double macs : ms::macs_by_stage(network.structure))
      std::printf(" %.2f", macs / 1e6);
    std::printf(", %.3g TFLOP\n", a.teraflops);
  }
  std::printf("%zu cells, %.3g TFLOP of forward passes\n", ms::cells_of(e).size(), all);
  return 0;
}

int reproduce(const settings& s, const ms::experiment& e, const quickstart_origin& origin) {
  if (s.list)
    return list(s, e);
  std::size_t refused = 0;
  if (!s.page) {
    ms::cell_worker<ms::cpu> worker(ms::cpu(s.threads), e, s.out, s.inception);
    if (const int signal = worker.work(); signal != 0) {
      if (!s.worker)
        std::printf("stopped with %.0f %% done; the same command goes on\n",
                    100 * worker.share_done());
      return 128 + signal;
    }
    refused = worker.refused().size();
  }
  if (s.worker)
    return refused > 0 ? 2 : 0;
  const ms::experiment_results results(e, s.out);
  ms::write_page(results, {{"experiment", std::filesystem::path(s.file).filename().string()},
                           {"scale", e.scale},
                           {"machine", origin.machine},
                           {"compiler", origin.compiler},
                           {"commit", origin.commit}});
  std::printf("%s/report.html, %s/evidence.md\n", s.out.c_str(), s.out.c_str());
  if (refused > 0)
    std::fprintf(stderr, "%zu arms could not be made: see the warnings above\n", refused);
  return refused > 0 ? 2 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Trains and compares ways to train, with intervals"};
  app.add_option("OUT", s.out, "the folder that holds everything")->required();
  app.add_option("--experiment", s.file, "arms, seeds and tables (examples/reproduce.json)")
      ->required();
  app.add_option("--scale", s.scale, "which of the file's scales")->capture_default_str();
  app.add_option("--data", s.data, "folder that the file's paths of data begin from");
  app.add_option("--table", s.table, "one table, and the cells that it needs");
  app.add_option("--hours", s.hours, "budgets in the ratio of so many hours to the file's own")
      ->check(CLI::Range(1e-6, 1e6));
  app.add_option("--inception", s.inception,
                 "file of Inception's weights, for a distance more");
  app.add_option("--threads", s.threads, "of this process")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_flag("--worker", s.worker, "works on cells and writes no page");
  app.add_flag("--page", s.page, "writes the page of what there is by now, and ends");
  app.add_flag("--list", s.list, "prints the arms and what they cost, and ends");
  return command_line::run(app, argc, argv, [&] {
    if (s.worker)
      ms::progress::silence();
    return reproduce(s, experiment_of(s), quickstart_origin_of(argc, argv));
  });
}
