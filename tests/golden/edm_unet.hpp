// Golden family edm_unet: networks, losses, gradients and training, rebuilt from a file's configuration.
#pragma once
#include <multistage/io/json.hpp>
#include <multistage/io/weights.hpp>
#include <multistage/library.hpp>

#include "golden_case.hpp"

namespace golden {

namespace ms = multistage;

/// NCHW file order to NHWC and back.
template <class T>
std::vector<T> reorder(const std::vector<T>& v, const ms::shape& s, bool to_nhwc) {
  std::vector<T> out(v.size());
  for (ms::index_t r = 0; r < s.rows; ++r)
    for (ms::index_t p = 0; p < s.pixels(); ++p)
      for (ms::index_t c = 0; c < s.channels; ++c) {
        const auto nhwc = (r * s.pixels() + p) * s.channels + c, nchw = (r * s.channels + c) * s.pixels() + p;
        to_nhwc ? out[nhwc] = v[nchw] : out[nchw] = v[nhwc];
      }
  return out;
}

template <class Backend>
outputs run_edm_unet(const golden_case& g, Backend backend) {
  using scalar = float;
  outputs got;
  const ms::configuration config = ms::io::configuration_from_json(g.config);
  const bool multi = config.stages.stage_count() > 1;
  ms::dynamic_model<scalar, Backend> model(backend, config, ms::io::partition_from_json(g.config.value("stage_boundaries", json())), 1);
  const ms::graph& net = model.network();
  // Buffers of the file are parameters here (Fourier frequencies) or part of the configuration (filters).
  const auto ignored = [](const std::string& n) { return ms::io::is_resample_filter(n); };
  ms::io::safetensors_writer merged;
  std::vector<scalar> weights(std::size_t(net.parameter_elements));
  for (std::size_t k = 0; k < net.parameters.size(); ++k) {
    const std::string& n = model.parameter_names()[k];
    const std::string where = net.parameters[k].trainable ? "param." + n : "buffer." + n;
    const auto values = g.file.get<scalar>(where);
    if (g.file.entry(where).extents != ms::upstream_extents(net.parameters[k])) ms::fail<ms::shape_error>(where, " has other extents than the network");
    ms::for_each_element(net.parameters[k], [&](ms::index_t up, ms::index_t own) { weights[net.parameters[k].offset + own] = values[up]; });
  }
  for (const auto& [name, entry] : g.file.tensors())
    if (name.rfind("param.", 0) == 0 &&
        std::find(model.parameter_names().begin(), model.parameter_names().end(), name.substr(6)) == model.parameter_names().end() && !ignored(name))
      ms::fail<ms::file_error>("the file's ", name, " is no parameter of the network");
  backend.upload(weights.data(), model.weights().data(), ms::index_t(weights.size()));

  const auto add_parameters = [&](const std::string& prefix, const std::vector<scalar>& flat, int only_stage) {
    for (std::size_t k = 0; k < net.parameters.size(); ++k) {
      const ms::parameter& p = net.parameters[k];
      if (!p.trainable || (only_stage >= 0 && p.segment != 0 && p.segment != 1 + only_stage)) continue;
      std::vector<double> v(std::size_t(p.size()));
      ms::for_each_element(p, [&](ms::index_t up, ms::index_t own) { v[up] = flat[p.offset + own]; });
      got[prefix + model.parameter_names()[k]] = std::move(v);
    }
  };

  if (g.config.contains("training")) {
    const json& t = g.config["training"];
    ms::trainer_options o;
    o.learning_rate = t.at("learning_rate");
    o.adam = {t.at("betas")[0], t.at("betas")[1], t.at("eps")};
    o.lr_rampup_kimg = t.at("lr_rampup_kimg");
    o.ema_halflife_kimg = t.at("ema_halflife_kimg");
    o.ema_rampup_ratio = t.at("ema_rampup_ratio");
    o.batch_size = t.at("batch_size");
    const ms::shape images = model.images(o.batch_size);
    const auto first = g.input<float>("step0.images");
    ms::trainer trainer{model, std::span<const float>(reorder(first, images, true)), images, o};
    for (int i = 0; i < t.at("steps").get<int>(); ++i) {
      const std::string q = "step" + std::to_string(i) + ".";
      ms::training_batch<scalar> b{reorder(g.input<scalar>(q + "images"), images, true), reorder(g.input<scalar>(q + "noise"), images, true),
                                   g.input(q + "sigma")};
      const ms::step_report r = trainer.step(b);
      double loss = 0;
      for (std::size_t s = 0; s < r.loss.size(); ++s)
        if (r.rows[s] > 0) loss += r.loss[s] * double(r.rows[s]) / double(o.batch_size);
      got["output.losses"].push_back(loss);
    }
    add_parameters("output.final.", model.weights().to_host(), -1);
    add_parameters("output.ema.", model.averaged_weights().to_host(), -1);
    return got;
  }

  for (int s = 0; s < config.stages.stage_count(); ++s) {
    const std::string q = multi ? "stage" + std::to_string(s) + "." : "";
    const std::vector<double> sigmas = g.input(q + "sigma");
    const ms::shape images = model.images(ms::index_t(sigmas.size()));
    const ms::tensor<double, Backend> x(backend, images, reorder(g.input(q + "x"), images, true));
    ms::tensor<scalar, Backend> class_labels, augment_labels;
    ms::conditioning<scalar> labels;
    const auto read_labels = [&](const char* name, auto& to, const scalar*& pointer) {
      if (!g.has_input(q + name)) return;
      const auto v = g.input<scalar>(q + name);
      to = ms::tensor<scalar, Backend>(backend, {images.rows, 1, 1, ms::index_t(v.size()) / images.rows}, v);
      pointer = to.data();
    };
    read_labels("class_labels", class_labels, labels.class_labels);
    read_labels("augment_labels", augment_labels, labels.augment_labels);

    ms::tensor<double, Backend> d(backend, images);
    model.denoise(x.view(), sigmas, d.view(), labels);
    got["output." + q + "denoised"] = reorder(d.to_host(), images, false);

    // Raw results, loss and gradients by the training path.
    const ms::routing r = model.route(sigmas);
    const auto target = reorder(g.input(q + "target"), images, true), noisy = x.to_host();
    ms::tensor<scalar, Backend> gradients(backend, model.weights().extents());
    const auto in = model.prepare(x.data(), sigmas, r, labels);
    std::vector<double> raw(std::size_t(images.size()));
    double loss = 0;
    model.engine().differentiate(model.weights().data(), gradients.data(), in, r.rows_by_stage,
                                 [&](int, ms::index_t first, ms::index_t rows, const scalar* f, scalar* df) {
                                   const ms::index_t size = images.row_size();
                                   std::vector<scalar> host(std::size_t(rows * size)), gradient(host.size());
                                   backend.download(f, host.data(), rows * size);
                                   for (ms::index_t i = 0; i < rows * size; ++i) {
                                     const ms::index_t row = r.order[first + i / size], at = row * size + i % size;
                                     const ms::preconditioning_factors k = config.precond.at(sigmas[row]);
                                     const double w = (sigmas[row] * sigmas[row] + 0.25) / (0.25 * sigmas[row] * sigmas[row]);
                                     const double e = k.skip * noisy[at] + k.out * host[i] - target[at];
                                     raw[at] = host[i];
                                     loss += w * e * e / double(images.rows);
                                     gradient[i] = scalar(2 * w * e * k.out / double(images.rows));
                                   }
                                   backend.upload(gradient.data(), df, rows * size);
                                 });
    got["output." + q + "raw"] = reorder(raw, images, false);
    got["output." + q + "loss"] = {loss};
    add_parameters("grad." + q, gradients.to_host(), s);
  }
  return got;
}

}  // namespace golden
