// Where the time of a network goes, and how near it is to what the machine can do: for every
// operation and shape (or every node) milliseconds, GFLOP/s and GB/s, and both as shares of the
// machine's measured peaks. Convolutions count the multiply-accumulates of the direct form, so
// that Winograd's may pass 100 %. And a bound: the time if every product ran at the peak of
// multiply-adds, 3x3 ones with the 36 multiplications a tile of Winograd's F(4x4, 3x3), or at
// the speed of memory reading its weights once, whichever is longer; nothing else counted.
//   profile [--network NAME] [--batch N] [--stage S] [--train] [--threads N] [--nodes] [--top
//   N]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <multistage/multistage.hpp>

#include "machine_peak.hpp"
#include "networks.hpp"

namespace ms = multistage;

namespace {

int from_channels(const ms::graph& g, const ms::node& n) {
  return g.nodes[std::size_t(n.in[0])].out().channels;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Seconds and shares of the machine's peaks by operation and shape of a network, sorted"};
  std::string name = "edm_cifar10_multistage";
  ms::index_t batch = 4;
  int stage = 0;
  int threads = 0;
  int top = 25;
  int repeats = 5;
  bool train = false;
  bool nodes = false;
  app.add_option("--network", name)
      ->check(CLI::IsMember(bench::network_names))
      ->capture_default_str();
  app.add_option("--batch", batch)->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--stage", stage)->check(CLI::Range(0, 2))->capture_default_str();
  app.add_option("--threads", threads)->capture_default_str();
  app.add_option("--repeats", repeats, "passes to average over")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_flag("--nodes", nodes, "every node by itself");
  app.add_option("--top", top, "lines to print")->capture_default_str();
  app.add_flag("--train", train, "forward and backward");
  CLI11_PARSE(app, argc, argv);
  return ms::exit_status([&] {
    const ms::configuration config = bench::network(name);
    ms::cpu b(threads);
    ms::dynamic_model<float, ms::cpu> model(b, config, bench::stages_of(config), 1);
    const ms::shape images = model.images(batch);
    const ms::tensor<double, ms::cpu> x(b, images,
                                        std::vector<double>(std::size_t(images.size()), 0.3));
    const std::vector<double> sigmas(std::size_t(batch), bench::sigma_in(stage));
    const auto r = model.route(sigmas);
    const auto in = model.prepare(x.data(), sigmas, r).inputs;
    ms::tensor<float, ms::cpu> gradients(b, model.weights().extents()), out(b, images);
    auto& engine = model.engine();
    const bench::machine_peak peak = bench::measure_peak(b);
    const float* const weights = model.weights().data();
    const auto pass = [&] {
      if (train)
        engine.differentiate(weights, gradients.data(), in, r.rows_by_stage,
                             [&](int, ms::index_t, ms::index_t n, const float* f, float* df) {
                               std::copy_n(f, n * images.row_size(), df);
                             });
      else
        engine.forward(
            weights, in, r.rows_by_stage, out.data(),
            1);  // one state of the weights, as in sampling: what is prepared from them is kept
    };
    pass();
    struct entry {
      double seconds = 0;
      ms::index_t macs = 0;
      ms::index_t bytes = 0;
      ms::index_t steps = 0;
    };
    std::map<std::pair<std::string, ms::step_kind>, entry> best;
    const auto label = [&](const ms::node& n) {
      if (nodes)
        return n.weight >= 0 ? model.parameter_names()[std::size_t(n.weight)]
                             : std::string(name_of(n.what));
      const ms::extent from =
          n.in[0] >= 0 ? model.network().nodes[std::size_t(n.in[0])].out() : ms::extent{};
      const int second = n.in[1] >= 0 && !n.is<ms::ops::softmax_attention>()
                             ? model.network().nodes[std::size_t(n.in[1])].out().channels
                             : 0;
      char text[96];
      const auto* conv = n.as<ms::ops::convolution>();
      std::snprintf(text, sizeof text, "%s %s%d -> %d at %dx%d", name_of(n.what),
                    conv ? (conv->window.kernel == 3 ? "3x3 " : "1x1 ") : "",
                    from.channels + second, n.out().channels, n.out().height, n.out().width);
      return std::string(text);
    };
    std::map<std::string, double> by_kind;
    const ms::graph& g = model.network();
    double total = 0;
    double bound = 0;
    engine.observer = [&](int node, ms::step_kind kind, double s) {
      const ms::node& n = g.nodes[std::size_t(node)];
      entry& e = best[{label(n), kind}];
      e.seconds += s / repeats;
      ++e.steps;
      e.macs += n.facts.macs * batch * (kind == ms::step_kind::backward ? 2 : 1);
      ms::index_t values = n.out().size() * batch;
      ms::for_each_input(
          n, [&](int v, int) { values += g.nodes[std::size_t(v)].out().size() * batch; });
      if (n.weight >= 0)
        values += g.parameters[std::size_t(n.weight)].size();
      e.bytes += values * 4;
      ms::index_t products = n.facts.macs * batch;
      const auto* conv = n.as<ms::ops::convolution>();
      if (conv && conv->window.kernel == 3 && conv->window.stride == 1 &&
          from_channels(g, n) >= 8) {
        const ms::index_t tiles = ms::divide_up(ms::index_t{n.out().height}, 4) *
                                  ms::divide_up(ms::index_t{n.out().width}, 4) * batch;
        products = 36 * tiles * from_channels(g, n) * n.out().channels;
      }
      const double weights =
          n.weight >= 0 ? 4e-9 * double(g.parameters[std::size_t(n.weight)].size()) : 0;
      if (kind != ms::step_kind::remake)
        bound += (kind == ms::step_kind::backward ? 2 : 1) *
                 std::max(2e-9 * double(products) / peak.fma_gflop_per_s,
                          weights / peak.read_gb_per_s) /
                 repeats;
      by_kind[std::string(name_of(n.what)) + (kind == ms::step_kind::backward ? ", backward"
                                              : kind == ms::step_kind::remake ? ", again"
                                                                              : "")] +=
          s / repeats;
      total += s / repeats;
    };
    for (int i = 0; i < repeats; ++i)
      pass();
    std::vector<std::pair<std::pair<std::string, ms::step_kind>, entry>> sorted(best.begin(),
                                                                                best.end());
    std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b_) {
      return a.second.seconds > b_.second.seconds;
    });
    std::printf("%.3f ms in all; seconds by kind of node:\n", total * 1e3);
    for (const auto& [kind, s] : by_kind)
      std::printf("  %-24s %9.3f ms %5.1f %%\n", kind.c_str(), s * 1e3, 100 * s / total);
    std::printf(
        "peaks: %.0f GFLOP/s, %.1f GB/s read (%d threads); bound: %.3f ms, which is %.0f %% of "
        "what it took\n",
        peak.fma_gflop_per_s, peak.read_gb_per_s, peak.threads, bound * 1e3,
        100 * bound / total);
    std::printf("%-44s %-9s %5s %9s %6s %9s %6s %8s %6s\n", nodes ? "node" : "operation",
                "pass", "count", "ms", "%", "GFLOP/s", "peak%", "GB/s", "peak%");
    for (int i = 0; i < std::min(top, int(sorted.size())); ++i) {
      const auto& [key, e] = sorted[std::size_t(i)];
      const double gflops = 2e-9 * double(e.macs) / repeats / e.seconds;
      const double gbs = 1e-9 * double(e.bytes) / repeats / e.seconds;
      std::printf("%-44s %-9s %5lld %9.3f %6.1f %9.1f %6.0f %8.1f %6.0f\n", key.first.c_str(),
                  key.second == ms::step_kind::backward ? "backward"
                  : key.second == ms::step_kind::remake ? "again"
                                                        : "forward",
                  static_cast<long long>(e.steps / repeats), e.seconds * 1e3,
                  100 * e.seconds / total, gflops, 100 * gflops / peak.fma_gflop_per_s, gbs,
                  100 * gbs / peak.read_gb_per_s);
    }
    return 0;
  });
}
