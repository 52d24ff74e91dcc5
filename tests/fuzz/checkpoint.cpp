// A checkpoint whose metadata and bytes are the fuzzer's, resumed and loaded: an error of the
// library, or a state that training goes on from. The input is a line for the metadata
// "training", one for "config" (an empty line keeps what a sound file has), and then edits of
// the file's bytes, three bytes each: where (16 bits) and what.
#include <unistd.h>

#include <cstdlib>
#include <multistage/multistage.hpp>
#include <multistage/training/checkpoint.hpp>

namespace ms = multistage;

namespace {

constexpr ms::song_unet tiny{.resolution = 2,
                             .channels = 1,
                             .encoder_channels = 4,
                             .channel_mult = {1},
                             .num_blocks = 0,
                             .attn_resolutions = {}};

struct run {
  std::vector<float> images = {-1, 1, 0.5f, -0.5f, 0, 0.25f, -0.25f, 0.125f};
  ms::dynamic_model<float, ms::cpu> model{ms::cpu(1),
                                          {tiny, {{4, 4}}, {}},
                                          ms::partition({1.0}),
                                          1};
  ms::trainer<float, ms::cpu> trainer{
      model,
      std::span<const float>(images),
      ms::shape{2, 2, 2, 1},
      {.average_stds = {0.1}, .batch_size = 4, .least_stage_share = 0.2}};
};

/// A sound checkpoint's header and data.
struct sound_file {
  ms::io::json header;
  std::string data;

  sound_file() {
    run r;
    r.trainer.step();
    const std::string path = "/tmp/multistage-fuzz-" + std::to_string(::getpid());
    ms::save(path, r.trainer);
    const auto bytes = ms::io::read_file(path);
    ::unlink(path.c_str());
    std::size_t length = 0;
    for (int i = 7; i >= 0; --i)
      length = length << 8 | bytes[std::size_t(i)];
    header = ms::io::json::parse(bytes.begin() + 8, bytes.begin() + 8 + std::ptrdiff_t(length));
    data.assign(bytes.begin() + 8 + std::ptrdiff_t(length), bytes.end());
  }
};

std::string line_of(std::string_view& rest) {
  const std::size_t end = std::min(rest.find('\n'), rest.size());
  std::string line(rest.substr(0, end));
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return line;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  static const sound_file sound;
  static run r;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  ms::io::json header = sound.header;
  for (const char* key : {"training", "config"})
    if (const std::string line = line_of(rest); !line.empty())
      header["__metadata__"][key] = line;
  const std::string text = header.dump(-1, ' ', false, ms::io::json::error_handler_t::replace);
  std::vector<unsigned char> file;
  for (int i = 0; i < 8; ++i)
    file.push_back(static_cast<unsigned char>(text.size() >> (8 * i)));
  file.insert(file.end(), text.begin(), text.end());
  file.insert(file.end(), sound.data.begin(), sound.data.end());
  for (; rest.size() >= 3; rest.remove_prefix(3)) {
    const std::size_t at = std::size_t(static_cast<unsigned char>(rest[0])) << 8 |
                           static_cast<unsigned char>(rest[1]);
    file[at % file.size()] = static_cast<unsigned char>(rest[2]);
  }
  try {
    const ms::io::safetensors f("fuzz", file);
    try {
      ms::load<float>(f, ms::cpu(1));
    } catch (const ms::error&) {
    }
    ms::resume(f, r.trainer);
    for (const auto* t : {&r.model.weights(), &r.model.averaged_weights(),
                          &r.trainer.first_moment(), &r.trainer.second_moment()})
      for (const float v : t->to_host())
        if (!ms::is_finite(v))
          std::abort();
    if (r.trainer.steps() < 0 || !(r.trainer.images_seen() >= 0))
      std::abort();
    r.trainer.step();
  } catch (const ms::error&) {
  }
  return 0;
}
