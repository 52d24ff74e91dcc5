// Pictures and arrays as people have them, against what Pillow and NumPy read
// (tests/data/make_pictures.py says how the expected values were made).
#include <multistage/io/dataset.hpp>
#include <multistage/io/figures.hpp>
#include <optional>

#include "support.hpp"

namespace io = multistage::io;
using test::message;

namespace {

const std::string pictures = MULTISTAGE_TEST_DATA "/pictures/files/";
const std::string arrays = MULTISTAGE_TEST_DATA "/arrays/";

bool can_be_read(const std::string& name) {
  const std::string end = name.substr(name.size() - 4);
#ifndef MULTISTAGE_JPEG
  if (end == ".jpg")
    return false;
#endif
#ifndef MULTISTAGE_WEBP
  if (end == "webp")
    return false;
#endif
  return end.size() == 4;
}

/// What f gives, or nothing where it throws file_error.
template <class F>
auto unless_refused(const F& f) -> std::optional<decltype(f())> {
  try {
    return f();
  } catch (const ms::file_error&) {
    return {};
  }
}

void copy(const std::string& name, const std::string& to) {
  std::filesystem::copy_file(pictures + name, to);
}

/// What is warned of while it lives.
struct heard {
  std::vector<std::string> texts;
  ms::warning_handler before =
      ms::set_warning_handler([this](const std::string& s) { texts.push_back(s); });
  ~heard() {
    ms::set_warning_handler(before);
  }
};

}  // namespace

TEST_CASE("pictures of every kind are read as Pillow reads them") {
  const auto expected = io::read_file(MULTISTAGE_TEST_DATA "/pictures/expected.npz");
  const io::detail::zip_archive archive("expected.npz", expected);
  REQUIRE(archive.entries().size() == 64);
  int compared = 0;
  for (const auto& entry : archive.entries()) {
    const std::string name = entry.name.substr(0, entry.name.size() - 4);
    if (!can_be_read(name))
      continue;
    const io::npy_array want = io::parse_npz("expected.npz", expected, name);
    INFO(name);
    const io::picture got = io::read_picture(pictures + name);
    REQUIRE(std::vector<ms::index_t>{got.height, got.width, got.channels} == want.extents);
    // Lossy kinds may be rounded otherwise by another version of their library.
    const bool exact = name.substr(name.size() - 4) == ".png" || name == "lossless.webp";
    int worst = 0;
    for (std::size_t i = 0; i < got.bytes.size(); ++i)
      worst = std::max(worst, std::abs(int(got.bytes[i]) - int(want.values[i])));
    CHECK(worst <= (exact ? 0 : 2));
    const io::picture_header header = io::read_picture_header(pictures + name);
    CHECK((header.height == got.height && header.width == got.width &&
           header.channels == got.channels));
    ++compared;
  }
  CHECK(compared >= 30);
}

TEST_CASE("pictures that cannot be read are refused with what is wrong") {
  const std::vector<std::pair<std::string, std::string>> refused = {
      {"rgb8_badidatcrc.png", "IDAT: CRC error"},
      {"cut.png", "the file is cut"},
      {"huge.png", "23000 x 23000 pixels, more than the"},
      {"nothing.png", "a picture of 7 x 0"},
      {"leading.jpg", "begins with the bytes 00 00 ff d8"},
      {"lossless_marker.jpg", "SOF type 0xc3"},
      {"p12.jpg", "data precision 12"},
      {"cut.webp", "cut or broken"},
      {"animation.webp", "is an animation"}};
  for (const auto& [name, why] : refused) {
    INFO(name);
    CHECK_THROWS_AS(io::read_picture(pictures + name), ms::file_error);
    if (can_be_read(name))
      CHECK_THAT(message([&] { io::read_picture(pictures + name); }),
                 Catch::Contains(name) && Catch::Contains(why));
    else
      CHECK_THAT(message([&] { io::read_picture(pictures + name); }),
                 Catch::Contains("when the program is built"));
  }
  const test::directory dir;
  for (const auto& [text, why] : std::vector<std::pair<std::string, std::string>>{
           {"", "is empty"},
           {"GIF89a", "is a GIF"},
           {"<html>", "begins with the bytes 3c 68 74 6d"},
           {"\x89PNG\r\n\x1a\n", "header is cut"}}) {
    io::write_file(dir / "x.png", text);
    CHECK_THAT(message([&] { io::read_picture(dir / "x.png"); }), Catch::Contains(why));
    CHECK_THROWS_AS(io::read_images(dir.path), ms::file_error);
  }
}

TEST_CASE("a PNG with any byte changed or cut anywhere is an error or a picture of its size") {
  // A PNG's checksums cover its header and pixels: a changed byte there is never another
  // picture.
  const auto sound = io::read_file(pictures + "rgb8.png");
  const io::picture want = io::decode_png("f", sound);
  int refused = 0;
  for (std::size_t i = 0; i < sound.size(); ++i) {
    auto changed = sound;
    changed[i] ^= 0x55;
    const auto other = unless_refused([&] { return io::decode_png("f", changed).bytes; });
    refused += !other;
    CHECK(other.value_or(want.bytes) == want.bytes);
    io::picture_warnings warnings;
    const io::picture_options options{io::default_most_pixels, &warnings};
    const auto cut = unless_refused(
        [&] { return io::decode_png("f", std::span(sound).first(i), options).bytes; });
    CHECK(cut.value_or(want.bytes) == want.bytes);
    CHECK(warnings.count() == cut.has_value());
    heard quiet;
    warnings.report();
  }
  CHECK(refused > int(sound.size()) - 40);
}

TEST_CASE(
    "the limit on pixels holds for every kind, before anything is allocated, and can be "
    "raised") {
  const test::directory dir;
  const auto check = [](const std::string& path, std::uint64_t pixels) {
    INFO(path);
    CHECK_THAT(message([&] { io::open_images(path, {.most_pixels = pixels - 1}); }),
               Catch::Contains("more than the"));
    CHECK(io::read_images(path, {.most_pixels = pixels}).extents.rows >= 1);
  };
  check(arrays + "u8.npy", 20);
  check(arrays + "comp.npz", 20);
  check(arrays + "packed", 20);
  check(arrays + "t-idx3-ubyte", 20);
  check(pictures + "rgb8.png", 64);
  std::filesystem::create_directories(dir / "folder");
  copy("grey16.png", dir / "folder/a.png");
  check(dir / "folder", 64);
#ifdef MULTISTAGE_JPEG
  check(pictures + "plain.jpg", 24 * 16);
  check(pictures + "cmyk.jpg", 24 * 16);
#endif
#ifdef MULTISTAGE_WEBP
  check(pictures + "lossy.webp", 35);
#endif
}

TEST_CASE("folders: what is a picture, its bytes say") {
  const test::directory dir;
  const auto fresh = [&](const char* name) {
    std::filesystem::create_directories(dir / name);
    return dir / name + "/";
  };
  const std::string odd = fresh("odd");
  copy("rgb8.png", odd + "B.PNG");
  copy("rgb8_adam7.png", odd + "a.pNg");
  copy("rgb8_gama.png", odd + "no extension");
  copy("rgb8.png", odd + "\xc3\xbc \xff.jpg");  // not UTF-8, and not a JPEG
  copy("rgb8.png", odd + ".hidden.png");
  io::write_file(odd + "._B.PNG", "what macOS keeps");
  io::write_file(odd + "labels.txt", "1 2 3");
  std::filesystem::create_directories(odd + "cat.png");
  copy("rgb8.png", odd + "cat.png/x.png");
  {
    heard h;
    const io::image_set set = io::read_images(odd);
    CHECK(set.extents == ms::shape{4, 8, 8, 3});
    CHECK(h.texts.empty());
    io::write_file(odd + "z.gif",
                   "GIF89a");  // a picture that nobody reads is not lost in silence
    CHECK(io::read_images(odd).extents.rows == 4);
    REQUIRE(h.texts.size() == 1);
    CHECK_THAT(h.texts[0], Catch::Contains("z.gif: is a GIF and was left out"));
  }
  std::filesystem::create_symlink(odd + "gone", odd + "link.png");
  CHECK_THAT(message([&] { io::read_images(odd); }), Catch::Contains("link.png: is no file"));
  CHECK_THAT(message([&] { io::read_images(fresh("none")); }), Catch::Contains("holds no PNG"));

  // Grey is grey where all are, and fills the colours where one is not; sizes are compared at
  // once.
  const std::string grey = fresh("grey");
  copy("grey8.png", grey + "a.png");
  copy("grey16.png", grey + "b.png");
  const io::image_set one = io::read_images(grey);
  CHECK(one.extents == ms::shape{2, 8, 8, 1});
  CHECK(one.values[0] == 1);  // 255
  CHECK(one.values[2] == 10 / 127.5f - 1);
  copy("rgb8.png", grey + "c.png");
  const io::image_set three = io::read_images(grey);
  CHECK(three.extents == ms::shape{3, 8, 8, 3});
  for (std::size_t i = 0; i < one.values.size(); ++i)
    for (std::size_t c = 0; c < 3; ++c)
      CHECK(three.values[3 * i + c] == one.values[i]);
  CHECK(io::read_images(dir / "grey", {.channels = 3}).values == three.values);
  CHECK_THAT(message([&] { io::read_images(dir / "grey", {.channels = 1}); }),
             Catch::Contains("picture 2 has colours"));
  std::filesystem::remove(grey + "c.png");
  const io::image_set filled = io::read_images(dir / "grey", {.channels = 3});
  CHECK(std::equal(filled.values.begin(), filled.values.end(), three.values.begin()));
  CHECK_THAT(message([&] { io::read_images(arrays + "u8.npy", {.channels = 4}); }),
             Catch::Contains("cannot be made ones of 4"));
  copy("exif_before.png", grey + "c.png");
  CHECK_THAT(message([&] { io::open_images(grey); }),
             Catch::Contains("c.png: is 5 x 7") && Catch::Contains("make all one size"));
}

#ifdef MULTISTAGE_JPEG
TEST_CASE("what libjpeg only warns of is read, counted once a file and said at the end") {
  const test::directory dir;
  copy("plain.jpg", dir / "a.jpg");
  copy("cut1.jpg", dir / "b.jpg");
  copy("cut2.jpg", dir / "c.jpg");
  copy("extraneous.jpg", dir / "d.jpg");
  heard h;
  {
    const ms::image_source images = io::open_images(dir.path);
    std::vector<float> values(std::size_t(images.extents.size()));
    for (int time = 0; time < 3; ++time)
      images.read_block(0, 4, values.data());
    CHECK(h.texts.empty());
  }
  REQUIRE(h.texts.size() == 1);
  CHECK_THAT(h.texts[0], Catch::Contains("3 files are not quite sound") &&
                             Catch::Contains("b.jpg: Premature end of JPEG file"));
}

TEST_CASE("a JPEG that is one colour in one scan after the other is refused after 500") {
  // 600 empty refinement scans behind a sound progressive file: libjpeg would go over the
  // picture each time.
  auto bytes = io::read_file(pictures + "progressive.jpg");
  const std::vector<unsigned char> marker{0xff, 0xda};
  const auto last = std::find_end(bytes.begin(), bytes.end(), marker.begin(), marker.end());
  const std::vector<unsigned char> scan(last, bytes.end() - 2);
  for (int i = 0; i < 600; ++i)
    bytes.insert(bytes.end() - 2, scan.begin(), scan.end());
  CHECK_THAT(message([&] { io::decode_jpeg("f", bytes); }),
             Catch::Contains("more than 500 scans"));
}
#endif

TEST_CASE(
    "EXIF's orientation: either order of bytes, every type that programs write, and anything "
    "broken is upright") {
  const auto exif = [](bool little, unsigned type, unsigned orientation,
                       unsigned directory = 8) {
    std::vector<unsigned char> b;
    const auto put = [&](std::size_t v, int n) {
      for (int i = 0; i < n; ++i)
        b.push_back(static_cast<unsigned char>(v >> 8 * (little ? i : n - 1 - i)));
    };
    b = {little ? (unsigned char)'I' : (unsigned char)'M',
         little ? (unsigned char)'I' : (unsigned char)'M'};
    put(42, 2), put(directory, 4), put(2, 2);
    put(0x010f, 2), put(2, 2), put(4, 4),
        put(0x41424300, 4);  // the camera's maker stands before it
    const int size = type == 1 ? 1 : type == 3 ? 2 : 4;
    put(0x0112, 2), put(type, 2), put(1, 4), put(orientation, size), put(0, 4 - size),
        put(0, 4);
    return b;
  };
  using io::detail::exif_orientation;
  for (const bool little : {false, true})
    for (unsigned o = 1; o <= 8; ++o) {
      for (const unsigned type : {1, 3, 4})
        CHECK(exif_orientation(exif(little, type, o)) == int(o));
      CHECK(exif_orientation(exif(little, 2, o)) == 1);  // text
      for (const unsigned directory : {9u, 37u, 38u, 1000u, 0xffffffffu})
        exif_orientation(exif(little, 3, o, directory));
      const auto whole = exif(little, 3, o);
      for (std::size_t n = 0; n < 34; ++n)
        CHECK(exif_orientation(std::span(whole).first(n)) == 1);
    }
  CHECK(exif_orientation(exif(true, 3, 0)) == 1);
  CHECK(exif_orientation(exif(true, 3, 9)) == 1);
}

TEST_CASE("pictures are written as they are: grey as grey") {
  const test::directory dir;
  for (const ms::index_t channels : {1, 3}) {
    io::picture p{4, 6, channels, {}};
    for (ms::index_t i = 0; i < 24 * channels; ++i)
      p.bytes.push_back(static_cast<unsigned char>(i * 7));
    io::write_png(dir / "p.png", p);
    const auto bytes = io::read_file(dir / "p.png");
    CHECK(bytes[24] == 8);                        // IHDR: bits of a channel,
    CHECK(bytes[25] == (channels == 1 ? 0 : 2));  // kind of colour
    const io::picture back = io::read_picture(dir / "p.png");
    CHECK(back.channels == channels);
    CHECK(back.bytes == p.bytes);
    CHECK(io::read_images(dir.path).extents == ms::shape{1, 4, 6, channels});
  }
  CHECK_THAT(message([&] {
               io::write_png(dir / "p.png", {1, 1, 4, {1, 2, 3, 4}});
             }),
             Catch::Contains("4 channels"));
  CHECK_THAT(message([&] {
               io::write_png(dir / "p.png", {2, 1, 3, {1, 2, 3, 4}});
             }),
             Catch::Contains("4 bytes"));
  CHECK_THROWS_AS(io::write_png(dir / "p.png", {0, 0, 3, {}}), ms::value_error);
}

TEST_CASE("settings that have no effect on a kind of file are refused") {
  const std::string png = pictures + "rgb8.png";
  CHECK_THAT(message([&] { io::open_images(png, {.largest = 16}); }),
             Catch::Contains("leave `largest` out"));
  CHECK_THAT(message([&] { io::open_images(arrays + "u8.npy", {.array = "a"}); }),
             Catch::Contains("leave `array` out"));
  CHECK_THAT(message([&] { io::open_images(arrays + "t-idx3-ubyte", {.latents = true}); }),
             Catch::Contains("no array of floats"));
}

TEST_CASE("an archive whose entries share their bytes is refused") {
  // The same directory entry many times over: each would unpack the same bytes again.
  const auto sound = io::read_file(arrays + "comp.npz");
  std::size_t entry = 0;
  while (!(sound[entry] == 'P' && sound[entry + 1] == 'K' && sound[entry + 2] == 1))
    ++entry;
  const std::vector<unsigned char> one(sound.begin() + std::ptrdiff_t(entry), sound.end() - 22);
  std::vector<unsigned char> bytes(sound.begin(), sound.begin() + std::ptrdiff_t(entry));
  for (int i = 0; i < 40; ++i)
    bytes.insert(bytes.end(), one.begin(), one.end());
  std::vector<unsigned char> end(sound.end() - 22, sound.end());
  end[8] = end[10] = 40;
  bytes.insert(bytes.end(), end.begin(), end.end());
  CHECK_THAT(message([&] { io::parse_npz("f", bytes); }),
             Catch::Contains("take more bytes than there are"));
}

TEST_CASE("a grid that no picture can hold is refused before its images are there") {
  const io::grid_layout l({7, 3, 5, 1}, 4, 2);
  const io::canvas c = io::image_grid(std::vector<double>(7 * 15), {7, 3, 5, 1}, 4, 2);
  CHECK((l.width == 4 + 4 * 14 && l.height == 4 + 2 * 10));
  CHECK((c.width() == l.width && c.height() == l.height));
  // Columns of 8 pixels and a gap of 4 beside each: 2730 of them are 32764 wide, cairo takes
  // 32767.
  const ms::index_t most = 2730;
  CHECK(io::image_grid(std::vector<double>(std::size_t(most)), {most, 1, 1, 1}, int(most), 8)
            .width() == 32764);
  CHECK_THAT(message([&] {
               io::grid_layout({most + 1, 1, 1, 1}, int(most + 1), 8);
             }),
             Catch::Contains("more than the 32767 pixels a side"));
  CHECK_THAT(message([&] {
               io::grid_layout({40001, 8, 8, 1}, 1, 12);
             }),
             Catch::Contains("40001 rows of 1 images") && Catch::Contains("to a folder"));
  CHECK_THAT(message([&] {
               io::grid_layout({1, 1 << 20, 1 << 20, 3}, 1, 1 << 20);
             }),
             Catch::Contains("more than the 32767"));
  CHECK_THROWS_AS(io::grid_layout({4, 8, 8, 1}, 0, 1), ms::value_error);
  for (const ms::shape none : {ms::shape{1, 1, 0, 1}, ms::shape{1, -4, 1, 1},
                               ms::shape{1, ms::index_t{1} << 62, 4, 1}})
    CHECK_THROWS_AS(io::grid_layout(none, 1, 1), ms::value_error);
}

TEST_CASE("figures read no value that is not there, and show grey and RGB only") {
  const std::vector<double> values(2 * 3 * 3 * 4, 0.5);
  const auto grid = [&](ms::shape extents, std::size_t n) {
    return message([&] { io::image_grid(std::span(values).first(n), extents, 2, 1); });
  };
  CHECK(grid({2, 3, 3, 1}, 18) == "nothing");
  CHECK(grid({2, 3, 3, 3}, 54) == "nothing");
  for (const std::size_t n : {0, 17, 19})
    CHECK_THAT(grid({2, 3, 3, 1}, n),
               Catch::Contains("image_grid: " + std::to_string(n) + " values"));
  for (const ms::index_t channels : {2, 4})
    CHECK_THAT(grid({2, 3, 3, channels}, std::size_t(18 * channels)),
               Catch::Contains(std::to_string(channels) + " channels; 1 (grey) or 3 (RGB)"));
  const auto cells = [&](std::size_t columns, std::size_t n) {
    return message([&] {
      io::trajectories(std::vector<std::vector<double>>(columns, std::vector<double>(n)),
                       {1, 2}, ms::partition(), {2, 3, 3, 1}, 1, "t");
    });
  };
  CHECK(cells(2, 18) == "nothing");
  CHECK_THAT(cells(1, 18), Catch::Contains("1 columns for 2"));
  CHECK_THAT(cells(2, 9), Catch::Contains("trajectories: 9 values"));
  CHECK_THROWS_AS(io::heat_map(std::vector<double>(4), {1, 2}, {}, "t", "l", {1}),
                  ms::value_error);
  CHECK_THROWS_AS(io::line_chart({{"k", {1, 2}, {1}, {}}}, "t", "x", "y", false),
                  ms::value_error);
}

TEST_CASE("npz archives of every making are what NumPy reads") {
  const io::image_set want = io::read_images(arrays + "u8.npy");
  REQUIRE(want.extents == ms::shape{3, 4, 5, 3});
  // By numpy.savez, savez_compressed, zip, a stream, with zip64's fields, and behind a folder's
  // entry.
  for (const char* name : {"one.npz", "comp.npz", "arr2.npz", "plainzip.npz", "stream.npz",
                           "zip64meta.npz", "dir_first.npz", "labels_first.npz"}) {
    INFO(name);
    const io::image_set got = io::read_images(arrays + name);
    CHECK(got.extents == want.extents);
    CHECK(got.values == want.values);
  }
  CHECK_THAT(message([&] { io::read_images(arrays + "badcrc.npz"); }),
             Catch::Contains("arr_0.npy differs from its checksum"));
  CHECK_THAT(message([&] { io::read_images(arrays + "objz.npz"); }),
             Catch::Contains("array a") && Catch::Contains("'|O' is not supported"));
  CHECK_THAT(message([&] { io::read_images(arrays + "mnist_like.npz"); }),
             Catch::Contains("several arrays") && Catch::Contains("x_train [4, 3, 3]") &&
                 Catch::Contains("x_test [2, 3, 3]"));
  const io::image_set train = io::read_images(arrays + "mnist_like.npz", {.array = "x_train"});
  CHECK(train.extents == ms::shape{4, 3, 3, 1});
  double sum = 0;
  for (const float v : train.values)
    sum += std::lround((v + 1) * 127.5);
  CHECK(sum == 5627);  // NumPy's
  CHECK_THAT(message([&] { io::read_images(arrays + "mnist_like.npz", {.array = "z"}); }),
             Catch::Contains("no array named z") && Catch::Contains("x_test"));
  CHECK_THAT(message([&] { io::read_images(arrays + "mnist_like.npz", {.array = "y_test"}); }),
             Catch::Contains("has 1 dimensions"));
}

TEST_CASE(
    "an npz archive with any byte changed or cut anywhere is an error or the same array") {
  const auto want = io::read_images(arrays + "u8.npy").values;
  const test::directory dir;
  for (const char* name : {"one.npz", "comp.npz", "stream.npz"}) {
    const auto sound = io::read_file(arrays + name);
    int refused = 0;
    for (std::size_t i = 0; i < sound.size(); ++i) {
      auto changed = sound;
      changed[i] ^= 0x21;
      const auto a = unless_refused([&] { return io::parse_npz("f", changed); });
      refused += !a;
      if (a) {
        REQUIRE(a->extents == std::vector<ms::index_t>{3, 4, 5, 3});
        for (std::size_t k = 0; k < want.size(); ++k)
          REQUIRE(float(a->values[k] / 255 * 2 - 1) == want[k]);
      }
      CHECK_THROWS_AS(io::parse_npz("f", std::span(sound).first(i)), ms::file_error);
    }
    CHECK(refused > 250);
  }
}

TEST_CASE(
    "npz archives are written as NumPy's zipfile reads them, also those of 4 GiB and more") {
  const test::directory dir;
  const std::vector<unsigned char> values{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  io::write_npz(dir / "narrow.npz", "samples", {1, 2, 2, 3}, values);
  io::write_npz(dir / "wide.npz", "samples", {1, 2, 2, 3}, values, 0);
  for (const char* name : {"narrow.npz", "wide.npz"}) {
    const io::npy_array a = io::parse_npz(name, io::read_file(dir / name));
    CHECK(a.extents == std::vector<ms::index_t>{1, 2, 2, 3});
    CHECK(a.values == std::vector<double>(values.begin(), values.end()));
    // Files of the same content that numpy.load and zipfile's testzip accepted.
    CHECK(io::read_file(dir / name) ==
          io::read_file(arrays + ("written_" + std::string(name))));
  }
}

TEST_CASE("gzip: IDX files as they are published, members one behind the other, checksums") {
  const io::image_set plain = io::read_images(arrays + "t-idx3-ubyte");
  REQUIRE(plain.extents == ms::shape{3, 4, 5, 1});
  CHECK(plain.values[0] == 169 / 255.0f * 2 - 1);
  CHECK(plain.values[1] == 10 / 255.0f * 2 - 1);
  CHECK(io::read_images(arrays + "packed").values == plain.values);
  CHECK(io::read_idx(arrays + "packed").values == plain.values);
  const auto packed = io::read_file(arrays + "packed");
  const auto one = io::gunzip("f", packed);
  auto twice = packed;
  twice.insert(twice.end(), packed.begin(), packed.end());
  twice.resize(twice.size() + 100, 0);
  auto both = one;
  both.insert(both.end(), one.begin(), one.end());
  CHECK(io::gunzip("f", twice) == both);
  twice.push_back('x');
  CHECK_THROWS_AS(io::gunzip("f", twice), ms::file_error);
  CHECK_THAT(message([&] { io::gunzip("f", packed, 50); }),
             Catch::Contains("more than 50 bytes"));
  std::size_t refused = 0;
  for (std::size_t i = 0; i < packed.size(); ++i) {
    CHECK_THROWS_AS(io::gunzip("f", std::span(packed).first(i)), ms::file_error);
    auto changed = packed;
    changed[i] ^= 0x55;
    const auto got = unless_refused([&] { return io::gunzip("f", changed); });
    CHECK(got.value_or(one) == one);  // the header's time and name may be anything
    refused += !got;
  }
  CHECK(refused > packed.size() - 40);
}

TEST_CASE(
    "IDX: four dimensions have channels; labels and bytes behind are refused; white may be "
    "less than 255") {
  const io::image_set colours = io::read_images(arrays + "t-idx4-ubyte");
  CHECK(colours.extents == ms::shape{3, 4, 5, 3});
  const io::image_set same = io::read_images(arrays + "u8.npy");
  CHECK(test::distance(colours.values, same.values) < 1e-6);
  CHECK_THAT(message([&] { io::read_images(arrays + "t-idx1-ubyte"); }),
             Catch::Contains("labels"));
  CHECK_THAT(message([&] { io::read_images(arrays + "trailing-idx3-ubyte"); }),
             Catch::Contains("60 bytes, 61 follow"));
  const test::directory dir;
  io::write_file(dir / "none",
                 std::string("\0\0\x08\x04\0\0\0\0\x8a\0\0\x60\x40\0\0\x02\x10\0\0\0",
                             20));  // no images, of 2^80 values
  CHECK_THAT(message([&] { io::read_images(dir / "none"); }), Catch::Contains("too large"));
  io::write_file(dir / "i",
                 std::string("\0\0\x08\x03\0\0\0\x01\0\0\0\x01\0\0\0\x03\x00\x08\x10", 19));
  CHECK(io::read_images(dir / "i", {.largest = 16}).values == std::vector<float>{-1, 0, 1});
  CHECK_THAT(message([&] { io::read_images(dir / "i", {.largest = 15}); }),
             Catch::Contains("value 2 is 16"));
}

TEST_CASE("files are what their bytes say, whatever they are called") {
  const test::directory dir;
  const auto as = [&](const std::string& from, const char* name) {
    std::filesystem::copy_file(from, dir / name,
                               std::filesystem::copy_options::overwrite_existing);
    return io::read_images(dir / name).values;
  };
  const auto want = io::read_images(arrays + "u8.npy").values;
  CHECK(as(arrays + "u8.npy", "x.npz") == want);
  CHECK(as(arrays + "comp.npz", "x.npy") == want);
  CHECK(as(arrays + "one.npz", "x.bin") == want);
  CHECK(as(arrays + "t-idx3-ubyte", "x.png").size() == 60);
  CHECK(as(pictures + "rgb8.png", "x.npy").size() == 192);
  // CIFAR-10 has no magic. A record may begin like an IDX file: label 0, and red 0, 8, 3.
  std::string cifar(2 * 3073, char(77));
  cifar.replace(0, 4, std::string("\0\0\x08\x03", 4));
  cifar[3073] = 9;
  io::write_file(dir / "records", cifar);
  const io::image_set set = io::read_images(dir / "records");
  CHECK(set.extents == ms::shape{2, 32, 32, 3});
  CHECK(set.values[3] == 8 / 127.5f - 1);
  cifar[3073] = 10;
  io::write_file(dir / "records", cifar);
  CHECK_THAT(message([&] { io::open_images(dir / "records"); }),
             Catch::Contains("record 1 has the label 10"));  // before any work
  for (const auto& [text, why] : std::vector<std::pair<std::string, std::string>>{
           {"\x80\x02}", "is a Python pickle"},
           {"", "is empty"},
           {"hello", "is no data set that is known"},
           {std::string(257, 'x') + "ustar", "is a tar archive"}}) {
    io::write_file(dir / "x.npy", text);
    CHECK_THAT(message([&] { io::read_images(dir / "x.npy"); }), Catch::Contains(why));
  }
  // Channels first are no pictures of five channels.
  io::write_npy(dir / "nchw.npy", {2, 3, 4, 5}, std::vector<double>(120, 0.5));
  CHECK_THAT(message([&] { io::open_images(dir / "nchw.npy"); }),
             Catch::Contains("transpose(0, 2, 3, 1)"));
}
