// Finds the stages of a data set: cluster DATA [--method M] [--stages N] [--alpha A]
// [--schedule S] [--out DIR] ... Prints boundaries in sigma and in the schedule's t, with
// intervals, and writes clustering.json, similarity.png and curves.png. Latents are compared by
// a tolerance of their own scale. Processes that mpirun starts share the images out.
#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <multistage/data/draw_moments.hpp>
#include <multistage/data/shared_images.hpp>
#include <multistage/io.hpp>
#include <multistage/multistage.hpp>
#include <multistage/stages/interval_clustering.hpp>
#include <multistage/stages/shared_optimal_denoiser.hpp>

#include "command_line.hpp"
#include "image_options.hpp"

namespace ms = multistage;
using json = ms::io::json;

namespace {

struct settings {
  std::string data;
  std::string autoencoder;
  std::string method = "optimal_denoiser";
  std::string weigh = "nodes";
  std::string schedule = "vp";
  std::string out = "clustering";
  int stages = 3;
  int nodes = 41;
  int replicates = 200;
  int threads = 0;
  ms::index_t limit = 0;
  ms::io::image_rule images;
  ms::clustering_options clustering;
  std::set<std::string> given;  // which of them were
};

void write_picture(const std::string& path, const ms::io::canvas& c) {
  c.save(path);
  std::printf("written: %s\n", path.c_str());
}

/// Images as latent ones, held in memory: they are small.
ms::image_source encoded(const ms::image_source& images,
                         const std::string& file,
                         const ms::cpu& backend,
                         std::vector<float>& to) {
  auto model = ms::io::load_autoencoder<float>(file, backend);
  constexpr ms::index_t batch = 8;
  ms::shape extents = model.latents(images.extents.rows);
  ms::progress bar("encoding");
  for (ms::index_t first = 0; first < images.extents.rows; first += batch) {
    const ms::index_t n = std::min(batch, images.extents.rows - first);
    std::vector<float> host(std::size_t(n * images.extents.row_size()));
    images.read_block(first, n, host.data());
    ms::shape some = images.extents;
    some.rows = n;
    const ms::tensor<float, ms::cpu> x(backend, some, host);
    ms::tensor<float, ms::cpu> z(backend, model.latents(n));
    model.encode(x.view(), z.view());
    const auto values = z.to_host();
    to.insert(to.end(), values.begin(), values.end());
    bar.show(double(first + n) / double(images.extents.rows), "");
  }
  bar.end();
  ms::image_source latents = ms::image_source::of(std::span<const float>(to), extents);
  latents.kind = ms::image_values::latents;
  return latents;
}

/// Standard deviation of the values of all processes' images. @param images this process's
double deviation_of(const ms::image_source& images, ms::process_group world) {
  const ms::io::image_set own = ms::io::read_all(images);
  std::array<double, 3> sums{double(own.values.size()), 0, 0};
  for (const double v : own.values)
    sums[1] += v, sums[2] += v * v;
  std::array<double, 3> all{};
  const auto gathered = ms::all_gather(world, std::span<const double>(sums));
  for (std::size_t i = 0; i < gathered.size(); ++i)
    all[i % 3] += gathered[i];
  const double mean = all[1] / all[0];
  return std::sqrt(std::max(all[2] / all[0] - mean * mean, 0.0));
}

/// What was given, and of latents what fits them.
ms::clustering_options clustering_for(const settings& s,
                                      const ms::image_source& images,
                                      const ms::process_group& world) {
  ms::clustering_options o = s.clustering;
  const bool chosen = s.given.count("compare") > 0 || s.given.count("threshold") > 0;
  const bool pictures = images.kind == ms::image_values::pictures && !s.images.latents;
  return chosen || pictures ? o : ms::for_latents(o, deviation_of(images, world));
}

/// Opens the data set; this process's share of its images, encoded where that is asked for.
/// What does not fit is said before the work begins. @param latents holds what is encoded
ms::image_source opened(const settings& s,
                        const ms::cpu& backend,
                        const ms::process_group& world,
                        std::vector<float>& latents) {
  ms::require<ms::value_error>(
      s.method != "optimal_denoiser" || s.stages == 3,
      "cluster: Algorithm 1 makes three stages; use --method n_stage for ", s.stages);
  ms::require<ms::value_error>(s.method != "n_stage" || s.stages <= s.nodes,
                               "cluster: ", s.stages, " stages of ", s.nodes,
                               " nodes; give as many --nodes at least");
  ms::require<ms::value_error>(s.method == "n_stage" || s.given.count("weigh") == 0,
                               "cluster: --weigh is of --method n_stage; --method ", s.method,
                               " has no weights");
  ms::require<ms::value_error>(s.limit != 1,
                               "cluster: --limit 1 leaves one image, whose denoisers are all "
                               "alike; give 2 or more, or 0 for all");
  ms::image_source images = ms::one_draw_each(ms::io::open_images(s.data, s.images));
  if (world.rank() == 0) {
    ms::io::make_directory(s.out);
    for (const char* name : {"/clustering.json", "/similarity.png", "/curves.png"})
      ms::io::check_writable(s.out + name);
  }
  if (s.limit > 0)
    images.extents.rows = std::min(images.extents.rows, s.limit);
  images = own_rows(images, world);
  return s.autoencoder.empty() ? images : encoded(images, s.autoencoder, backend, latents);
}

template <class Schedule>
int cluster(const settings& s, const Schedule& schedule, ms::process_group world) {
  const ms::cpu backend(s.threads);
  std::vector<float> latents;
  ms::image_source images;
  ms::together(world, [&] { images = opened(s, backend, world, latents); });
  const ms::posterior_mean_of<double, ms::cpu> best(backend, images, world);
  const ms::shape e = best.extents();
  std::printf("%lld images of %lld x %lld x %lld\n", static_cast<long long>(e.rows),
              static_cast<long long>(e.height), static_cast<long long>(e.width),
              static_cast<long long>(e.channels));
  ms::clustering_options o = clustering_for(s, images, world);
  o.sigma_min = std::max(o.sigma_min, schedule.sigma(schedule.t_min()));
  o.sigma_max = std::min(o.sigma_max, schedule.sigma(schedule.t_max()));
  const double t_min = schedule.t(o.sigma_min);
  const double t_max = schedule.t(o.sigma_max);
  json out{{"data", s.data},
           {"method", s.method},
           {"schedule", s.schedule},
           {"images", e.rows},
           {"sigma_min", o.sigma_min},
           {"sigma_max", o.sigma_max},
           {"seed", s.clustering.seed},
           {"compare", ms::to_string(o.what)},
           {"threshold", o.threshold}};
  ms::clustering_options few = o;
  few.draws = std::min<ms::index_t>(o.draws, 256);
  const ms::similarity_figure f =
      ms::similarity_between_times(backend, best, s.nodes, few, schedule);

  std::vector<double> times;
  std::optional<ms::io::canvas> curves;
  if (s.method == "optimal_denoiser") {
    const ms::clustering c = ms::cluster_by_optimal_denoiser(backend, best, o, schedule);
    times = {c.t1, c.t2};
    const ms::boundary_intervals b =
        ms::bootstrap_boundaries(c, s.clustering.alpha, s.replicates, s.clustering.seed);
    std::printf(
        "95 %% intervals: t1 in [%.4g, %.4g] (standard error %.2g), t2 in [%.4g, %.4g] "
        "(%.2g)\n",
        b.t1_low, b.t1_high, b.t1_error, b.t2_low, b.t2_high, b.t2_error);
    out["alpha"] = s.clustering.alpha;
    out["draws"] = s.clustering.draws;
    out["intervals_t"] = {{b.t1_low, b.t1_high}, {b.t2_low, b.t2_high}};
    out["standard_errors_t"] = {b.t1_error, b.t2_error};
    out["intervals_sigma"] = {{schedule.sigma(b.t1_low), schedule.sigma(b.t1_high)},
                              {schedule.sigma(b.t2_low), schedule.sigma(b.t2_high)}};
    curves = ms::io::line_chart(
        {{"lowest, up to t", c.time, c.mean_low, ms::io::stage_colour(0)},
         {"highest, from t", c.time, c.mean_high, ms::io::stage_colour(1)},
         {"alpha",
          {t_min, t_max},
          {s.clustering.alpha, s.clustering.alpha},
          ms::io::canvas::grey}},
        "Similarity of optimal denoisers to both ends", "t", "share of values alike", false);
  } else if (s.method == "n_stage") {
    const auto weight = s.weigh == "nodes" ? ms::stage_weight::nodes : ms::stage_weight::one;
    const auto choices =
        ms::choose_stage_count(f.matrix, std::max(s.stages, std::min(8, s.nodes)), weight);
    std::printf("stages  objective  mean similarity inside\n");
    for (const auto& c : choices)
      std::printf("%6d  %9.4f  %.4f%s\n", c.stages, c.objective, c.mean,
                  c.stages == s.stages ? "  <- asked for" : "");
    for (const auto cut : choices[std::size_t(s.stages) - 1].cuts)
      times.push_back(0.5 * (f.times[std::size_t(cut) - 1] + f.times[std::size_t(cut)]));
    json table = json::array();
    for (const auto& c : choices)
      table.push_back({{"stages", c.stages}, {"objective", c.objective}, {"mean", c.mean}});
    out["weigh"] = s.weigh;
    out["stage_counts"] = table;
  } else {
    constexpr ms::index_t n = 1000;
    const auto first = s.method == "timestep"
                           ? ms::cluster_by_timestep(n, s.stages)
                           : ms::cluster_by_snr(n, s.stages, schedule, t_min, t_max);
    for (std::size_t k = 1; k < first.size(); ++k)
      times.push_back(t_min + (t_max - t_min) * double(first[k]) / double(n));
  }
  const ms::partition stages = ms::partition::from_times(schedule, times);
  std::printf("%-6s %-28s %-28s\n", "stage", "t", "sigma");
  for (int k = 0; k < stages.stage_count(); ++k)
    std::printf("%-6d (%.4g, %.4g]%*s (%.4g, %.4g]\n", k,
                k == 0 ? t_min : times[std::size_t(k) - 1],
                k + 1 < stages.stage_count() ? times[std::size_t(k)] : t_max, 8, "",
                std::max(stages.lower(k), o.sigma_min), std::min(stages.upper(k), o.sigma_max));
  out["similarity"] = {{"times", f.times},
                       {"matrix", f.matrix},
                       {"standard_errors", f.standard_errors},
                       {"draws", few.draws}};
  out["boundaries_t"] = times;
  out["stage_boundaries"] = stages.boundaries();
  ms::together(world, [&] {
    if (world.rank() != 0)
      return;
    // The path of the data may be any bytes; JSON is UTF-8.
    ms::io::write_file(s.out + "/clustering.json",
                       out.dump(1, ' ', false, json::error_handler_t::replace) + "\n");
    std::printf("written: %s/clustering.json\n", s.out.c_str());
    if (curves)
      write_picture(s.out + "/curves.png", *curves);
    write_picture(s.out + "/similarity.png",
                  ms::io::heat_map(f.matrix, f.times, times, "Similarity of optimal denoisers",
                                   "t", f.sigmas));
  });
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Finds the stages of a data set by how alike its optimal denoisers are"};
  app.add_option("DATA", s.data,
                 "an npy or npz array, IDX, CIFAR-10's .bin or a folder of them, or a folder "
                 "of PNG, JPEG or WebP pictures")
      ->required();
  app.add_option("--method", s.method, "how")
      ->check(CLI::IsMember({"optimal_denoiser", "n_stage", "timestep", "snr"}))
      ->capture_default_str();
  CLI::Option* const weigh =
      app.add_option("--weigh", s.weigh,
                     "n_stage: what a stage counts: its nodes, or one whatever they are, as "
                     "the paper has it")
          ->check(CLI::IsMember({"nodes", "one"}))
          ->capture_default_str();
  app.add_option("--schedule", s.schedule, "whose times are used")
      ->check(CLI::IsMember({"vp", "sub_vp", "ve", "cosine", "edm", "flow"}))
      ->capture_default_str();
  app.add_option("--stages", s.stages, "how many")
      ->check(CLI::Range(1, 8))
      ->capture_default_str();
  command_line::named_options of_clustering;
  of_clustering.add(app, s.clustering);
  app.add_option("--nodes", s.nodes, "times of the similarity matrix")
      ->check(CLI::Range(2, 1000))
      ->capture_default_str();
  app.add_option("--replicates", s.replicates, "of the bootstrap")
      ->check(CLI::Range(20, 100000))
      ->capture_default_str();
  add_image_options(app, s.images);
  app.add_flag("--latents", s.images.latents,
               "floats of an array are latent images, which may leave [-1, 1]");
  app.add_option("--autoencoder", s.autoencoder,
                 "encodes the pictures; what is clustered are their latents");
  app.add_option("--limit", s.limit, "use so many of the first images, at least 2; 0: all")
      ->check(CLI::Range(ms::index_t{0}, ms::index_t{1} << 40))
      ->capture_default_str();
  app.add_option("--seed", s.clustering.seed)
      ->check(command_line::seed_number())
      ->capture_default_str();
  app.add_option("--threads", s.threads, "0: one a processor that may be used")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--out", s.out, "directory for clustering.json and the pictures")
      ->capture_default_str();
  return command_line::run(app, argc, argv, [&](ms::process_group world) {
    ms::together(world, [&] {
      of_clustering.set("cluster", s.clustering);
      const std::vector<std::string> given = of_clustering.given();
      s.given = {given.begin(), given.end()};
      if (weigh->count() > 0)
        s.given.insert("weigh");
      ms::check(s.clustering);
    });
    if (s.schedule == "sub_vp")
      return cluster(s, ms::sub_vp_schedule{}, world);
    if (s.schedule == "ve")
      return cluster(s, ms::ve_schedule{}, world);
    if (s.schedule == "cosine")
      return cluster(s, ms::cosine_schedule{}, world);
    if (s.schedule == "edm")
      return cluster(s, ms::edm_schedule{}, world);
    if (s.schedule == "flow")
      return cluster(s, ms::flow_schedule{}, world);
    return cluster(s, ms::vp_schedule{}, world);
  });
}
