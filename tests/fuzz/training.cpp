// Any text as a configuration, and a small model of it through a training step and a sample: an
// error of the library, or pictures of finite numbers.
#include <cstdlib>
#include <multistage/io/json.hpp>
#include <multistage/multistage.hpp>

namespace ms = multistage;

namespace {

/// Whether settings are small enough that the network can be recorded in no time.
template <class Net>
bool is_small(const Net& n, const ms::decoders& d) {
  if constexpr (std::is_same_v<Net, ms::custom_network>) {
    return false;
  } else {
    int widest = n.encoder_channels;
    int blocks = n.num_blocks;
    int mult = 1;
    for (int s = 0; s < d.stage_count(); ++s)
      widest = std::max(widest, d.widths[std::size_t(s)]),
      blocks = std::max(blocks, d.blocks[std::size_t(s)]);
    for (int i = 0; i < n.depth(); ++i)
      mult = std::max(mult, n.channel_mult[std::size_t(i)]);
    return n.resolution <= 8 && n.width() <= 8 && n.channels <= 4 && widest <= 32 &&
           blocks <= 2 && mult <= 4 && n.label_dim <= 8;
  }
}

void train_and_sample(const ms::configuration& c, const ms::partition& stages) {
  if (!std::visit([&](const auto& n) { return is_small(n, c.stages); }, c.network))
    return;
  const ms::described_network recorded = ms::record(c);
  ms::index_t macs = 0;
  for (int s = 0; s < recorded.structure.segments; ++s)
    macs += ms::cost_of_segment(recorded.structure, s).macs;
  if (macs > 2'000'000 || recorded.structure.parameter_elements > 200'000)
    return;
  ms::dynamic_model<float, ms::cpu> model(ms::cpu(1), c, stages, 1);
  const ms::shape extents = model.images(2);
  std::vector<float> images(std::size_t(extents.size()));
  for (std::size_t i = 0; i < images.size(); ++i)
    images[i] = float(i % 7) / 3.5f - 1;
  const ms::index_t known = model.label_dim(ms::input_slot::class_labels);
  const std::vector<int> classes(known > 0 ? 2 : 0, 0);
  ms::trainer<float, ms::cpu> trainer(model, std::span<const float>(images), extents,
                                      {.batch_size = 2}, classes);
  trainer.step();
  const ms::sampling_result pictures =
      ms::sample(model, ms::edm_heun{.num_steps = 2}, {.seeds = "0-1"});
  for (const double v : pictures.images)
    if (!ms::is_finite(v))
      std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  try {
    const auto j = ms::io::parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
    const ms::configuration c = ms::io::configuration_from_json(j);
    train_and_sample(c,
                     ms::io::partition_from_json(j->value("stage_boundaries", ms::io::json())));
  } catch (const ms::error&) {
  }
  return 0;
}
