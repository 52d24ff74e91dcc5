// Makes a data set of latents: encode DATA AUTOENCODER OUT [--images N]. OUT gets shards of
// float32, which `train --data OUT`, `cluster OUT` and any other program take as images, and
// OUT/autoencoder.safetensors, the autoencoder with the scale_factor that was measured here, by
// which `generate --autoencoder` decodes. Labels stay, and so do embeddings of one's own that
// lie beside the pictures (context.npy, null_context.npy).
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <multistage/diffusion/latent_images.hpp>
#include <multistage/io.hpp>
#include <multistage/io/shard_writer.hpp>
#include <multistage/multistage.hpp>

#include "command_line.hpp"
#include "image_options.hpp"

namespace ms = multistage;

namespace {

struct settings {
  std::string data;
  std::string autoencoder;
  std::string out;
  ms::index_t images = 4096;
  ms::index_t batch = 16;
  int threads = 0;
  ms::io::image_rule rule;
};

int encode(const settings& s) {
  ms::require<ms::value_error>(!ms::io::is_shards(s.out), "encode: ", s.out,
                               " holds a data set already; name another folder, or remove it");
  auto model = ms::io::load_autoencoder<float>(s.autoencoder, ms::cpu(s.threads));
  const ms::image_source pictures = ms::io::open_images(s.data, s.rule);
  const double scale = ms::measure_scale_factor(model, pictures, s.images);
  const ms::image_source latents = ms::latent_images(model, pictures, s.batch);
  const ms::shape& e = latents.extents;
  ms::io::shard_writer writer(s.out, e, {.kind = latents.kind});
  const std::vector<int> labels = pictures.labels();
  std::vector<float> values(std::size_t(s.batch * e.row_size()));
  ms::progress bar("encoding");
  for (ms::index_t first = 0; first < e.rows; first += s.batch) {
    const ms::index_t n = std::min(s.batch, e.rows - first);
    latents.read_block(first, n, values.data());
    for (ms::index_t i = 0; i < n; ++i)
      writer.append(
          std::span<const float>(values.data() + i * e.row_size(), std::size_t(e.row_size())),
          labels.empty() ? -1 : labels[std::size_t(first + i)]);
    bar.show(double(first + n) / double(e.rows), "");
  }
  bar.end();
  ms::io::save_autoencoder(s.out + "/autoencoder.safetensors", model);
  writer.finish(pictures.class_names,
                {{"source", s.data}, {"autoencoder", s.autoencoder}, {"scale_factor", scale}});
  std::printf(
      "%lld images of %lld x %lld x %lld as %s of %lld x %lld x %lld; scale_factor %.6g\n",
      static_cast<long long>(e.rows), static_cast<long long>(pictures.extents.height),
      static_cast<long long>(pictures.extents.width),
      static_cast<long long>(pictures.extents.channels),
      latents.kind == ms::image_values::moments ? "moments" : "latents",
      static_cast<long long>(e.height), static_cast<long long>(e.width),
      static_cast<long long>(e.channels), scale);
  for (const std::string& name : ms::io::copy_context(s.data, s.out))
    std::printf("embeddings copied: %s\n", name.c_str());
  std::printf(
      "written: %s; train --data %s, generate --autoencoder %s/autoencoder.safetensors\n",
      s.out.c_str(), s.out.c_str(), s.out.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Makes a data set of latents with an autoencoder"};
  app.add_option("data", s.data, "pictures: shards, an array, a folder, ...")->required();
  app.add_option("autoencoder", s.autoencoder, "of train --autoencoder, or converted")
      ->required();
  app.add_option("out", s.out, "the folder that is made")->required();
  app.add_option("--images", s.images, "of which scale_factor is measured, at most")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  app.add_option("--batch", s.batch, "pictures encoded at once")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  app.add_option("--threads", s.threads, "0: one a processor that may be used")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  add_image_options(app, s.rule);
  return command_line::run(app, argc, argv, [&] { return encode(s); });
}
