// The data path: data FOLDER [IMAGES]. Writes a set of so many pictures of 32 x 32 in shards (1
// million by default, 3 GB; FOLDER must not be there, and is removed), reads them in random
// order from the page cache, and compares the trainer's step on them, mirrored, with the same
// step on rows that are given, where nothing is read. Best of several runs.
#include <chrono>
#include <cstdio>
#include <multistage/io/shard_writer.hpp>
#include <multistage/multistage.hpp>

namespace ms = multistage;

namespace {

constexpr ms::index_t row_size = 32 * 32 * 3;

/// Seconds of the best of `runs` calls.
template <class F>
double best(int runs, F&& f) {
  double least = 1e300;
  for (int i = 0; i < runs; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    f();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    least = std::min(least, took.count());
  }
  return least;
}

void write_set(const std::string& folder, ms::index_t images) {
  ms::io::shard_writer set(folder, {0, 32, 32, 3});
  std::vector<unsigned char> pixels(row_size);
  for (ms::index_t i = 0; i < images; ++i) {
    for (std::size_t k = 0; k < pixels.size(); ++k)
      pixels[k] = static_cast<unsigned char>(i * 31 + ms::index_t(k) * 7);
    set.append(pixels, int(i % 10));
  }
  set.finish();
}

/// Rows drawn with replacement, in batches as training reads them: images a second.
void read_at_random(const ms::image_source& images) {
  constexpr ms::index_t batch = 256;
  constexpr ms::index_t batches = 1000;
  std::vector<ms::index_t> rows(batch);
  std::vector<float> values(batch * row_size);
  std::vector<unsigned char> bytes(batch * row_size);
  const auto walk = [&](auto& read, auto* to) {
    return double(batch * batches) / best(3, [&] {
             for (ms::index_t b = 0; b < batches; ++b) {
               for (ms::index_t r = 0; r < batch; ++r)
                 rows[std::size_t(r)] = ms::image_of_row({1, b}, r, images.extents.rows);
               read(rows, to);
             }
           });
  };
  std::printf("random rows as bytes:  %9.0f images/s\n", walk(images.read_bytes, bytes.data()));
  std::printf("random rows as floats: %9.0f images/s\n", walk(images.read, values.data()));
}

/// Seconds a step: the trainer's own, and one on rows that are given.
void train(const ms::image_source& images) {
  constexpr ms::index_t rows = 64;
  using model = ms::multi_decoder<ms::song_unet{.resolution = 32,
                                                .channels = 3,
                                                .encoder_channels = 32,
                                                .channel_mult = {1, 2, 2},
                                                .num_blocks = 1,
                                                .attn_resolutions = {16}},
                                  ms::decoders{{48, 32, 16}}>;
  const ms::trainer_options options{.batch_size = rows, .stage_probabilities = {1, 0, 0}};
  model net(ms::partition({0.5, 20.0}), ms::seed{1});
  ms::trainer trainer{net, images, options, ms::mirror{}};
  ms::training_batch<float> given;
  given.images.assign(rows * row_size, 0.25f);
  given.noise.assign(rows * row_size, 0.5f);
  given.sigmas.assign(rows, 0.25);
  trainer.step();
  trainer.step(given);
  double own = 1e300;
  double bare = 1e300;
  for (int turn = 0; turn < 8; ++turn) {  // in turns: machines differ from minute to minute
    own = std::min(own, best(3, [&] { trainer.step(); }));
    bare = std::min(bare, best(3, [&] { trainer.step(given); }));
  }
  std::printf("step of %lld rows: %.4f s, on given rows %.4f s: %.1f %% of its speed\n",
              static_cast<long long>(rows), own, bare, 100 * bare / own);
}

}  // namespace

int main(int count, char** arguments) {
  return ms::exit_status([&] {
    ms::require<ms::value_error>(count == 2 || count == 3, "data FOLDER [IMAGES]");
    const std::string folder = arguments[1];
    ms::require<ms::value_error>(!std::filesystem::exists(folder), folder,
                                 ": is there already; name a folder that is not");
    const ms::index_t images = count > 2 ? std::atoll(arguments[2]) : 1'000'000;
    std::printf("writing %lld images: %.1f s\n", static_cast<long long>(images),
                best(1, [&] { write_set(folder, images); }));
    const double open = best(3, [&] { ms::io::open_shards(folder); });
    std::printf("opening them: %.4f s\n", open);
    {
      const ms::image_source set = ms::io::open_shards(folder);
      read_at_random(set);
      train(set);
    }
    std::filesystem::remove_all(folder);
    return 0;
  });
}
