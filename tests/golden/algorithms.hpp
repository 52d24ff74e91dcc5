// Golden families random and clustering.
#pragma once
#include <multistage/library.hpp>
#include <multistage/stages/interval_clustering.hpp>
#include <multistage/stages/n_stage.hpp>

#include "golden_case.hpp"

namespace golden {

namespace ms = multistage;

/// One block of Philox a row, as every backend's device function computes it.
struct philox_rows {
  const std::int64_t* counter;
  const std::int64_t* key;
  double* words;
  double* uniform;
  double* normal;
  MULTISTAGE_HD void operator()(ms::index_t i) const {
    const std::int64_t* c = counter + 4 * i;
    const std::int64_t* k = key + 2 * i;
    const ms::philox_block b = ms::philox4x32_10(
        {{std::uint32_t(c[0]), std::uint32_t(c[1]), std::uint32_t(c[2]), std::uint32_t(c[3])}},
        std::uint32_t(k[0]), std::uint32_t(k[1]));
    // The same block by way of a stream: counter words 0 and 1 count blocks, 2 and 3 name the
    // stream, the key is the seed.
    const std::uint64_t block =
        std::uint64_t(std::uint32_t(c[0])) | std::uint64_t(std::uint32_t(c[1])) << 32;
    const ms::random_stream s(
        std::uint64_t(std::uint32_t(k[0])) | std::uint64_t(std::uint32_t(k[1])) << 32,
        std::uint64_t(std::uint32_t(c[2])) | std::uint64_t(std::uint32_t(c[3])) << 32);
    const bool fits = block < (std::uint64_t{1} << 62);
    const ms::philox_block own = s.block(block);
    for (int l = 0; l < 4; ++l) {
      words[4 * i + l] = b.word[l];
      uniform[4 * i + l] = ms::random_stream::to_uniform(own.word[l]);
      if (fits)
        normal[4 * i + l] = s.normal(4 * block + l);
      else {  // elements end at 2^64: Box-Muller on the block itself
        const double radius =
            ::sqrt(-2 * ::log(ms::random_stream::to_uniform(b.word[l / 2 * 2])));
        const double angle =
            6.283185307179586477 * ms::random_stream::to_uniform(b.word[l / 2 * 2 + 1]);
        normal[4 * i + l] = l % 2 == 0 ? radius * ::sin(angle) : radius * ::cos(angle);
      }
    }
  }
};

template <class Backend>
outputs run_random(const golden_case& g, Backend backend) {
  const auto counter = g.input<std::int64_t>("counter");
  const auto key = g.input<std::int64_t>("key");
  const ms::index_t n = ms::index_t(counter.size()) / 4;
  const ms::tensor<std::int64_t, Backend> c(backend, {n, 1, 1, 4}, counter),
      k(backend, {n, 1, 1, 2}, key);
  ms::tensor<double, Backend> words(backend, {n, 1, 1, 4}), uniform(backend, {n, 1, 1, 4}),
      normal(backend, {n, 1, 1, 4});
  backend.for_each_index(
      n, philox_rows{c.data(), k.data(), words.data(), uniform.data(), normal.data()});
  return {{"output.words", words.to_host()},
          {"output.uniform", uniform.to_host()},
          {"output.normal", normal.to_host()}};
}

template <class Backend>
outputs run_optimal_denoiser(const golden_case& g, Backend backend) {
  outputs got;
  const ms::vp_schedule schedule{g.config.at("beta_min"), g.config.at("beta_max")};
  const double threshold = g.config.at("threshold");
  const auto& e = g.file.entry("input.images").extents;
  const ms::tensor<double, Backend> images(backend, {e.at(0), 1, 1, e.at(1)},
                                           g.input("images"));
  const ms::optimal_denoiser<double, Backend> denoiser(backend, images.view());
  ms::similarity_draws<double> draws{
      g.input<ms::index_t>("index"), g.input("t"), g.input("noise"), {0}};
  ms::end_similarity ends{};
  for (const auto& [what, name] :
       {std::pair{ms::compared::noise, "noise"}, std::pair{ms::compared::image, "denoised"}}) {
    const auto s =
        ms::similarity_to_ends(backend, denoiser, schedule, draws, what, threshold, 1.0);
    got[std::string("output.") + name + ".distance_to_0"] = s.to_low;
    got[std::string("output.") + name + ".distance_to_1"] = s.to_high;
    if (what == ms::compared::noise)
      ends = s;
  }
  for (const auto& [alpha, want] : g.config.at("boundaries_for_alpha").items()) {
    const ms::clustering c = ms::boundaries_from_similarity(draws.time, ends, std::stod(alpha));
    const double t1 = want.at(0);
    const double t2 = want.at(1);
    if (std::fabs(c.t1 - t1) > 1e-12 || std::fabs(c.t2 - t2) > 1e-12)
      ms::fail<ms::numeric_error>("boundaries for alpha ", alpha, " are ", c.t1, ", ", c.t2,
                                  ", expected ", want.dump());
  }
  if (g.config.contains("similarity_matrix")) {
    const std::size_t n = g.config["similarity_matrix"].at("draws");
    const std::size_t size = draws.noise.size() / draws.image.size();
    draws.image.resize(n);
    draws.time.resize(n);
    draws.noise.resize(n * size);
    got["output.similarity_matrix"] =
        ms::similarity_matrix(backend, denoiser, schedule, g.input("nodes"), draws,
                              ms::compared::image, threshold, true)
            .matrix;
  }
  return got;
}

inline outputs run_n_stage(const golden_case& g) {
  outputs got;
  for (const auto& [k, e] : g.file.tensors()) {
    const std::string end = ".cuts";
    if (k.rfind("output.", 0) != 0 || k.size() < end.size() ||
        k.compare(k.size() - end.size(), end.size(), end) != 0)
      continue;
    const std::string q = k.substr(7, k.size() - 7 - end.size());
    const std::string name = q.substr(0, q.find('.'));
    const int stages = q.find("stages") != std::string::npos
                           ? std::stoi(q.substr(q.find("stages") + 6))
                           : g.config.at("matrices").at(name).at("stages").get<int>();
    const ms::n_stage_result r = ms::n_stage_partition(g.input(name), stages);
    got[k] = std::vector<double>(r.cuts.begin(), r.cuts.end());
    got["output." + q + ".optimum"] = {r.objective};
  }
  return got;
}

inline outputs run_interval_programme(const golden_case& g) {
  outputs got;
  for (const auto& [k, e] : g.file.tensors()) {
    if (k.rfind("output.", 0) != 0)
      continue;
    const std::size_t dot = k.find('.', 7);
    const std::size_t second = k.find('.', dot + 1);
    const std::string kind = k.substr(7, dot - 7);
    const ms::index_t n = std::stoll(k.substr(dot + 2));
    const int clusters = std::stoi(k.substr(second + 2));
    std::vector<ms::index_t> first;
    if (kind == "timestep")
      first = ms::cluster_by_timestep(n, clusters);
    else if (kind == "snr")
      first = ms::cluster_by_snr(n, clusters);
    else
      first = ms::cluster_by_gradient(g.input(k.substr(7) + ".affinity"), clusters);
    for (ms::index_t i : first)
      got[k].push_back(kind != "timestep" ? double(i)
                       : n == 1000        ? double(i + 1) / 1000
                                          : double(i + 1));
  }
  return got;
}

}  // namespace golden
