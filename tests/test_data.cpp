// The way of data: images by their numbers in any order, shards and what is refused of them.
#include <cmath>
#include <fstream>
#include <multistage/data/augment.hpp>
#include <multistage/io/dataset.hpp>
#include <multistage/io/shard_writer.hpp>

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
  io::write_npy(dir / "set/context.npy", {3, 2, 5}, context);
  CHECK_THAT(message([&] { io::open_images(dir / "set"); }),
             Catch::Contains("context.npy") && Catch::Contains("[5, tokens, width]"));
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
