// Runs a checkpoint on given inputs, for comparisons with other implementations: run_network
// CHECKPOINT IN.safetensors OUT.safetensors IN holds x [n, c, h, w] and t [n] (the network's
// own label), or sigma [n] (then D(x; sigma) is computed), and context [n, tokens, dim] where
// the network has one; for an autoencoder and for Inception only x.
#include <cstdio>
#include <multistage/io.hpp>
#include <multistage/multistage.hpp>

namespace ms = multistage;

namespace {

std::vector<float> nhwc(const ms::io::safetensors& f, const ms::shape& s) {
  const auto v = f.get<float>("x");
  ms::require<ms::shape_error>(ms::index_t(v.size()) == s.size(), "x has ", v.size(),
                               " values, expected ", s);
  std::vector<float> out(v.size());
  const auto at = ms::nchw(v.data(), s);
  ms::index_t i = 0;
  for (ms::index_t n = 0; n < s.rows; ++n)
    for (ms::index_t h = 0; h < s.height; ++h)
      for (ms::index_t w = 0; w < s.width; ++w)
        for (ms::index_t c = 0; c < s.channels; ++c)
          out[i++] = at.data[n * at.strides[0] + h * at.strides[1] + w * at.strides[2] +
                             c * at.strides[3]];
  return out;
}

template <class T>
void add(ms::io::safetensors_writer& w,
         const char* name,
         const std::vector<T>& values,
         const ms::shape& s) {
  std::vector<float> out(values.size());
  const auto at = ms::nchw(out.data(), s);
  ms::index_t i = 0;
  for (ms::index_t n = 0; n < s.rows; ++n)
    for (ms::index_t h = 0; h < s.height; ++h)
      for (ms::index_t q = 0; q < s.width; ++q)
        for (ms::index_t c = 0; c < s.channels; ++c)
          at.data[n * at.strides[0] + h * at.strides[1] + q * at.strides[2] +
                  c * at.strides[3]] = float(values[i++]);
  w.add(name, {s.rows, s.channels, s.height, s.width}, out);
}

int run(const std::string& checkpoint, const std::string& input, const std::string& output) {
  const ms::io::safetensors in(input);
  const ms::index_t rows = in.entry("x").extents.at(0);
  ms::cpu b;
  ms::io::safetensors_writer out;
  const std::string format = ms::io::safetensors(checkpoint).meta("format");
  if (format == ms::io::inception_format) {
    const auto& e = in.entry("x").extents;
    const ms::shape s{rows, e.at(2), e.at(3), e.at(1)};
    auto net = ms::io::load_inception(checkpoint, b);
    const auto r = net(nhwc(in, s), s);
    add(out, "y", r.features, {rows, 1, 1, net.feature_count});
    add(out, "p", r.probabilities, {rows, 1, 1, net.classes()});
  } else if (format == ms::io::autoencoder_format) {
    auto model = ms::io::load_autoencoder<float>(checkpoint, b);
    const ms::tensor<float, ms::cpu> x(b, model.images(rows), nhwc(in, model.images(rows)));
    ms::tensor<float, ms::cpu> z(b, model.latents(rows)), decoded(b, model.images(rows));
    model.encode(x.view(), z.view());
    model.decode(std::as_const(z).view(), decoded.view());
    add(out, "z", z.to_host(), z.extents());
    add(out, "decoded", decoded.to_host(), decoded.extents());
  } else {
    auto model = ms::load<float>(checkpoint, b);
    const ms::shape s = model.images(rows);
    const auto host = nhwc(in, s);
    if (in.contains("sigma")) {
      const ms::tensor<double, ms::cpu> x(b, s, std::vector<double>(host.begin(), host.end()));
      ms::tensor<double, ms::cpu> d(b, s);
      model.denoise(x.view(), in.get<double>("sigma"), d.view());
      add(out, "y", d.to_host(), s);
    } else {
      const ms::tensor<float, ms::cpu> x(b, s, host), t(b, {rows, 1, 1, 1}, in.get<float>("t"));
      ms::tensor<float, ms::cpu> context, y(b, s);
      ms::network_inputs<float> given;
      given[ms::input_slot::image] = x.data();
      given[ms::input_slot::noise_level] = t.data();
      if (in.contains("context")) {
        const auto v = in.get<float>("context");
        context = {b, {rows, 1, 1, ms::index_t(v.size()) / rows}, v};
        given[ms::input_slot::context] = context.data();
      }
      std::vector<ms::index_t> by_stage(std::size_t(model.stage_count()), 0);
      by_stage[0] = rows;
      model.engine().forward(model.weights().data(), given, by_stage, y.data());
      add(out, "y", y.to_host(), s);
    }
  }
  out.write(output);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return ms::exit_status([&] {
    ms::require<ms::value_error>(
        argc == 4, "usage: run_network CHECKPOINT IN.safetensors OUT.safetensors");
    return run(argv[1], argv[2], argv[3]);
  });
}
