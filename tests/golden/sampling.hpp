// Golden families schedules, samplers, losses and metrics. The denoiser is exact, so samplers
// are held to the last digits.
#pragma once
#include <multistage/diffusion/loss_weighting.hpp>
#include <multistage/metrics/features.hpp>
#include <multistage/metrics/frechet_distance.hpp>
#include <multistage/samplers/all.hpp>

#include "golden_case.hpp"

namespace golden {

namespace ms = multistage;

inline std::vector<std::string> parts_of(const std::string& key) {
  std::vector<std::string> parts;
  std::string part;
  for (const char c : key)
    c == '.' ? (parts.push_back(part), part.clear()) : part.push_back(c);
  parts.push_back(part);
  return parts;
}
inline bool ends_with(const std::string& s, const std::string& end) {
  return s.size() >= end.size() && s.compare(s.size() - end.size(), end.size(), end) == 0;
}
inline int number_behind(const std::string& part, const char* word) {
  const std::string w = word;
  if (part.rfind(w, 0) != 0)
    ms::fail<ms::value_error>("'", part, "' is not ", word, "<number>");
  return std::stoi(part.substr(w.size()));
}

/// Runs samplers on the exact denoiser of `input.points`, which counts and records its
/// evaluations.
template <class Backend>
struct exact_run {
  Backend b;
  ms::tensor<double, Backend> points;
  ms::optimal_denoiser<double, Backend> best;
  std::vector<double> evaluated;
  std::function<double(double sigma)>
      noise_factor;           // a stage model's factor on the predicted noise; empty: 1
  std::vector<double> draws;  // noise in the order drawn

  exact_run(const golden_case& g, Backend backend)
      : b(backend),
        points(b,
               {g.file.entry("input.points").extents.at(0), 1, 1,
                g.file.entry("input.points").extents.at(1)},
               g.input("points")),
        best(b, points.view()) {}

  /// x from `start` in noise over signal; the result likewise.
  template <class Sampler>
  std::vector<double> operator()(const Sampler& s, const std::vector<double>& start) {
    evaluated.clear();
    const ms::index_t size = points.extents().channels;
    const ms::index_t rows = ms::index_t(start.size()) / size;
    ms::tensor<double, Backend> x(b, {rows, 1, 1, size}, start);
    s(
        b, x.view(),
        [&](ms::view<const double> at, double sigma, ms::view<double> d) {
          evaluated.push_back(sigma);
          best(at, std::vector<double>(std::size_t(rows), sigma), d);
          if (noise_factor)  // D' = x - sigma (1 + factor) eps
            ms::ops::linear_combination<Backend, double>(
                b, x.size(), d.data,
                {{noise_factor(sigma), d.data}, {1 - noise_factor(sigma), at.data}});
        },
        [&](int k, ms::view<double> z) {
          b.upload(draws.data() + ms::index_t(k) * x.size(), z.data, x.size());
        },
        [](int, double, ms::view<const double>, ms::view<const double>) { return true; });
    return x.to_host();
  }
};

inline std::vector<double> scaled(std::vector<double> v, double factor) {
  for (double& x : v)
    x *= factor;
  return v;
}

template <class Backend>
outputs run_edm_samplers(const golden_case& g, Backend backend) {
  outputs got;
  exact_run run(g, backend);
  const auto latents = g.input("latents");
  ms::edm_heun base;
  base.sigma_min = g.config.at("sigma_min");
  base.sigma_max = g.config.at("sigma_max");
  base.rho = g.config.at("rho");
  for (const auto& [key, entry] : g.file.tensors()) {
    if (key.rfind("output.", 0) != 0)
      continue;
    const auto p = parts_of(key.substr(7));
    if (p[0] == "edm_heun" && p.size() == 2) {
      ms::edm_heun s = base;
      s.num_steps = std::stoi(p[1]);
      got[key] = run(s, scaled(latents, s.sigmas().front()));
      got[key + ".sigmas_evaluated"] = run.evaluated;
    } else if (p[0] == "edm_churn") {
      const json& c = g.config.at("churn");
      ms::edm_heun s = base;
      s.num_steps = c.at("num_steps");
      s.s_churn = c.at("s_churn");
      s.s_min = c.at("s_min");
      s.s_max = c.at("s_max");
      s.s_noise = c.at("s_noise");
      run.draws = g.input("churn_noise");
      got[key] = run(s, scaled(latents, s.sigmas().front()));
    } else if (p[0] == "ablation") {
      ms::edm_ablation s;
      s.num_steps = g.config.at("ablation_num_steps");
      const auto choose = [&](const std::string& name,
                              std::initializer_list<const char*> names) {
        int i = 0;
        for (const char* n : names) {
          if (name == n)
            return i;
          ++i;
        }
        ms::fail<ms::value_error>("ablation: '", name, "' is unknown");
      };
      s.method = ms::ablation_method(choose(p.at(1), {"euler", "heun"}));
      s.discretization =
          ms::ablation_discretization(choose(p.at(2), {"vp", "ve", "iddpm", "edm"}));
      s.schedule = ms::ablation_schedule(choose(p.at(3), {"vp", "ve", "linear"}));
      s.scaling = ms::ablation_scaling(choose(p.at(4), {"none", "vp"}));
      got[key] = run(s, scaled(latents, s.start_scale()));
    }
  }
  return got;
}

template <class Backend>
outputs run_dpm_solver(const golden_case& g, Backend backend) {
  outputs got;
  exact_run run(g, backend);
  const double beta_min = g.config.at("beta_min");
  const double beta_max = g.config.at("beta_max");
  const json counts = g.config.value("network_evaluations", json::object());
  const auto x_T = g.input("x_T");
  for (const auto& [key, entry] : g.file.tensors()) {
    if (key.rfind("output.", 0) != 0 || ends_with(key, ".stage_of_evaluation"))
      continue;
    auto p = parts_of(key.substr(7));
    const bool staged = p[0] == "staged";
    if (staged)
      p.erase(p.begin());
    const double t_end = staged ? g.config.at("staged").at("t_end").get<double>()
                                : g.config.value("t_end", 1e-3);
    const ms::vp_schedule vp{beta_min, beta_max, t_end};
    if (g.config.value("t_start", 1.0) != 1)
      ms::fail<ms::value_error>("dpm_solver: t_start is not 1");
    ms::dpm_solver s{.sigma_min = 0, .sigma_max = 0, .schedule = vp};
    s.predict_data = ends_with(p.at(0), "++");
    bool known = false;
    for (int m = 0; m < 4; ++m)
      if (p.at(1) == ms::to_string(ms::dpm_method(m)))
        s.method = ms::dpm_method(m), known = true;
    if (!known)
      ms::fail<ms::value_error>("dpm_solver: method '", p.at(1), "' is unknown");
    s.order = number_behind(p.at(2), "order");
    if (s.method == ms::dpm_method::adaptive) {
      const json& a = g.config.contains("adaptive") ? g.config["adaptive"] : g.config;
      s.adaptive = {a.at("atol"), a.at("rtol"), a.at("theta"), a.at("h_init"), a.at("t_err")};
    } else {
      s.num_steps = number_behind(p.at(3), "steps");
      if (p.size() > 4 && p[4].rfind("no_", 0) != 0 && p[4] != "denoise_to_zero")
        s.steps = ms::spacing_from(p[4]);
      for (const auto& option : p) {
        if (option == "no_lower_order_final")
          s.lower_order_final = false;
        if (option == "denoise_to_zero")
          s.denoise_to_zero = true;
      }
    }
    run.noise_factor = nullptr;
    std::vector<double> boundaries;
    s.crossing.policy = ms::boundary_policy::carry;  // the reference's behaviour
    if (staged) {
      boundaries = g.config.at("staged").at("stage_boundaries_t").get<std::vector<double>>();
      s.crossing.stages = ms::partition::from_times(vp, boundaries);
      run.noise_factor = [&, stages = s.crossing.stages](double sigma) {
        return 1 + 0.02 * stages.stage(sigma);
      };
    }
    auto x = run(s, scaled(x_T, 1 / vp.signal(1)));
    got[key] = s.denoise_to_zero ? x : scaled(x, vp.signal(t_end));
    if (staged)
      for (const double sigma : run.evaluated)
        got[key + ".stage_of_evaluation"].push_back(s.crossing.stages.stage(sigma));
    if (const std::string name = key.substr(7); counts.contains(name) &&
                                                s.method != ms::dpm_method::adaptive &&
                                                counts[name] != run.evaluated.size())
      ms::fail<ms::numeric_error>(name, ": evaluated ", run.evaluated.size(),
                                  " times, expected ", counts[name].dump());
  }
  return got;
}

template <class Backend>
outputs run_score_sde(const golden_case& g, Backend backend) {
  outputs got;
  exact_run run(g, backend);
  for (const auto& [key, entry] : g.file.tensors()) {
    if (key.rfind("output.", 0) != 0 || ends_with(key, ".mean"))
      continue;
    const auto p = parts_of(key.substr(7));
    const std::string method = p.at(1);
    const std::string where = p.at(0) + "." + method;
    const auto set = [&](auto s) {
      s.num_steps = g.config.at("num_scales");
      s.eps = g.config.at("eps");
      s.snr = g.config.at("snr");
      s.corrector_steps = g.config.value("corrector_steps", 1);
      s.batch_norms = true;  // as the reference
      s.predictor = method.rfind("euler_maruyama", 0) == 0 ? ms::sde_predictor::euler_maruyama
                    : method.rfind("reverse_diffusion", 0) == 0
                        ? ms::sde_predictor::reverse_diffusion
                    : method.rfind("ancestral", 0) == 0 ? ms::sde_predictor::ancestral
                                                        : ms::sde_predictor::none;
      s.corrector = ends_with(method, "langevin") ? ms::sde_corrector::langevin
                    : ends_with(method, "ald")    ? ms::sde_corrector::annealed_langevin
                                                  : ms::sde_corrector::none;
      run.draws = g.input(where + ".noise");
      const auto start = scaled(g.input(where + ".start"), 1 / s.schedule.signal(1));
      got[key + ".mean"] = scaled(run(s, start), s.schedule.signal(s.eps));
      s.denoise = false;
      got[key] = scaled(run(s, start), s.schedule.signal(s.eps));
    };
    if (p[0] == "vp")
      set(ms::score_sde{.schedule = ms::vp_schedule{g.config.at("vp").at("beta_min"),
                                                    g.config.at("vp").at("beta_max")}});
    else if (p[0] == "sub_vp")
      set(ms::score_sde{
          .schedule = ms::sub_vp_schedule{g.config.at("sub_vp").value("beta_min", 0.1),
                                          g.config.at("sub_vp").value("beta_max", 20.0)}});
    else if (p[0] == "ve")
      set(ms::score_sde{.schedule = ms::ve_schedule{g.config.at("ve").at("sigma_min"),
                                                    g.config.at("ve").at("sigma_max")}});
    else
      ms::fail<ms::value_error>("score_sde: '", p[0], "' is no known process");
  }
  return got;
}

template <class Backend>
outputs run_discrete(const golden_case& g, Backend backend) {
  outputs got;
  exact_run run(g, backend);
  const ms::discrete_schedule schedule([&] {  // the file's own list decides
    std::vector<double> betas;
    double before = 1;
    for (const double a : g.input("alphas_cumprod"))
      betas.push_back(1 - a / before), before = a;
    return betas;
  }());
  const auto x_T = g.input("x_T");
  const int n_train = schedule.steps();
  for (const auto& [key, entry] : g.file.tensors()) {
    if (key.rfind("output.", 0) != 0 || ends_with(key, ".timesteps") ||
        ends_with(key, ".sigmas"))
      continue;
    const std::string name = key.substr(7);
    std::vector<int> steps;
    const auto tell = [&](std::vector<int> list) {
      got[key + ".timesteps"] = std::vector<double>(list.begin(), list.end());
    };
    for (const double t : g.file.template get<double>(key + ".timesteps"))
      steps.push_back(int(t));
    const bool ddim = name.rfind("ddim.", 0) == 0;
    const auto spacing = name.find(".trailing.") != std::string::npos
                             ? ms::timestep_spacing::trailing
                         : ddim ? ms::timestep_spacing::leading
                                : ms::timestep_spacing::linspace;
    const int asked = std::stoi(name.substr(name.rfind('.') + 1));
    const auto order_of = [&] {
      return number_behind(name.substr(name.find("order"), 6), "order");
    };
    if (g.has_input(name + ".noise"))
      run.draws = g.input(name + ".noise");
    double last = 0;
    std::vector<int> own = ms::timesteps(
        n_train, name.rfind("pndm", 0) == 0 ? ms::timestep_spacing::leading : spacing, asked);
    if (name.rfind("pndm", 0) == 0 && own.size() > 1)
      own.insert(own.begin() + 1, own[1]);
    tell(own);
    if (name.rfind("pndm", 0) == 0) {  // its second step is done twice
      steps.erase(steps.begin() + 1);
      // Each step goes down by as many timesteps; below 0 it stays at the first, so that a last
      // step from there moves nothing.
      if (const int end = steps.back() - n_train / int(steps.size()); end >= 0)
        last = schedule.sigma_at(end);
      else {
        last = schedule.sigma_at(steps.back());
        steps.pop_back();
      }
    } else {
      if (name.rfind("deis", 0) == 0)
        last = schedule.sigma_at(0);
    }
    std::vector<double> levels = ms::noise_levels(schedule, steps, last);
    const auto start = scaled(x_T, 1 / std::exp(schedule.log_alpha(steps.front())));
    std::vector<double> x;
    ms::stage_crossing carry{{}, ms::boundary_policy::carry};
    if (ddim) {
      // ddim.eta<number>[.<spacing>].<steps>
      std::string eta = name.substr(name.find("eta") + 3);
      eta = eta.substr(0, eta.rfind('.'));
      for (const char* word : {".leading", ".trailing", ".linspace"})
        eta = eta.substr(0, eta.find(word));
      x = run(ms::ddim{.levels = levels, .eta = std::stod(eta)}, start);
    } else if (name.rfind("pndm", 0) == 0)
      x = run(ms::pndm{.levels = levels, .crossing = carry}, start);
    else if (name.rfind("deis", 0) == 0)
      x = run(ms::deis{.levels = levels, .order = order_of(), .crossing = carry}, start);
    else if (name.rfind("sde_dpmsolver++", 0) == 0)
      x = run(ms::dpm_solver_sde{.levels = levels, .order = order_of(), .crossing = carry},
              start);
    else if (name.rfind("unipc", 0) == 0) {
      levels = ms::noise_levels(
          schedule, steps,
          name.find("final_zero") != std::string::npos ? 0 : schedule.sigma_at(0));
      got[key + ".sigmas"] = levels;
      const auto variant = name.find(".bh1.") != std::string::npos ? ms::unipc_variant::bh1
                                                                   : ms::unipc_variant::bh2;
      x = run(
          ms::unipc{
              .levels = levels, .order = order_of(), .variant = variant, .crossing = carry},
          start);
    } else
      ms::fail<ms::value_error>("discrete sampler '", name, "' is unknown");
    const double end = levels.back();
    got[key] = scaled(x, 1 / std::sqrt(1 + end * end));
  }
  return got;
}

inline outputs run_schedules(const golden_case& g) {
  outputs got;
  const auto t = g.input("t");
  const double beta_min = g.config.at("beta_min");
  const double beta_max = g.config.at("beta_max");
  const auto each = [&](const std::string& name, auto&& f) {
    auto& v = got["output." + name];
    for (const double u : t)
      v.push_back(f(u));
  };
  const auto process = [&](const std::string& name, const auto& s) {
    each(name + ".mean_coefficient", [&](double u) { return s.signal(u); });
    each(name + ".std", [&](double u) { return ms::noise_std(s, u); });
    each(name + ".drift_coefficient", [&](double u) { return s.drift(u); });
    each(name + ".diffusion", [&](double u) { return s.diffusion(u); });
  };
  process("vp", ms::vp_schedule{beta_min, beta_max});
  process("sub_vp", ms::sub_vp_schedule{beta_min, beta_max});
  process("ve", ms::ve_schedule{g.config.at("sigma_min"), g.config.at("sigma_max")});
  const auto continuous = [&](const std::string& name, const auto& s,
                              const std::vector<double>& times) {
    for (const double u : times) {
      got["output." + name + ".t"].push_back(u);
      got["output." + name + ".alpha"].push_back(s.signal(u));
      got["output." + name + ".std"].push_back(ms::noise_std(s, u));
      got["output." + name + ".lambda"].push_back(ms::lambda(s, u));
      got["output." + name + ".inverse_lambda"].push_back(
          ms::time_of_lambda(s, ms::lambda(s, u)));
    }
  };
  continuous("linear", ms::vp_schedule{beta_min, beta_max},
             g.file.get<double>("output.linear.t"));
  continuous("cosine", ms::cosine_schedule{}, g.file.get<double>("output.cosine.t"));
  for (const auto kind : {ms::beta_schedule::linear, ms::beta_schedule::scaled_linear,
                          ms::beta_schedule::cosine}) {
    const std::string name = std::string("discrete.") + ms::to_string(kind);
    const auto s = kind == ms::beta_schedule::scaled_linear
                       ? ms::discrete_schedule(kind, 0.0015, 0.0195)
                       : ms::discrete_schedule(kind);
    got["output." + name + ".betas"] = s.betas();
    for (int i = 0; i < s.steps(); ++i)
      got["output." + name + ".alphas_cumprod"].push_back(s.alphas_cumprod(i));
    each(name + ".lambda", [&](double u) { return -std::log(s.sigma(u)); });
    each(name + ".inverse_lambda",
         [&](double u) { return s.t(std::exp(std::log(s.sigma(u)))); });
  }
  for (const auto& [key, entry] : g.file.tensors())
    if (key.rfind("output.karras.", 0) == 0) {
      const json& k = g.config.at("karras");
      got[key] = ms::edm_heun{.num_steps = std::stoi(key.substr(14)),
                              .sigma_min = k.at("sigma_min"),
                              .sigma_max = k.at("sigma_max"),
                              .rho = k.at("rho")}
                     .sigmas();
      got[key].pop_back();
    }
  return got;
}

inline outputs run_losses(const golden_case& g) {
  outputs got;
  const ms::vp_schedule vp{g.config.at("beta_min"), g.config.at("beta_max")};
  const auto t = g.input("t");
  const auto x0 = g.input("x0");
  const auto noise = g.input("noise");
  const auto sigma = g.input("sigma");
  const auto uniform = g.input("uniform");
  const std::size_t size = x0.size() / t.size();
  const double gamma = g.config.at("min_snr_gamma");
  const double sigma_data = g.config.at("sigma_data");
  const std::string snr_name =
      "min_snr_" + json(gamma).dump().substr(0, json(gamma).dump().find('.'));
  for (std::size_t i = 0; i < t.size(); ++i) {
    const double s = vp.sigma(t[i]);
    const ms::training_target target{vp.signal(t[i]), s};
    for (std::size_t k = i * size; k < (i + 1) * size; ++k) {
      got["output.x_t"].push_back(target.x_t(x0[k], noise[k]));
      got["output.velocity"].push_back(target.velocity(x0[k], noise[k]));
      got["output.score"].push_back(target.score(noise[k]));
    }
    got["output.snr"].push_back(1 / (s * s));
    const auto weight = [&](const std::string& name, const ms::loss_weight& w,
                            ms::prediction p) {
      got["output." + name + "." + ms::to_string(p)].push_back(ms::weight_on(w, p, s));
    };
    for (const auto p :
         {ms::prediction::epsilon, ms::prediction::velocity, ms::prediction::sample})
      weight(snr_name, ms::min_snr_weight{gamma}, p);
    weight("snr_plus_1", ms::velocity_weight{}, ms::prediction::sample);
    weight("truncated", ms::truncated_weight{}, ms::prediction::sample);
    weight("p2_gamma1_k1", ms::p2_weight{.gamma = 1, .k = 1}, ms::prediction::epsilon);
  }
  const ms::preconditioning edm{ms::precondition::edm, sigma_data};
  for (std::size_t i = 0; i < sigma.size(); ++i) {
    const auto f = edm.at(sigma[i]);
    got["output.edm.weight"].push_back(ms::edm_weight{sigma_data}(sigma[i]));
    got["output.edm.c_skip"].push_back(f.skip);
    got["output.edm.c_out"].push_back(f.out);
    got["output.edm.c_in"].push_back(f.in);
    got["output.edm.c_noise"].push_back(f.noise);
    for (std::size_t k = i * size; k < (i + 1) * size; ++k)
      got["output.edm.F_target"].push_back((x0[k] - f.skip * (x0[k] + sigma[i] * noise[k])) /
                                           f.out);
  }
  const ms::partition stages(g.config.at("stage_boundaries").get<std::vector<double>>());
  const ms::noise_level_draws levels =
      ms::log_normal_levels{g.config.at("p_mean"), g.config.at("p_std")};
  got["output.stage_probability"] = levels.stage_probabilities(stages);
  for (int s = 0; s < stages.stage_count(); ++s)
    for (const double u : uniform)
      got["output.sigma_in_stage"].push_back(levels.draw(stages, s, u));
  return got;
}

inline outputs run_metrics(const golden_case& g) {
  const auto x = g.input("reference");
  const auto y = g.input("generated");
  const auto p = g.input("probabilities");
  const ms::index_t d = g.file.entry("input.reference").extents.at(1);
  const ms::index_t classes = g.file.entry("input.probabilities").extents.at(1);
  const auto near = ms::neighbourhoods(x, y, d, 3);
  return {{"output.frechet_distance", {ms::frechet_distance(x, y, d)}},
          {"output.kid", {ms::kid(x, y, d)}},
          {"output.precision", {near.precision}},
          {"output.recall", {near.recall}},
          {"output.inception_score", {ms::inception_score(p, classes)}}};
}

/// Which sampler case a file is, by what it holds.
template <class Backend>
outputs run_samplers(const golden_case& g, Backend backend) {
  if (g.config.contains("ablation_num_steps"))
    return run_edm_samplers(g, backend);
  if (g.config.contains("num_scales"))
    return run_score_sde(g, backend);
  if (g.has_input("alphas_cumprod"))
    return run_discrete(g, backend);
  if (g.has_input("x_T"))
    return run_dpm_solver(g, backend);
  ms::fail<ms::value_error>("sampler case '", g.name, "' is of no known kind");
}

}  // namespace golden
