// Golden family ema: averages of weights by power functions and half-lives, averages made after
// training, learning rates.
#pragma once
#include <multistage/library.hpp>
#include <multistage/training/post_hoc.hpp>

#include "golden_case.hpp"

namespace golden {

namespace ms = multistage;

template <class F>
std::vector<double> each(const std::vector<double>& values, F&& f) {
  std::vector<double> results;
  for (std::size_t i = 0; i < values.size(); ++i)
    results.push_back(f(i));
  return results;
}

inline outputs run_power_functions(const golden_case& g) {
  const auto exponents = [](const std::vector<double>& stds) {
    return each(stds, [&](std::size_t i) { return ms::power_function_exponent(stds[i]); });
  };
  const auto profiles = [&](const std::string& name) {
    const auto images = g.input(name + "ofs");
    const auto exponent = exponents(g.input(name + "std"));
    std::vector<ms::power_profile> list;
    for (std::size_t i = 0; i < images.size(); ++i)
      list.push_back({images[i], exponent[i]});
    return list;
  };
  outputs got;
  got["output.exponent_of_std"] = exponents(g.input("std"));
  const auto exponent = g.input("exponent");
  got["output.std_of_exponent"] =
      each(exponent, [&](std::size_t i) { return ms::power_function_std(exponent[i]); });
  const auto beta = exponents(g.input("beta.std"));
  const auto rows = g.input("beta.t_delta");
  const auto after = g.input("beta.t_next");
  got["output.beta"] = each(
      beta, [&](std::size_t i) { return ms::power_rule{beta[i]}.keep(after[i], rows[i]); });
  for (const ms::power_profile& p : profiles("response.")) {
    const auto values = p.response(g.config.at("response_length"));
    got["output.response"].insert(got["output.response"].end(), values.begin(), values.end());
  }
  const auto a = profiles("correlation.a_");
  const auto b = profiles("correlation.b_");
  for (std::size_t i = 0; i < a.size(); ++i)
    got["output.correlation"].push_back(ms::product(a[i], b[i]));
  return got;
}

/// [kept, wanted]
inline std::vector<double> coefficients(const std::vector<ms::power_profile>& kept,
                                        const std::vector<ms::power_profile>& wanted) {
  std::vector<double> table(kept.size() * wanted.size());
  for (std::size_t j = 0; j < wanted.size(); ++j) {
    const auto weights = ms::post_hoc_weights(kept, wanted[j]);
    for (std::size_t i = 0; i < kept.size(); ++i)
      table[i * wanted.size() + j] = weights[i];
  }
  return table;
}

inline outputs run_post_hoc(const golden_case& g) {
  outputs got;
  for (const std::string name : g.config.at("sets")) {
    const auto profiles = [&](const std::string& side) {
      const auto images = g.input(name + side + "_ofs");
      const auto std = g.input(name + side + "_std");
      std::vector<ms::power_profile> list;
      for (std::size_t i = 0; i < images.size(); ++i)
        list.push_back({images[i], ms::power_function_exponent(std[i])});
      return list;
    };
    got["output." + name + ".coefficients"] = coefficients(profiles(".in"), profiles(".out"));
  }
  return got;
}

/// Averages of a series of weights, moved on the backend.
template <class Backend>
struct followed_weights {
  Backend backend;
  std::vector<double> theta;  // [steps, weights]
  ms::index_t weights;
  double rows;  // of a step

  /// The averages after every `every` steps. @param keep the rule's beta, by images seen
  template <class Keep>
  std::vector<std::vector<double>> by(Keep&& keep, double start, ms::index_t every) {
    const ms::tensor<double, Backend> all(backend, {1, 1, 1, ms::index_t(theta.size())}, theta);
    ms::tensor<double, Backend> average(backend, {1, 1, 1, weights},
                                        std::vector<double>(std::size_t(weights), start));
    std::vector<std::vector<double>> found;
    for (ms::index_t i = 0; i < ms::index_t(theta.size()) / weights; ++i) {
      const double beta = keep(double(i + 1) * rows);
      backend.for_each_index(
          weights, ms::functor::follow<double>{all.data() + i * weights, average.data(), beta});
      if ((i + 1) % every == 0)
        found.push_back(average.to_host());
    }
    return found;
  }
};

template <class Backend>
outputs run_trajectory(const golden_case& g, Backend backend) {
  const auto& extents = g.file.entry("input.theta").extents;
  followed_weights<Backend> run{backend, g.input("theta"), ms::index_t(extents.at(1)),
                                g.config.at("batch_size")};
  const ms::index_t every = g.config.at("snapshot_every");
  const std::vector<double> kept_std = g.config.at("tracked_std");
  const std::vector<double> wanted_std = g.config.at("reconstructed_std");
  const auto tracked = [&](double std) {
    const ms::power_rule rule{ms::power_function_exponent(std)};
    return run.by([&](double after) { return rule.keep(after, run.rows); }, 123.456, every);
  };
  outputs got;
  const auto append = [&](const std::string& to, const std::vector<double>& values) {
    got[to].insert(got[to].end(), values.begin(), values.end());
  };
  std::vector<ms::power_profile> kept;
  std::vector<std::vector<double>> averages;
  std::vector<std::vector<std::vector<double>>> by_std;
  for (const double std : kept_std)
    by_std.push_back(tracked(std));
  const std::size_t snapshots = by_std[0].size();
  for (std::size_t j = 0; j < snapshots; ++j)
    for (std::size_t k = 0; k < kept_std.size(); ++k) {
      kept.push_back(
          {double(j + 1) * double(every) * run.rows, ms::power_function_exponent(kept_std[k])});
      averages.push_back(by_std[k][j]);
      append("output.tracked", averages.back());
    }
  for (const auto& [name, until] : {std::pair{"half", snapshots / 2}, {"end", snapshots}}) {
    const std::vector<ms::power_profile> so_far(
        kept.begin(), kept.begin() + std::ptrdiff_t(until * kept_std.size()));
    for (const double std : wanted_std) {
      const ms::power_profile wanted{so_far.back().images, ms::power_function_exponent(std)};
      const auto weights = ms::post_hoc_weights(so_far, wanted);
      std::vector<double> sum(std::size_t(run.weights), 0.0);
      for (std::size_t i = 0; i < weights.size(); ++i)
        for (std::size_t w = 0; w < sum.size(); ++w)
          sum[w] += weights[i] * averages[i][w];
      append("output.reconstructed", sum);
      append("output.exact", tracked(std)[until - 1]);
    }
    std::vector<ms::power_profile> wanted;
    for (const double std : wanted_std)
      wanted.push_back({so_far.back().images, ms::power_function_exponent(std)});
    got[std::string("output.coefficients.") + name] = coefficients(so_far, wanted);
  }
  for (const json& q : g.config.at("traditional")) {
    const ms::halflife_rule rule{q.at("halflife_images"), q.at("rampup_ratio").is_null()
                                                              ? 0.0
                                                              : double(q["rampup_ratio"])};
    append("output.traditional",
           run.by([&](double after) { return rule.keep(after, run.rows); }, 123.456, every)
               .back());
  }
  return got;
}

inline outputs run_learning_rates(const golden_case& g) {
  outputs got;
  for (const auto& [name, q] : g.config.at("schedules").items()) {
    std::vector<double>& rates = got["output." + name];
    if (name.rfind("cosine", 0) == 0) {
      const double steps = q.at("steps");
      const ms::learning_rate_schedule s{ms::rate_decay::cosine, steps / 1000,
                                         q.at("min_learning_rate")};
      for (double k = 0; k <= steps; ++k)
        rates.push_back(s.rate(q.at("learning_rate"), 0, k));
      continue;
    }
    const double batches = q.at("ref_batches");
    const ms::learning_rate_schedule s{
        batches > 0 ? ms::rate_decay::inverse_square_root : ms::rate_decay::constant,
        batches * double(q.at("batch_size")) / 1000, 0};
    for (const double n : g.input(name + ".images_seen"))
      rates.push_back(s.rate(q.at("ref_lr"), double(q.at("rampup_mimg")) * 1000, n));
  }
  return got;
}

template <class Backend>
outputs run_ema(const golden_case& g, Backend backend) {
  const std::string algorithm = g.config.at("algorithm");
  if (algorithm == "power_function")
    return run_power_functions(g);
  if (algorithm == "posthoc_ema")
    return run_post_hoc(g);
  if (algorithm == "ema_trajectory")
    return run_trajectory(g, backend);
  return run_learning_rates(g);
}

}  // namespace golden
