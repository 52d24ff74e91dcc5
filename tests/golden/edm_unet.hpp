// Golden family edm_unet: networks, losses, gradients and training, rebuilt from a file's
// configuration.
#pragma once
#include "network_case.hpp"

namespace golden {

template <class Backend>
outputs run_edm_unet(const golden_case& g, Backend backend) {
  using scalar = float;
  outputs got;
  const ms::configuration config = ms::io::configuration_from_json(g.config);
  const bool multi = config.stages.stage_count() > 1;
  ms::dynamic_model<scalar, Backend> model(
      backend, config, ms::io::partition_from_json(g.config.value("stage_boundaries", json())),
      1);
  const ms::graph& net = model.network();
  const auto weights = load_weights<scalar>(g, net, model.parameter_names());
  backend.upload(weights.data(), model.weights().data(), ms::index_t(weights.size()));
  const auto add_tensors = [&](const std::string& prefix, const std::vector<scalar>& flat,
                               int only_stage) {
    add_parameters(got, prefix, net, model.parameter_names(), flat, only_stage);
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
      ms::training_batch<scalar> b{reorder(g.input<scalar>(q + "images"), images, true),
                                   reorder(g.input<scalar>(q + "noise"), images, true),
                                   g.input(q + "sigma")};
      const ms::step_report r = trainer.step(b);
      double loss = 0;
      for (std::size_t s = 0; s < r.loss.size(); ++s)
        if (r.rows[s] > 0)
          loss += r.loss[s] * double(r.rows[s]) / double(o.batch_size);
      got["output.losses"].push_back(loss);
    }
    add_tensors("output.final.", model.weights().to_host(), -1);
    add_tensors("output.ema.", model.averaged_weights().to_host(), -1);
    return got;
  }

  for (int s = 0; s < config.stages.stage_count(); ++s) {
    const std::string q = multi ? "stage" + std::to_string(s) + "." : "";
    const std::vector<double> sigmas = g.input(q + "sigma");
    const ms::shape images = model.images(ms::index_t(sigmas.size()));
    const ms::tensor<double, Backend> x(backend, images,
                                        reorder(g.input(q + "x"), images, true));
    ms::tensor<scalar, Backend> class_labels;
    ms::tensor<scalar, Backend> augment_labels;
    ms::conditioning<scalar> labels;
    const auto read_labels = [&](const char* name, auto& to, const scalar*& pointer) {
      if (!g.has_input(q + name))
        return;
      const auto v = g.input<scalar>(q + name);
      to = ms::tensor<scalar, Backend>(
          backend, {images.rows, 1, 1, ms::index_t(v.size()) / images.rows}, v);
      pointer = to.data();
    };
    read_labels("class_labels", class_labels, labels.class_labels);
    read_labels("augment_labels", augment_labels, labels.augment_labels);

    ms::tensor<double, Backend> d(backend, images);
    model.denoise(x.view(), sigmas, d.view(), labels);
    got["output." + q + "denoised"] = reorder(d.to_host(), images, false);

    // Raw results, loss and gradients by the training path.
    const ms::routing r = model.route(sigmas);
    const auto target = reorder(g.input(q + "target"), images, true);
    const auto noisy = x.to_host();
    ms::tensor<scalar, Backend> gradients(backend, model.weights().extents());
    const auto in = model.prepare(x.data(), sigmas, r, labels).inputs;
    std::vector<double> raw(std::size_t(images.size()));
    double loss = 0;
    model.engine().differentiate(
        model.weights().data(), gradients.data(), in, r.rows_by_stage,
        [&](int, ms::index_t first, ms::index_t rows, const scalar* f, scalar* df) {
          const ms::index_t size = images.row_size();
          std::vector<scalar> host(std::size_t(rows * size)), gradient(host.size());
          backend.download(f, host.data(), rows * size);
          for (ms::index_t i = 0; i < rows * size; ++i) {
            const ms::index_t row = r.order[first + i / size];
            const ms::index_t at = row * size + i % size;
            const ms::preconditioning_factors k = config.precond.at(sigmas[row]);
            const double w =
                (sigmas[row] * sigmas[row] + 0.25) / (0.25 * sigmas[row] * sigmas[row]);
            const double e = k.skip * noisy[at] + k.out * host[i] - target[at];
            raw[at] = host[i];
            loss += w * e * e / double(images.rows);
            gradient[i] = scalar(2 * w * e * k.out / double(images.rows));
          }
          backend.upload(gradient.data(), df, rows * size);
        });
    got["output." + q + "raw"] = reorder(raw, images, false);
    got["output." + q + "loss"] = {loss};
    add_tensors("grad." + q, gradients.to_host(), s);
  }
  return got;
}

}  // namespace golden
