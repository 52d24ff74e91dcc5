// Table 3 of arXiv 2312.09181: one network in its arrangements, side by side. What each costs
// is read off its description; nothing is trained.
//   architectures [--network edm|vp|celeba|imagenet] [--steps N] [--batch N] [--budget GMACs]
#include <CLI/CLI.hpp>
#include <cstdio>
#include <multistage/diffusion/paper_models.hpp>
#include <multistage/multistage.hpp>
#include <multistage/networks/tailor_decoders.hpp>

#include "command_line.hpp"

namespace ms = multistage;
namespace paper = multistage::paper;

namespace {

/// How many of a Heun sampler's evaluations fall into each stage.
std::vector<double> evaluations(const ms::partition& stages, int steps) {
  std::vector<double> count(std::size_t(stages.stage_count()), 0.0);
  const auto sigmas = ms::edm_heun{.num_steps = steps}.sigmas();
  for (int i = 0; i < steps; ++i) {
    count[stages.stage(sigmas[i])] += 1;
    if (sigmas[i + 1] > 0)
      count[stages.stage(sigmas[i + 1])] += 1;
  }
  return count;
}

template <class Net>
void row(const char* name,
         const Net& net,
         const ms::decoders& d,
         std::vector<double> share,
         ms::index_t batch) {
  const ms::described_network n = ms::record(net, d);
  const auto bytes = [&](bool training, bool checkpoint) {
    return double(ms::make_plan(n.structure, {.training = training, .checkpoint = checkpoint})
                      .arena_elements(batch)) *
           4 / 1e6;
  };
  std::string macs;
  double average = 0;
  double total = 0;
  for (int s = 0; s < d.stage_count(); ++s) {
    const double g = double(ms::cost_of_stage(n.structure, s).macs) / 1e9;
    char text[32];
    std::snprintf(text, sizeof text, "%s%.2f", s ? " / " : "", g);
    macs += text;
    const double w = d.stage_count() == 1 ? 1 : share[s];
    average += w * g;
    total += w;
  }
  std::printf("%-34s %10.2f  %-26s %8.2f %10.1f %10.1f %12.1f\n", name,
              double(ms::parameters_of(n.structure)) / 1e6, macs.c_str(), average / total,
              bytes(false, false), bytes(true, false), bytes(true, true));
}

template <class Net>
void table(Net net,
           int unified_width,
           const ms::decoders& tailored,
           const ms::partition& stages,
           int steps,
           ms::index_t batch,
           double budget) {
  const auto share = evaluations(stages, steps);
  std::printf("evaluations of EDM's Heun sampler with %d steps by stage:", steps);
  for (const double n : share)
    std::printf(" %g", n);
  std::printf("\n%-34s %10s  %-26s %8s %10s %10s %12s\n", "arrangement", "parameters",
              "GMACs by stage", "average", "sampling", "training", "checkpointed");
  std::printf("%-34s %10s  %-26s %8s %10s %10s %12s\n", "", "/ 10^6", "", "", "MB", "MB", "MB");
  Net one = net;
  one.encoder_channels = unified_width;
  const int n = stages.stage_count();
  ms::decoders equal;
  ms::decoders same = tailored;
  for (int s = 0; s < n; ++s)
    equal.widths[s] = unified_width;
  same.shared_encoder = false;
  row("unified", one, {.widths = {unified_width}}, share, batch);
  ms::decoders apart = equal;
  apart.shared_encoder = false;
  row("separate", one, apart, share, batch);
  row("separate, tailored (TP)", net, same, share, batch);
  row("shared encoder, equal (ES)", one, equal, share, batch);
  row("multi-decoder (ES and TP)", net, tailored, share, batch);
  // A small network where there is much noise, a large one where there is little (T-Stitch):
  // separate networks of two widths.
  ms::decoders stitch{.shared_encoder = false};
  for (int s = 0; s < n; ++s)
    stitch.widths[s] = s == n - 1 ? unified_width / 64 * 32 : unified_width;  // groups of 32
  row("stitched: half width at the top", one, stitch, share, batch);
  if (budget > 0) {
    ms::tailoring t{.budget = budget * 1e9, .shares = share};
    const auto fit = ms::tailor_decoders(net, t);
    std::string name = "tailored to the budget:";
    for (int s = 0; s < n; ++s)
      name += " " + std::to_string(fit.stages.widths[s]);
    row(name.c_str(), net, fit.stages, share, batch);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "One network in its arrangements: parameters, multiply-accumulates, activation memory"};
  std::string network = "edm";
  int steps = 18;
  ms::index_t batch = 1;
  double budget = 0;
  app.add_option("--network", network, "edm, vp, celeba or imagenet")
      ->check(CLI::IsMember({"edm", "vp", "celeba", "imagenet"}))
      ->capture_default_str();
  app.add_option("--steps", steps, "steps of the sampler over which MACs are averaged")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--batch", batch, "images in a batch, for memory")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--budget", budget, "average GMACs an image to tailor decoders to");
  return command_line::run(app, argc, argv, [&] {
    // The paper's boundaries t = 0.442 and 0.631 (CIFAR-10), as noise levels of its VP
    // schedule.
    const ms::vp_schedule vp;
    const ms::partition stages({vp.sigma(0.442), vp.sigma(0.631)});
    if (network == "edm")
      table(paper::edm_32, 128, paper::pixels, stages, steps, batch, budget);
    if (network == "vp")
      table(paper::vp_32, 128, paper::pixels, stages, steps, batch, budget);
    if (network == "celeba")
      table(paper::celeba_256, 224, paper::latents, stages, steps, batch, budget);
    if (network == "imagenet")
      table(paper::imagenet_256(224), 256, paper::latents, stages, steps, batch, budget);
    return 0;
  });
}
