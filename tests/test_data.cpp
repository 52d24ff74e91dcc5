// The way of data: images by their numbers in any order, shards and what is refused of them;
// transforms, batches that are read ahead, and what a trainer makes of both.
#include <sys/resource.h>

#include <atomic>
#include <cmath>
#include <multistage/data/augment.hpp>
#include <multistage/data/held.hpp>
#include <multistage/data/spread.hpp>
#include <multistage/io/dataset.hpp>
#include <multistage/io/shard_writer.hpp>
#include <multistage/multistage.hpp>
#include <multistage/training/checkpoint.hpp>
#include <thread>

#include "catch.hpp"
#include "directory.hpp"

namespace {

namespace io = ms::io;
namespace fs = std::filesystem;
using test::directory;
using test::message;

constexpr ms::index_t image = 4 * 3 * 2;

/// Byte k of image i, of no pattern that a mistake of order would keep.
unsigned char byte_of(ms::index_t i, ms::index_t k) {
  return static_cast<unsigned char>((i * 37 + k * 101 + i * k) % 251);
}
std::vector<unsigned char> bytes_of(ms::index_t i) {
  std::vector<unsigned char> bytes(image);
  for (ms::index_t k = 0; k < image; ++k)
    bytes[std::size_t(k)] = byte_of(i, k);
  return bytes;
}
std::string name_of(ms::index_t i) {
  return "folder " + std::to_string(i % 3) + "/" + std::to_string(i) + "\n.png";
}
/// A set of n images, three a file, of which image i has the class i % 5 of 7.
void write_set(const std::string& folder,
               ms::index_t n,
               std::uint64_t shard_bytes = 3 * image) {
  io::shard_writer set(folder, {0, 4, 3, 2}, {.shard_bytes = shard_bytes});
  for (ms::index_t i = 0; i < n; ++i)
    set.append(bytes_of(i), int(i % 5), name_of(i));
  set.finish({"a", "b", "c", "d", "e", "f", "g"}, {{"source", "a test"}});
}
/// Replaces text in a file.
void edit(const std::string& path, const std::string& from, const std::string& to) {
  const auto bytes = io::read_file(path);
  std::string text(bytes.begin(), bytes.end());
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  text.replace(at, from.size(), to);
  io::write_file(path, text);
}

constexpr ms::song_unet tiny{.resolution = 4,
                             .channels = 2,
                             .columns = 3,
                             .encoder_channels = 8,
                             .channel_mult = {1},
                             .num_blocks = 1,
                             .attn_resolutions = {},
                             .label_dim = 7,
                             .augment_dim = 1};
using model_type = ms::dynamic_model<float, ms::cpu>;
model_type make_model(int augment_dim = 1) {
  ms::song_unet net = tiny;
  net.augment_dim = augment_dim;
  return {ms::cpu(1), {net, {{8, 8}}, {}}, ms::partition({1.0}), 1};
}
const ms::trainer_options usual{.learning_rate = 2e-3,
                                .lr_rampup_kimg = 0,
                                .batch_size = 8,
                                .label_dropout = 0.25,
                                .seed = 5};

/// Images 0 to n - 1 as a set, of which `broken` throws where it says so.
ms::image_source made(ms::index_t n, std::shared_ptr<std::atomic<int>> broken = {}) {
  ms::image_source images{{n, 4, 3, 2}, [broken](std::span<const ms::index_t> rows, float* to) {
                            if (broken && (*broken)-- == 1)
                              ms::fail<ms::file_error>("the disk is gone");
                            for (const ms::index_t row : rows)
                              for (ms::index_t k = 0; k < image; ++k)
                                *to++ = ms::value_of_byte(byte_of(row, k));
                          }};
  std::vector<int> labels;
  for (ms::index_t i = 0; i < n; ++i)
    labels.push_back(int(i % 5));
  images = images.labelled(labels, 7);
  images.class_names = {"a", "b", "c", "d", "e", "f", "g"};
  return images;
}

/// Weights after so many steps.
std::vector<float> trained(const ms::image_source& images,
                           int steps,
                           const ms::image_transform& transform = {}) {
  model_type model = make_model();
  ms::trainer trainer{model, images, usual, transform};
  while (steps-- > 0)
    trainer.step();
  return model.weights().to_host();
}

/// Negates all images and says so; each fourth row twice.
struct negative {
  ms::bound_transform bind(const ms::shape& of) const {
    return {of, 1,
            [n = of.row_size()](const float* from, const ms::step_numbers&, ms::index_t row,
                                float* to, float* labels) {
              for (ms::index_t i = 0; i < n; ++i)
                to[i] = row % 4 == 0 ? from[i] : -from[i];
              labels[0] = row % 4 == 0 ? 0.0f : 1.0f;
            }};
  }
};

}  // namespace

TEST_CASE("shards give images, labels and names by their numbers, in any order") {
  const directory dir;
  const ms::index_t n = 11;
  write_set(dir / "set", n);
  CHECK(fs::file_size(dir / "set/images-00003.bin") == 2 * image);
  for (const char* path : {"set", "set/index.json"}) {
    const ms::image_source images = io::open_images(dir / path);
    REQUIRE(images.extents == ms::shape{n, 4, 3, 2});
    CHECK(images.class_count == 7);
    CHECK(images.class_names[6] == "g");
    // Backwards, over the files' ends, one twice.
    const std::vector<ms::index_t> rows{10, 9, 2, 3, 4, 5, 0, 0, 7};
    std::vector<unsigned char> bytes(rows.size() * image);
    std::vector<float> values(bytes.size());
    std::vector<int> labels(rows.size());
    images.read_bytes(rows, bytes.data());
    images.read(rows, values.data());
    images.read_labels(rows, labels.data());
    for (std::size_t r = 0; r < rows.size(); ++r) {
      CHECK(labels[r] == rows[r] % 5);
      for (ms::index_t k = 0; k < image; ++k) {
        const unsigned char want = byte_of(rows[r], k);
        CHECK(bytes[r * image + std::size_t(k)] == want);
        CHECK(values[r * image + std::size_t(k)] == float(want) / 127.5f - 1);
      }
    }
    CHECK_THAT(message([&] {
                 images.read(std::vector<ms::index_t>{3, 11}, values.data());
               }),
               Catch::Contains("image 11 of 11"));
    CHECK_THAT(message([&] { images.read(std::vector<ms::index_t>{-1}, values.data()); }),
               Catch::Contains("image -1 of 11"));
  }
  ms::index_t i = 0;
  io::for_each_file_name(dir / "set",
                         [&](const std::string& name) { CHECK(name == name_of(i++)); });
  CHECK(i == n);
  CHECK((*io::read_shard_index(dir / "set").made)["source"] == "a test");
  io::check_shards(dir / "set");
}

TEST_CASE("a set is known by its fingerprint, however many images a file holds") {
  const directory dir;
  write_set(dir / "a", 11);
  write_set(dir / "b", 11, 1);  // an image is the least
  write_set(dir / "c", 11, 1 << 20);
  CHECK(fs::exists(dir / "b/images-00010.bin"));
  CHECK(!fs::exists(dir / "c/images-00001.bin"));
  const std::string print = io::open_images(dir / "a").fingerprint;
  CHECK(io::open_images(dir / "b").fingerprint == print);
  CHECK(io::open_images(dir / "c").fingerprint == print);
  write_set(dir / "d", 10);
  CHECK(io::open_images(dir / "d").fingerprint != print);
}

TEST_CASE("latents are floats, and embeddings lie beside the images") {
  const directory dir;
  {
    io::shard_writer set(dir / "set", {0, 1, 1, 4},
                         {.kind = ms::image_values::moments, .shard_bytes = 40});
    for (int i = 0; i < 5; ++i)
      set.append(std::vector<float>{float(i), -2.5f, 1e6f, float(-i)});
    CHECK_THAT(message([&] {
                 set.append(std::vector<float>{0, NAN, 0, 0});
               }),
               Catch::Contains("image 5 holds nan"));
    CHECK_THAT(message([&] { set.append(std::vector<unsigned char>(4)); }),
               Catch::Contains("floats, not bytes"));
    set.finish();
  }
  std::vector<double> context(5 * 2 * 3);
  for (std::size_t i = 0; i < context.size(); ++i)
    context[i] = double(i) / 2;
  io::write_npy(dir / "set/context.npy", {5, 2, 3}, context);
  const ms::image_source images = io::open_images(dir / "set");
  CHECK(images.kind == ms::image_values::moments);
  CHECK(!images.read_bytes);
  CHECK(!images.read_labels);
  std::vector<float> values(8);
  images.read(std::vector<ms::index_t>{4, 1}, values.data());
  CHECK(values == std::vector<float>{4, -2.5f, 1e6f, -4, 1, -2.5f, 1e6f, -1});
  REQUIRE(images.context);
  CHECK(images.context->extents == ms::shape{5, 1, 2, 3});
  std::vector<float> row(6);
  images.context->read(std::vector<ms::index_t>{3}, row.data());
  CHECK(row == std::vector<float>{9, 9.5f, 10, 10.5f, 11, 11.5f});
  // What stands for no context, too.
  CHECK(images.null_context.empty());
  io::write_npy(dir / "set/null_context.npy", {2, 3}, std::vector<double>{1, 2, 3, 4, 5, -6.5});
  CHECK(io::open_images(dir / "set").null_context == std::vector<float>{1, 2, 3, 4, 5, -6.5f});
  const auto opened = [&] {
    return message([&] { io::open_images(dir / "set"); });
  };
  io::write_npy(dir / "set/null_context.npy", {6}, std::vector<double>{1, 2, 3, 4, 5, 6});
  CHECK_THAT(opened(), Catch::Contains("null_context.npy: is no array of floats [2, 3]"));
  fs::rename(dir / "set/context.npy", dir / "set/away.npy");
  CHECK_THAT(opened(), Catch::Contains("no context.npy beside it"));
  io::write_npy(dir / "set/context.npy", {5, 6}, context);
  CHECK(io::open_images(dir / "set").null_context == std::vector<float>{1, 2, 3, 4, 5, 6});
  io::write_npy(dir / "set/context.npy", {3, 2, 5}, context);
  CHECK_THAT(opened(), Catch::Contains("context.npy") && Catch::Contains("[5, tokens, width]"));
}

TEST_CASE("a set of more files than a process may open is read with a few of them open") {
  const directory dir;
  const ms::index_t n = 150;
  write_set(dir / "set", n, 1);
  struct rlimit before {};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  struct rlimit few = before;
  few.rlim_cur = 48;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &few) == 0);
  const auto read = [&](const ms::image_source& images, ms::index_t step) {
    std::vector<ms::index_t> rows;
    for (ms::index_t i = 0; i < n; ++i)
      rows.push_back(i * step % n);
    std::vector<float> values(std::size_t(n * image));
    const std::string said = message([&] { images.read(rows, values.data()); });
    for (ms::index_t i = 0; i < n && said == "nothing"; ++i)
      if (values[std::size_t(i * image)] != ms::value_of_byte(byte_of(rows[std::size_t(i)], 0)))
        return "wrong image " + std::to_string(rows[std::size_t(i)]);
    return said;
  };
  std::string said[4];
  said[0] = message([&] {
    const ms::image_source images = io::open_images(dir / "set");
    std::thread other([&] { said[1] = read(images, 77); });
    said[2] = read(images, 7);
    other.join();
    // A file that was closed in between is known again; another one is not taken for it.
    io::write_file(dir / "set/images-00000.bin", std::string(std::size_t(image), 'x'));
    said[3] = read(images, 1);
  });
  ::setrlimit(RLIMIT_NOFILE, &before);
  CHECK(said[0] + said[1] + said[2] == "nothingnothingnothing");
  CHECK_THAT(said[3], Catch::EndsWith("images-00000.bin: was changed after it was opened; "
                                      "open it again"));
}

TEST_CASE("a set that is cut, unfinished or changed is an error that names the file") {
  const directory dir;
  const std::string set = dir / "set";
  const auto opened = [&] {
    return message([&] { io::open_images(set); });
  };
  const auto anew = [&] {
    fs::remove_all(set);
    write_set(set, 11);
  };
  anew();
  const ms::image_source images = io::open_images(set);
  fs::resize_file(set + "/images-00001.bin", 3 * image - 1);
  std::vector<float> values(image);
  CHECK_THAT(message([&] { images.read(std::vector<ms::index_t>{5}, values.data()); }),
             Catch::Contains("images-00001.bin") && Catch::Contains("cut"));
  CHECK_THAT(opened(), Catch::Contains("images-00001.bin: has 71 bytes, the index says 72"));
  fs::remove(set + "/images-00001.bin");
  CHECK_THAT(opened(), Catch::Contains("images-00001.bin: cannot be opened"));
  anew();
  fs::remove(set + "/index.json");
  CHECK_THAT(opened(), Catch::Contains("was not finished"));
  anew();
  fs::resize_file(set + "/labels.bin", 40);
  CHECK_THAT(opened(), Catch::Contains("labels.bin: has 40 bytes, the index says 44"));
  // A label that no class has is found when it is read; other bytes by comparing all.
  anew();
  std::string labels(44, '\0');
  labels[4] = 9;
  io::write_file(set + "/labels.bin", labels);
  CHECK_THAT(message([&] { io::open_images(set).labels(); }),
             Catch::Contains("image 1 is of class 9"));
  anew();
  edit(set + "/images-00002.bin", {char(byte_of(7, 5))}, "x");
  CHECK_THAT(message([&] { io::check_shards(set); }), Catch::Contains("images-00002.bin"));
  anew();
  edit(set + "/labels.bin", {"\2", 1}, {"\3", 1});
  CHECK_THAT(message([&] { io::check_shards(set); }), Catch::Contains("labels or index"));
  edit(set + "/file_names.bin", {"\0", 1}, "/");
  CHECK_THAT(message([&] { io::for_each_file_name(set, [](const std::string&) {}); }),
             Catch::Contains("holds 10 names for 11 images"));
}

TEST_CASE("an index that lies is refused before memory is asked for") {
  const directory dir;
  const std::string index = dir / "set/index.json";
  write_set(dir / "set", 11);
  const auto bytes = io::read_file(index);
  const std::string good(bytes.begin(), bytes.end());
  const auto says = [&](const std::string& from, const std::string& to,
                        const std::string& what) {
    io::write_file(index, good);
    edit(index, from, to);
    CHECK_THAT(message([&] { io::open_images(dir / "set"); }),
               Catch::Contains("index.json") && Catch::Contains(what));
  };
  says("multistage images", "something", "is not the index of a data set");
  says("\"version\": 1", "\"version\": 2", "'version' is 2");
  says("\"images\": 11", "\"images\": 0", "'images' is 0");
  says("\"images\": 11", "\"images\": 1e3", "'images' is 1000.0");
  says("\"images\": 11", "\"images\": 1000000000000", "fingerprints");
  says("\"images\": 11", "\"images\": 12345678901234567890", "does not fit");
  says("\"images\": 11", "\"pictures\": 11", "lacks 'images'");
  says("\"height\": 4", "\"height\": -4", "'height' is -4");
  says("\"height\": 4", "\"height\": \"4\"", "'height' is \"4\"");
  says("\"values\": \"pictures\"", "\"values\": \"sounds\"", "'values' is 'sounds'");
  says("\"images_per_shard\": 3", "\"images_per_shard\": 0", "'images_per_shard' is 0");
  says("\"images_per_shard\": 3", "\"images_per_shard\": 1", "fingerprints");
  says("\"classes\": 7", "\"classes\": 3", "names 7 classes of 3");
  says("{", "[", "index.json");
  io::write_file(index, good);
  edit(index, "\"width\": 3", "\"width\": 16777216");
  edit(index, "\"height\": 4", "\"height\": 16777216");
  edit(index, "\"channels\": 2", "\"channels\": 16777216");
  CHECK_THAT(message([&] { io::open_images(dir / "set"); }), Catch::Contains("too large"));
  // Larger pictures than the files have.
  io::write_file(index, good);
  edit(index, "\"width\": 3", "\"width\": 3000");
  CHECK_THAT(message([&] { io::open_images(dir / "set"); }),
             Catch::Contains("images-00000.bin: has 72 bytes, the index says 72000"));
}

TEST_CASE("a writer refuses what does not go together, and never a set that is there") {
  const directory dir;
  const std::vector<unsigned char> pixels(image);
  {
    io::shard_writer set(dir / "set", {0, 4, 3, 2});
    CHECK_THAT(message([&] { set.finish(); }), Catch::Contains("no images"));
    set.append(pixels, 3);
    CHECK_THAT(message([&] { set.append(std::span(pixels).first(5), 3); }),
               Catch::Contains("image 1 has 5 values"));
    CHECK_THAT(message([&] { set.append(pixels); }), Catch::Contains("label -1"));
    CHECK_THAT(message([&] { set.append(pixels, 0, "a.png"); }),
               Catch::Contains("a file name"));
    CHECK_THAT(message([&] { set.finish({"a", "b"}); }), Catch::Contains("labels up to 3"));
    set.append(pixels, 1);
    // Left without its end: nothing is there, and the next one begins anew.
  }
  CHECK(!io::is_shards(dir / "set"));
  io::shard_writer set(dir / "set", {0, 4, 3, 2});
  set.append(pixels);
  set.finish();
  CHECK(io::open_images(dir / "set").extents.rows == 1);
  CHECK_THAT(message([&] {
               io::shard_writer(dir / "set", {0, 4, 3, 2});
             }),
             Catch::Contains("holds a data set already"));
}

TEST_CASE("every kind of set gives its images one by one as in a block") {
  const directory dir;
  fs::create_directories(dir / "pictures");
  for (int i = 0; i < 4; ++i) {
    io::picture p{4, 3, 3, std::vector<unsigned char>(36)};
    for (std::size_t k = 0; k < 36; ++k)
      p.bytes[k] = byte_of(i, ms::index_t(k));
    io::write_png(dir / ("pictures/" + std::to_string(i) + ".png"), p);
  }
  std::string records;
  for (int r = 0; r < 5; ++r) {
    records += char(r);
    for (int i = 0; i < 3072; ++i)
      records += char(byte_of(r, i));
  }
  io::write_file(dir / "data_batch_1.bin", records);
  std::vector<double> values(5 * 4 * 3);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = std::sin(double(i));
  io::write_npy(dir / "a.npy", {5, 4, 3}, values);
  for (const char* path : {"pictures", "data_batch_1.bin", "a.npy"}) {
    const ms::image_source images = io::open_images(dir / path);
    const io::image_set all = io::read_images(dir / path);
    const std::size_t size = std::size_t(all.extents.row_size());
    const std::vector<ms::index_t> rows{3, 0, 1, 3, 2};
    std::vector<float> got(rows.size() * size);
    images.read(rows, got.data());
    for (std::size_t r = 0; r < rows.size(); ++r)
      CHECK(std::equal(got.begin() + long(r * size), got.begin() + long((r + 1) * size),
                       all.values.begin() + rows[r] * long(size)));
    CHECK_THROWS_AS(images.read(std::vector<ms::index_t>{5}, got.data()), ms::value_error);
    if (images.read_bytes) {
      std::vector<unsigned char> bytes(got.size());
      images.read_bytes(rows, bytes.data());
      for (std::size_t i = 0; i < bytes.size(); ++i)
        REQUIRE(float(bytes[i]) / 127.5f - 1 == got[i]);
    }
  }
  const ms::image_source cifar = io::open_images(dir / "data_batch_1.bin");
  CHECK(cifar.labels() == std::vector<int>{0, 1, 2, 3, 4});
  CHECK(cifar.class_names[3] == "cat");
}

namespace {

/// A picture that no mirror, turn or move leaves as it is.
std::vector<float> slanted(const ms::shape& e) {
  std::vector<float> v(std::size_t(e.row_size()));
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = float(std::sin(0.9 * double(i)) * 0.7 + 0.2 * std::cos(0.11 * double(i * i % 97)));
  return v;
}
double farthest(const std::vector<float>& a, const std::vector<float>& b) {
  double d = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    d = std::max(d, std::fabs(double(a[i]) - double(b[i])));
  return d;
}

}  // namespace

// The golden family holds the mathematics; here is what it cannot see.
TEST_CASE("an image that is read where it lies comes back from the wavelet", "[augment]") {
  for (const ms::shape e : {ms::shape{1, 8, 13, 3}, ms::shape{1, 16, 7, 1}}) {
    const std::vector<float> image = slanted(e);
    std::vector<float> got(image.size());
    ms::warp warp;
    warp(image.data(), e, {}, {}, got.data());
    CHECK(farthest(image, got) < 2e-6);
  }
  // A quarter turn of something smooth, away from the border.
  const ms::shape square{1, 24, 24, 3};
  std::vector<float> smooth(std::size_t(square.row_size()));
  for (ms::index_t y = 0; y < 24; ++y)
    for (ms::index_t x = 0; x < 24; ++x)
      for (ms::index_t c = 0; c < 3; ++c)
        smooth[std::size_t((y * 24 + x) * 3 + c)] =
            float(std::sin(0.15 * double(x) + double(c)) * std::cos(0.1 * double(y)));
  std::vector<float> turned(smooth.size());
  ms::warp warp;
  warp(smooth.data(), square, {}, ms::affine_map::rotation(std::acos(0.0)), turned.data());
  for (ms::index_t y = 8; y < 16; ++y)  // output (x, y) shows input (-y, x) about the centre
    for (ms::index_t x = 8; x < 16; ++x)
      CHECK(std::fabs(turned[std::size_t((y * 24 + x) * 3)] -
                      smooth[std::size_t((x * 24 + 23 - y) * 3)]) < 0.01);
}

TEST_CASE("augmentation is a function of seed, step and row, and happens as often as it says",
          "[augment]") {
  const ms::shape e{1, 8, 8, 3};
  const std::vector<float> image = slanted(e);
  ms::augmenter augment(ms::edm_augmentation, e);
  REQUIRE(augment.label_count() == 9);
  std::vector<float> a(image.size());
  std::vector<float> b(image.size());
  std::vector<float> labels(9);
  std::vector<float> again(9);
  const auto chance = [](int step) {
    return ms::random_stream(5, ms::purpose::augmentation, std::uint64_t(step));
  };
  std::vector<double> acted(9);
  int unmoved = 0;
  constexpr int images = 4000;
  for (int i = 0; i < images; ++i) {
    augment(image.data(), chance(i / 50), i % 50, a.data(), labels.data());
    if (i % 100 == 0) {  // another object that has done other things before
      ms::augmenter other(ms::edm_augmentation, e);
      other(image.data(), chance(7), 3, b.data(), again.data());
      other(image.data(), chance(i / 50), i % 50, b.data(), again.data());
      CHECK(a == b);
      CHECK(labels == again);
    }
    for (std::size_t l = 0; l < labels.size(); ++l)
      acted[l] += labels[l] != 0;
    const bool nothing = labels == std::vector<float>(9);
    unmoved += nothing;
    CHECK((a == image) == nothing);
  }
  // xflip: half of all; yflip: half of p = 0.12; the rest p. Five standard deviations.
  const auto near = [&](double count, double share) {
    return std::fabs(count - share * images) < 5 * std::sqrt(share * (1 - share) * images);
  };
  CHECK(near(acted[0], 0.5));
  CHECK(near(acted[1], 0.06));
  for (const std::size_t l : {2, 3, 4, 5, 7, 8})
    CHECK(near(acted[l], 0.12));
  CHECK(near(unmoved, 0.5 * 0.94 * std::pow(0.88, 4)));
}

TEST_CASE("adding a transform leaves the draws of the others; mirrors are exact", "[augment]") {
  const ms::shape e{1, 6, 9, 4};
  const std::vector<float> image = slanted(e);
  ms::augmenter mirror({.p = 1, .xflip = 1}, e);
  ms::augmenter both({.p = 1, .xflip = 1, .translate_int = 1}, e);
  std::vector<float> got(image.size());
  std::vector<float> other(image.size());
  int mirrored = 0;
  for (ms::index_t row = 0; row < 64; ++row) {
    float label[1] = {};
    float labels[3] = {};
    const ms::random_stream chance(1, ms::purpose::augmentation, 0);
    mirror(image.data(), chance, row, got.data(), label);
    both(image.data(), chance, row, other.data(), labels);
    CHECK(label[0] == labels[0]);
    mirrored += label[0] == 1;
    for (ms::index_t y = 0; y < 6; ++y)
      for (ms::index_t x = 0; x < 9; ++x)
        for (ms::index_t c = 0; c < 4; ++c)
          REQUIRE(got[std::size_t((y * 9 + x) * 4 + c)] ==
                  image[std::size_t((y * 9 + (label[0] == 1 ? 8 - x : x)) * 4 + c)]);
  }
  CHECK(mirrored > 15);
  CHECK(mirrored < 49);
}

TEST_CASE("what images cannot have is refused, by name", "[augment]") {
  CHECK(message([] {
          ms::augmenter({.rotate_int = 1}, {1, 8, 9, 3});
        }).find("rotate_int") != std::string::npos);
  CHECK(message([] {
          ms::augmenter({.hue = 1}, {1, 8, 8, 4});
        }).find("1 or 3 channels") != std::string::npos);
  CHECK(message([] {
          ms::augmenter({.p = 1.5}, {1, 8, 8, 3});
        }).find("p = 1.5") != std::string::npos);
}

TEST_CASE("a mirrored image is the image from the other side, for half of the rows") {
  const ms::bound_transform mirrored = ms::image_transform(ms::mirror{}).bind({1, 4, 3, 2});
  std::vector<float> from(image);
  for (std::size_t k = 0; k < from.size(); ++k)
    from[k] = float(k);
  int changed = 0;
  std::vector<float> to(image), again(image);
  for (ms::index_t row = 0; row < 1000; ++row) {
    mirrored.apply(from.data(), {3, 9}, row, to.data(), nullptr);
    mirrored.apply(from.data(), {3, 9}, row, again.data(), nullptr);
    REQUIRE(to == again);
    if (to == from)
      continue;
    ++changed;
    for (int y = 0; y < 4; ++y)
      for (int x = 0; x < 3; ++x)
        for (int c = 0; c < 2; ++c)
          REQUIRE(to[std::size_t((y * 3 + x) * 2 + c)] ==
                  from[std::size_t((y * 3 + 2 - x) * 2 + c)]);
  }
  CHECK(changed > 440);  // 500, standard deviation 16
  CHECK(changed < 560);
  CHECK_THAT(message([] {
               ms::image_transform(ms::mirror{1.5}).bind({1, 4, 3, 2});
             }),
             Catch::Contains("probability = 1.5"));
}

TEST_CASE("batches read ahead are those read when they are asked for, whatever happens") {
  const auto broken = std::make_shared<std::atomic<int>>(0);
  const ms::image_transform both = ms::image_transform(negative{}).then(ms::mirror{});
  ms::batch_reader ahead(made(50, broken), both, {.labels = true});
  ms::batch_reader other(made(50), both, {.labels = true});
  const auto same = [](const ms::image_batch& a, const ms::image_batch& b) {
    CHECK(a.images == b.images);
    CHECK(a.classes == b.classes);
    CHECK(a.augment_labels == b.augment_labels);
  };
  ms::image_batch spare;
  for (ms::index_t step = 0; step < 6; ++step) {
    ms::image_batch batch = ahead.take({1, step}, 8);
    ahead.prepare({1, step + 1}, 8, std::move(spare));
    const ms::image_batch want = other.read({1, step}, 8);
    same(batch, want);
    REQUIRE(want.images.size() == 8 * image);
    // Which images: by the run's numbers for their order; half of what follows is mirrored.
    for (ms::index_t r = 0; r < 8; ++r) {
      const ms::index_t i = ms::random_stream(1, ms::purpose::data_order, std::uint64_t(step))
                                .below(std::uint64_t(r), 50);
      CHECK(want.classes[std::size_t(r)] == i % 5);
      const float sign = r % 4 == 0 ? 1.0f : -1.0f;
      CHECK(want.augment_labels[std::size_t(r)] == (sign < 0 ? 1.0f : 0.0f));
      float sum = 0;
      float sum_want = 0;
      for (ms::index_t k = 0; k < image; ++k) {
        sum += want.images[std::size_t(r * image + k)];
        sum_want += sign * ms::value_of_byte(byte_of(i, k));
      }
      CHECK(sum == Approx(sum_want).margin(1e-4));
    }
    spare = std::move(batch);
  }
  // Another step than was prepared, then the one that was.
  same(ahead.take({1, 9}, 8), other.read({1, 9}, 8));
  same(ahead.take({1, 6}, 8), other.read({1, 6}, 8));
  // What fails ahead is tried again; what fails then arrives, and the next try is as good.
  *broken = 1;
  ahead.prepare({1, 7}, 8);
  same(ahead.take({1, 7}, 8), other.read({1, 7}, 8));
  *broken = 1;
  CHECK_THAT(message([&] { ahead.take({1, 8}, 8); }), Catch::Contains("the disk is gone"));
  same(ahead.take({1, 8}, 8), other.read({1, 8}, 8));
  // In a child of fork() the thread that reads does not exist.
  ahead.prepare({1, 10}, 8);
  const int status = test::in_child([&] {
    const bool equal = ahead.take({1, 10}, 8).images == other.read({1, 10}, 8).images;
    ::_exit(equal ? 0 : 1);
  });
  CHECK(status == 0);
  same(ahead.take({1, 10}, 8), other.read({1, 10}, 8));
}

TEST_CASE("training on shards is training on the images in memory") {
  const directory dir;
  write_set(dir / "set", 40);
  const ms::image_source shards = io::open_images(dir / "set");
  const std::vector<float> values = io::read_all(shards).values;
  model_type model = make_model();
  const std::vector<int> labels = shards.labels();
  ms::trainer trainer{model, std::span<const float>(values), shards.extents, usual,
                      std::span<const int>(labels)};
  for (int i = 0; i < 5; ++i)
    trainer.step();
  CHECK(trained(shards, 5) == model.weights().to_host());
  CHECK(trained(made(40), 5) == model.weights().to_host());
  CHECK(trained(shards, 5, ms::mirror{}) != model.weights().to_host());
}

TEST_CASE("what a step shows the network is the transformed images with their labels") {
  // The same step given from outside: images, noise, labels written down here.
  const ms::image_source images = made(50);
  model_type one = make_model();
  model_type other = make_model();
  ms::trainer_options o = usual;
  o.label_dropout = 0;
  o.stage_probabilities = {1, 0};
  ms::trainer trainer{one, images, o, negative{}};
  ms::trainer by_hand{other, images, o, negative{}};
  for (ms::index_t step = 0; step < 3; ++step) {
    trainer.step();
    const ms::step_numbers numbers{o.seed, step};
    const ms::row_draws draws(o, one.stages());
    const auto rows = draws.draw(8, std::vector<double>{1, 0}, numbers);
    ms::training_batch<float> given;
    given.class_labels.assign(8 * 7, 0.0f);
    for (ms::index_t r = 0; r < 8; ++r) {
      const ms::index_t i = numbers.of(ms::purpose::data_order).below(std::uint64_t(r), 50);
      const bool negated = r % 4 != 0;
      for (ms::index_t k = 0; k < image; ++k) {
        const float v = ms::value_of_byte(byte_of(i, k));
        given.images.push_back(negated ? -v : v);
        given.noise.push_back(float(
            numbers.of(ms::purpose::training_noise).normal(std::uint64_t(r * image + k))));
      }
      given.class_labels[std::size_t(r * 7 + i % 5)] = 1;
      given.augment_labels.push_back(negated ? 1.0f : 0.0f);
      given.sigmas.push_back(rows[std::size_t(r)].sigma);
    }
    by_hand.step(given);
    CHECK(one.weights().to_host() == other.weights().to_host());
  }
  CHECK(trained(images, 2, negative{}) != trained(images, 2));
}

TEST_CASE("images that cannot be read stop a step before it changes anything") {
  std::atomic<bool> gone{false};
  ms::image_source images = made(50);
  images.read = [&gone, read = images.read](std::span<const ms::index_t> rows, float* to) {
    ms::require<ms::file_error>(!gone, "the disk is gone");
    read(rows, to);
  };
  model_type model = make_model();
  ms::trainer trainer{model, images, usual, ms::mirror{}};
  trainer.step();
  gone = true;
  const auto step = [&] {
    return message([&] { trainer.step(); });
  };
  int steps = 1;  // what was read ahead in time can still be trained on
  while (steps < 4 && step() == "nothing")
    ++steps;
  CHECK(steps <= 2);
  CHECK(trainer.steps() == steps);
  CHECK(model.weights().to_host() == trained(made(50), steps, ms::mirror{}));
  CHECK_THAT(step(), Catch::Contains("the disk is gone"));
  gone = false;
  while (trainer.steps() < 5)
    trainer.step();
  CHECK(model.weights().to_host() == trained(made(50), 5, ms::mirror{}));
}

TEST_CASE("a run with mirrored images that was stopped goes on as if it had not been") {
  const directory dir;
  const std::string path = dir / "model.safetensors";
  const ms::image_source images = made(50);
  const std::vector<float> whole = trained(images, 6, ms::mirror{});
  {
    model_type model = make_model();
    ms::trainer trainer{model, images, usual, ms::mirror{}};
    for (int i = 0; i < 3; ++i)
      trainer.step();
    ms::save(path, trainer);
  }
  model_type model = make_model();
  ms::trainer trainer{model, images, usual, ms::mirror{}};
  trainer.step();  // reads step 1 ahead, which is not what comes next
  ms::resume(path, trainer);
  for (int i = 0; i < 3; ++i)
    trainer.step();
  CHECK(model.weights().to_host() == whole);
  // The names of classes travel with the model, and hold others off.
  const model_type loaded = ms::load<float>(path, ms::cpu(1));
  CHECK(loaded.trained().class_names == images.class_names);
  ms::image_source renamed = images;
  renamed.class_names[3] = "z";
  ms::trainer of_others{model, renamed, usual};
  CHECK_THAT(message([&] { ms::resume(path, of_others); }),
             Catch::Contains("class 3 is 'd' there, in this run 'z'"));
  ms::resume(path, of_others, {.other_images = true});
}

TEST_CASE("data that do not go with a model are refused, or warned of") {
  std::vector<std::string> said;
  const auto before =
      ms::set_warning_handler([&](const std::string& text) { said.push_back(text); });
  const auto says = [](const ms::image_source& images, const ms::image_transform& transform) {
    return message([&] {
      model_type model = make_model();
      ms::trainer trainer{model, images, usual, transform};
    });
  };
  ms::image_source images = made(20);
  images.read_labels = {};
  CHECK_THAT(says(images, {}), Catch::Contains("images without labels for a model of 7"));
  images = made(20);
  images.class_count = 8;
  CHECK_THAT(says(images, {}), Catch::Contains("8 classes, the model knows 7"));
  images = made(20);
  images.extents.height = 2;
  images.read = [](std::span<const ms::index_t> rows, float* to) {
    for (std::size_t i = 0; i < rows.size() * 12; ++i)
      to[i] = float(i % 7) / 7;
  };
  CHECK_THAT(says(images, {}), Catch::Contains("images are [20, 2, 3, 2]"));
  CHECK_THAT(says(made(20), ms::image_transform(negative{}).then(negative{})),
             Catch::Contains("gives an image 2 labels, the network reads augment_dim = 1"));
  CHECK(said.empty());
  model_type model = make_model(0);
  ms::trainer trainer{model, made(20), usual, negative{}};
  REQUIRE(said.size() == 1);
  CHECK_THAT(said[0], Catch::Contains("augment_dim = 1"));
  ms::set_warning_handler(before);
}

TEST_CASE("contexts are trained with, and left out for what stands for none") {
  const ms::ldm_unet net{.resolution = 4,
                         .channels = 2,
                         .encoder_channels = 8,
                         .channel_mult = {1},
                         .num_blocks = 1,
                         .attn_downsample = {1},
                         .num_head_channels = 4,
                         .norm_groups = 4,
                         .spatial_transformer = true,
                         .context_dim = 3,
                         .context_tokens = 2};
  ms::image_source images{{30, 4, 4, 2}, [](std::span<const ms::index_t> rows, float* to) {
                            for (const ms::index_t row : rows)
                              for (ms::index_t k = 0; k < 32; ++k)
                                *to++ = ms::value_of_byte(byte_of(row, k));
                          }};
  const auto with = [&](float factor, std::vector<float> none, double dropout,
                        bool any = true) {
    ms::image_source set = images;
    if (any)
      set.context = std::make_shared<const ms::image_source>(ms::image_source{
          {30, 1, 2, 3}, [factor](std::span<const ms::index_t> rows, float* to) {
            for (const ms::index_t row : rows)
              for (int k = 0; k < 6; ++k)
                *to++ = factor * float(row + k) / 10;
          }});
    set.null_context = none;
    model_type model(ms::cpu(1), {net, {{8}}, {}}, ms::partition(), 1);
    ms::trainer_options o = usual;
    o.label_dropout = dropout;
    ms::trainer trainer{model, set, o};
    for (int i = 0; i < 3; ++i)
      trainer.step();
    return model.weights().to_host();
  };
  const auto plain = with(1, {}, 0);
  CHECK(plain != with(2, {}, 0));
  CHECK(plain == with(1, {1, 2, 3, 4, 5, 6}, 0));
  // Always left out: as if all were zeros, or what stands for none.
  CHECK(with(1, {}, 1) == with(0, {}, 0));
  CHECK(with(1, {1, 2, 3, 4, 5, 6}, 1) == with(2, {1, 2, 3, 4, 5, 6}, 1));
  CHECK(with(1, {1, 2, 3, 4, 5, 6}, 1) != with(0, {}, 0));
  CHECK(plain != with(1, {}, 0.5));
}

TEST_CASE("augmented runs: labels in training, none in sampling, and resumed as if not stopped",
          "[augment]") {
  const directory dir;
  const std::string path = dir / "model.safetensors";
  const ms::song_unet told{.resolution = 8,
                           .channels = 3,
                           .encoder_channels = 8,
                           .channel_mult = {1},
                           .num_blocks = 1,
                           .attn_resolutions = {},
                           .augment_dim = ms::edm_augmentation.label_count()};
  const auto fresh = [&] {
    return model_type(ms::cpu(2), {told, ms::decoders{{8, 4}}, {}}, ms::partition({1.0}), 3);
  };
  std::vector<float> pictures;
  for (int i = 0; i < 20; ++i) {
    const std::vector<float> one = slanted({1, 8, 8, 3});
    pictures.insert(pictures.end(), one.begin(), one.end());
    pictures[pictures.size() - std::size_t(i) - 1] = 0.5F;
  }
  const ms::image_source images =
      ms::image_source::of(std::span<const float>(pictures), {20, 8, 8, 3});
  ms::augment_options often = ms::edm_augmentation;
  often.p = 0.7;
  const ms::trainer_options options{.batch_size = 8, .least_stage_share = 0.1};
  const auto steps = [&](model_type& model, const ms::image_transform& transform, int n) {
    ms::trainer trainer{model, images, options, transform};
    for (int i = 0; i < n; ++i)
      trainer.step();
  };
  model_type whole = fresh();
  steps(whole, often, 6);
  model_type first = fresh();
  {
    ms::trainer trainer{first, images, options, often};
    for (int i = 0; i < 2; ++i)
      trainer.step();
    ms::save(path, trainer);
  }
  model_type resumed = fresh();
  ms::trainer trainer{resumed, images, options, often};
  ms::resume(path, trainer);
  for (int i = 0; i < 4; ++i)
    trainer.step();
  CHECK(resumed.weights().to_host() == whole.weights().to_host());

  // The weights of labels move only where labels are given: elsewhere their gradient is 0.
  const auto label_weights = [](model_type& model) {
    std::vector<float> found;
    const std::vector<float> all = model.weights().to_host();
    for (std::size_t i = 0; i < model.parameter_names().size(); ++i)
      if (model.parameter_names()[i].find("map_augment") != std::string::npos) {
        const auto& p = model.network().parameters[i];
        found.assign(all.begin() + p.offset, all.begin() + p.offset + 9 * 8);
      }
    return found;
  };
  model_type untold = fresh();
  steps(untold, {}, 6);
  REQUIRE(!label_weights(whole).empty());
  model_type start = fresh();
  CHECK(label_weights(untold) == label_weights(start));
  CHECK(label_weights(whole) != label_weights(start));

  // Samples are of images to which nothing was done: the labels are zeros.
  int looked = 0;
  ms::sample(whole, ms::ddim{.num_steps = 2},
             {.seeds = "4-5", .observer = [&](const ms::sampling_step& step) {
                const ms::cpu b = whole.backend();
                const ms::tensor<double, ms::cpu> x(b, whole.images(2), step.x());
                ms::tensor<double, ms::cpu> d(b, whole.images(2));
                const std::vector<double> sigmas(2, step.sigma);
                for (const float label : {0.0F, 1.0F}) {
                  const std::vector<float> labels(2 * 9, label);
                  const ms::tensor<float, ms::cpu> given(b, {2, 1, 1, 9}, labels);
                  whole.denoise(x.view(), sigmas, d.view(), {.augment_labels = given.data()});
                  CHECK((d.to_host() == step.denoised()) == (label == 0));
                }
                return ++looked > 0;
              }});
  CHECK(looked == 2);
}

TEST_CASE("a few images lie evenly over a set; small sets are held in memory") {
  const ms::shape extents{10, 1, 1, 2};
  int reads = 0;
  const ms::image_source all =
      ms::image_source::of_bytes(extents, [&](std::span<const ms::index_t> rows,
                                              unsigned char* to) {
        ++reads;
        for (const ms::index_t row : rows)
          *to++ = static_cast<unsigned char>(row), *to++ = 255;
      }).labelled({0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 10);
  const ms::image_source some = ms::spread_over(all, 4);
  REQUIRE(some.extents.rows == 4);
  std::vector<float> values(8);
  some.read_block(0, 4, values.data());
  for (std::size_t i = 0; i < 4; ++i)  // numbers 0, 2, 5, 7
    CHECK(values[2 * i] == ms::value_of_byte(static_cast<unsigned char>(i * 10 / 4)));
  CHECK(ms::spread_over(all, 10).extents.rows == 10);
  CHECK_THROWS_AS(ms::spread_over(all, 0), ms::value_error);
  reads = 0;
  ms::image_source known = all;
  known.null_context = {0.25f, -1};
  const ms::image_source held = ms::held_in_memory(known, 20);
  CHECK(held.null_context == known.null_context);
  CHECK(reads == 1);
  const std::vector<ms::index_t> rows{9, 3, 3};
  std::vector<unsigned char> bytes(6);
  held.read_bytes(rows, bytes.data());
  CHECK(bytes == std::vector<unsigned char>{9, 255, 3, 255, 3, 255});
  CHECK(held.labels() == all.labels());
  CHECK(reads == 1);
  ms::held_in_memory(all, 19).read(rows, values.data());  // too large to hold
  CHECK(reads == 2);
}
