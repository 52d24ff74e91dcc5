// Golden families ncsnpp and ldm_unet: a network's raw results for given labels, its loss and
// gradients; and autoencoder.
#pragma once
#include <multistage/diffusion/latent.hpp>

#include "network_case.hpp"

namespace golden {

template <class Backend>
outputs run_raw_network(const golden_case& g, Backend backend) {
  using scalar = float;
  outputs got;
  ms::configuration config = ms::io::configuration_from_json(g.config);
  const bool latent = g.family == "ldm_unet";
  const bool multi = config.stages.stage_count() > 1;
  const auto prefix = [&](int s) {
    return multi ? "stage" + std::to_string(s) + "." : std::string();
  };
  if (auto* net = std::get_if<ms::ldm_unet>(&config.network);
      net && g.has_input(prefix(0) + "context"))
    net->context_tokens = int(g.file.entry("input." + prefix(0) + "context").extents.at(1));
  ms::described_network d = ms::record(config);
  const auto host_weights = load_weights<scalar>(g, d.structure, d.names);
  ms::executor<scalar, Backend> engine(backend, d.structure);
  const ms::tensor<scalar, Backend> weights(
      backend, {1, 1, 1, ms::index_t(host_weights.size())}, host_weights);

  for (int s = 0; s < config.stages.stage_count(); ++s) {
    const std::string q = prefix(s);
    const auto labels = g.input<scalar>(q + (latent ? "timesteps" : "labels"));
    const ms::index_t rows = ms::index_t(labels.size());
    const ms::shape images = ms::image_shape(config, rows);
    const ms::tensor<scalar, Backend> x(backend, images,
                                        reorder(g.input<scalar>(q + "x_t"), images, true)),
        level(backend, {rows, 1, 1, 1}, labels);
    std::vector<ms::index_t> by_stage(std::size_t(config.stages.stage_count()), 0);
    by_stage[s] = rows;
    ms::network_inputs<scalar> in;
    in[ms::input_slot::image] = x.data();
    in[ms::input_slot::noise_level] = level.data();
    std::map<std::string, ms::tensor<scalar, Backend>> extra;
    const auto give = [&](const std::string& name, ms::input_slot slot) {
      if (!g.has_input(q + name))
        return;
      const auto v = g.input<scalar>(q + name);
      extra[name] =
          ms::tensor<scalar, Backend>(backend, {rows, 1, 1, ms::index_t(v.size()) / rows}, v);
      in[slot] = extra[name].data();
    };
    give("context", ms::input_slot::context);
    give("class_labels", ms::input_slot::class_labels);

    // score * std + z with score = -raw / std (VP, sub-VP) or raw (VE); latent diffusion: raw -
    // noise.
    const bool ve = config.precond.kind == ms::precondition::score_ve;
    const auto noise = reorder(g.input(q + "noise"), images, true);
    const std::vector<double> t = latent ? std::vector<double>{} : g.input(q + "t");
    std::vector<double> raw(std::size_t(images.size()));
    double loss = 0;
    ms::tensor<scalar, Backend> gradients(backend, weights.extents());
    engine.differentiate(weights.data(), gradients.data(), in, by_stage,
                         [&](int, ms::index_t, ms::index_t, const scalar* f, scalar* df) {
                           std::vector<scalar> host(raw.size()), gradient(raw.size());
                           backend.download(f, host.data(), images.size());
                           for (std::size_t i = 0; i < raw.size(); ++i) {
                             raw[i] = host[i];
                             double factor = -1;
                             if (ve)
                               factor = double(g.config.at("sigma_min")) *
                                        std::pow(double(g.config.at("sigma_max")) /
                                                     double(g.config.at("sigma_min")),
                                                 t[i / images.row_size()]);
                             const double e = factor * host[i] + noise[i];
                             loss += e * e / double(images.size());
                             gradient[i] = scalar(2 * e * factor / double(images.size()));
                           }
                           backend.upload(gradient.data(), df, images.size());
                         });
    got["output." + q + "raw"] = reorder(raw, images, false);
    got["output." + q + "loss"] = {loss};
    add_parameters(got, "grad." + q, d.structure, d.names, gradients.to_host(), s);

    // The inference plan must agree with the training one to rounding (its memory differs, and
    // with it how loops split); guidance needs it.
    ms::tensor<scalar, Backend> out(backend, images);
    engine.forward(weights.data(), in, by_stage, out.data());
    const auto inferred = out.to_host();
    double largest = 0;
    double apart = 0;
    for (std::size_t i = 0; i < raw.size(); ++i)
      largest = std::max(largest, std::fabs(raw[i])),
      apart = std::max(apart, std::fabs(inferred[i] - raw[i]));
    if (apart > 1e-5 * largest)
      ms::fail<ms::numeric_error>("inference and training disagree by ", apart,
                                  ", values reach ", largest);
    if (g.has_input(q + "uncond_context")) {
      give("uncond_context", ms::input_slot::context);
      engine.forward(weights.data(), in, by_stage, out.data());
      const auto uncond = out.to_host();
      std::vector<double> guided(raw.size());
      for (std::size_t i = 0; i < raw.size(); ++i)
        guided[i] = uncond[i] + 3 * (raw[i] - uncond[i]);
      got["output." + q + "guided_scale_3"] = reorder(guided, images, false);
    }
  }
  return got;
}

template <class Backend>
outputs run_autoencoder(const golden_case& g, Backend backend) {
  using scalar = float;
  outputs got;
  const ms::autoencoder config = ms::io::autoencoder_from_json(g.config);
  const bool vq = config.kind == ms::latent_kind::vq;
  ms::autoencoder_model<scalar, Backend> model(backend, config, 1);
  std::vector<scalar> flat(std::size_t(model.weights().size()), scalar(0));
  std::vector<std::string> names;
  model.for_each_parameter(
      [&](const std::string& name, const ms::parameter& p, ms::index_t offset) {
        load_parameter(g, name, p, flat, offset);
        names.push_back(name);
      });
  refuse_unknown(g, names);
  backend.upload(flat.data(), model.weights().data(), ms::index_t(flat.size()));
  const ms::index_t rows = g.file.entry("input.x").extents.at(0);
  const ms::shape images = model.images(rows);
  const ms::shape latents = model.latents(rows);
  const ms::tensor<scalar, Backend> x(backend, images,
                                      reorder(g.input<scalar>("x"), images, true));
  ms::tensor<scalar, Backend> noise, gradients(backend, model.weights().extents());
  if (!vq)
    noise = ms::tensor<scalar, Backend>(backend, latents,
                                        reorder(g.input<scalar>("noise"), latents, true));
  const auto r = model.differentiate(
      x.view(), vq ? ms::view<const scalar>{} : std::as_const(noise).view(), gradients.data());

  const auto as_double = [](const std::vector<scalar>& v) {
    return std::vector<double>(v.begin(), v.end());
  };
  const std::vector<double> latent = reorder(as_double(r.latent), latents, false);
  got["output.decoded"] = reorder(as_double(r.decoded), images, false);
  got["output.loss"] = {r.loss};
  if (vq) {
    got["output.latent"] = reorder(as_double(r.moments), latents, false);
    got["output.quantized"] = latent;
    got["output.indices"] = std::vector<double>(r.indices.begin(), r.indices.end());
    got["output.quantization_loss"] = {r.latent_loss};
  } else {
    const auto moments = reorder(as_double(r.moments), model.moments(rows), false);
    const ms::index_t size = latents.row_size();
    for (ms::index_t row = 0; row < rows; ++row)
      for (ms::index_t i = 0; i < size; ++i) {
        got["output.mean"].push_back(moments[2 * row * size + i]);
        got["output.logvar"].push_back(
            std::clamp(moments[(2 * row + 1) * size + i], -30.0, 20.0));
      }
    got["output.latent"] = latent;
    got["output.kl"] = r.kl;
  }
  const auto gradient = gradients.to_host();
  model.for_each_parameter(
      [&](const std::string& name, const ms::parameter& p, ms::index_t offset) {
        std::vector<double>& v = got["grad." + name];
        v.assign(std::size_t(p.size()), 0.0);
        ms::for_each_element(
            p, [&](ms::index_t up, ms::index_t own) { v[up] = gradient[offset + own]; });
      });
  return got;
}

}  // namespace golden
