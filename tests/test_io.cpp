// Files: round trips, hostile input, atomic writing, figures and reports.
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <multistage/io.hpp>

#include "support.hpp"

namespace {

using test::directory;
using test::message;

namespace io = ms::io;

std::vector<unsigned char> bytes_of(const std::string& s) {
  return {s.begin(), s.end()};
}
/// A safetensors file of a header and some data.
std::vector<unsigned char> with_header(const std::string& header, std::size_t data = 16) {
  std::string s(8, '\0');
  for (int i = 0; i < 8; ++i)
    s[i] = char(header.size() >> (8 * i));
  return bytes_of(s + header + std::string(data, 'x'));
}
}  // namespace

TEST_CASE("safetensors keep values, extents and metadata") {
  directory dir;
  io::safetensors_writer w;
  w.metadata = {{"a", "1"}, {"b", "\"quoted\""}};
  w.add<float>("x", {2, 3}, {1, 2, 3, 4, 5, 6.5f});
  w.add<double>("y", {}, {3.25});
  w.add<std::int64_t>("z", {0, 4}, {});
  w.write(dir / "f.safetensors");
  const io::safetensors f(dir / "f.safetensors");
  CHECK(f.meta("b") == "\"quoted\"");
  CHECK(f.get<float>("x") == std::vector<float>{1, 2, 3, 4, 5, 6.5f});
  CHECK(f.get<double>("y") == std::vector<double>{3.25});
  CHECK(f.get<double>("z").empty());
  CHECK(f.entry("x").extents == std::vector<ms::index_t>{2, 3});
  CHECK_THAT(message([&] { f.get<float>("w"); }), Catch::Contains("no tensor 'w'"));
  CHECK_THROWS_AS(w.add<float>("bad", {2}, {1}), ms::shape_error);
}

TEST_CASE("half precision is read") {
  auto f = with_header(R"({"h":{"dtype":"F16","shape":[4],"data_offsets":[0,8]},)"
                       R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]}})",
                       12);
  const std::uint16_t h[6] = {0x3c00, 0xc000, 0x0001, 0x7c00, 0x3f80, 0xc040};
  std::memcpy(f.data() + f.size() - 12, h, 12);
  const io::safetensors s("f", f);
  const auto v = s.get<float>("h");
  CHECK(v[0] == 1);
  CHECK(v[1] == -2);
  CHECK(v[2] == 0x1p-24f);
  CHECK(std::isinf(v[3]));
  CHECK(s.get<float>("b") == std::vector<float>{1, -3});
}

TEST_CASE("hostile safetensors get an error that names file, byte and reason") {
  const auto fails = [](const std::vector<unsigned char>& b, const char* reason) {
    const std::string m = message([&] { io::safetensors("evil", b); });
    CHECK_THAT(m,
               Catch::Contains("evil") && Catch::Contains("byte") && Catch::Contains(reason));
  };
  fails({}, "0 bytes");
  fails({1, 2, 3}, "3 bytes");
  fails(std::vector<unsigned char>(8, 255), "header of 18446744073709551615 bytes");
  fails(with_header("{", 0), "not JSON");
  fails(with_header("[1]"), "not a JSON object");
  fails(with_header(R"({"x":1})"), "missing");
  fails(with_header(R"({"x":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}})"), "unknown");
  fails(with_header(R"({"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})"),
        "whole number");
  fails(with_header(
            R"({"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})"),
        "too large");
  fails(
      with_header(
          R"({"x":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}})"),
      "outside");
  fails(with_header(R"({"x":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}})"), "outside");
  fails(with_header(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}})"), "outside");
  fails(with_header(R"({"x":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}})"),
        "takes 12 bytes");
  fails(with_header(R"({"__metadata__":{"a":1}})"), "not a string");
  fails(with_header(std::string(100000, '['), 0), "not JSON");
}

TEST_CASE("every single broken byte of a small file gives an error or a sound file") {
  directory dir;
  io::safetensors_writer w;
  w.metadata = {{"k", "v"}};
  w.add<float>("tensor", {2, 2}, {1, 2, 3, 4});
  w.write(dir / "f");
  const auto good = io::read_file(dir / "f");
  for (std::size_t i = 0; i < good.size(); ++i)
    for (unsigned char v : {0x00, 0x22, 0x39, 0x7d, 0xff}) {
      auto b = good;
      b[i] = v;
      try {
        const io::safetensors f("f", b);
        for (const auto& [name, e] : f.tensors())
          f.get<double>(name);
      } catch (const ms::file_error&) {
      }
    }
  for (std::size_t n = 0; n < good.size(); ++n)
    CHECK_THROWS_AS(
        io::safetensors("f", std::vector<unsigned char>(good.begin(), good.begin() + n)),
        ms::file_error);
}

TEST_CASE("npy arrays of NumPy are read, broken ones refused") {
  directory dir;
  const std::vector<double> v{1.5, -2, 3, 4, 5, 6};
  io::write_npy(dir / "a.npy", {2, 3}, v);
  const auto a = io::read_npy(dir / "a.npy");
  CHECK(a.extents == std::vector<ms::index_t>{2, 3});
  CHECK(a.values == v);
  const auto npy = [](const std::string& header, std::size_t data) {
    const std::string h = header + "\n";
    return bytes_of(std::string("\x93NUMPY\x01\x00", 8) + char(h.size() & 255) +
                    char(h.size() >> 8) + h + std::string(data, '\x02'));
  };
  const auto u1 = io::parse_npy(
      "f", npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 1), }", 4));
  CHECK(u1.values == std::vector<double>(4, 2.0));
  const auto images = io::images_from(u1, "f", {16});
  CHECK(images.extents == ms::shape{2, 2, 1, 1});
  CHECK(images.values[0] == Approx(2.0 / 16 * 2 - 1));
  CHECK_THAT(message([&] { io::images_from(u1, "f", {1}); }), Catch::Contains("value 0 is 2"));
  const auto fails = [&](const std::vector<unsigned char>& b, const char* reason) {
    CHECK_THAT(message([&] { io::parse_npy("f", b); }),
               Catch::Contains("f: not a sound npy file: byte") && Catch::Contains(reason));
  };
  fails(bytes_of("PK"), "magic");
  fails(npy("{'descr': '<f8', 'fortran_order': True, 'shape': (1,), }", 8), "Fortran");
  fails(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", 8),
        "takes 16 bytes, 8 follow");
  fails(npy("{'descr': '>f8', 'fortran_order': False, 'shape': (1,), }", 8), "not supported");
  fails(npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", 8), "not supported");
  fails(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }", 8),
        "too large");
  fails(npy("{'descr': '<f8'}", 8), "lacks 'fortran_order'");
  fails(npy("{'fortran_order':", 8), "lacks 'descr'");
  fails(npy("{'descr': '<f8', 'shape': (1,), 'fortran_order':", 8), "Fortran");
}

TEST_CASE("IDX images are read, broken ones refused") {
  std::string s("\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x03", 16);
  const auto images =
      io::parse_idx("f", bytes_of(s + std::string("\x00\xff\x80\x00\x00\x00", 6)));
  CHECK(images.extents == ms::shape{2, 1, 3, 1});
  CHECK(images.values[1] == 1);
  CHECK(images.values[0] == -1);
  CHECK_THAT(message([&] { io::parse_idx("f", bytes_of(s + "ab")); }),
             Catch::Contains("6 bytes, 2 follow"));
  CHECK_THAT(message([&] { io::parse_idx("f", bytes_of("\x1f\x8b")); }),
             Catch::Contains("compressed"));
  CHECK_THAT(message([&] {
               io::parse_idx(
                   "f",
                   bytes_of(std::string(
                       "\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 16)));
             }),
             Catch::Contains("too large"));
}

TEST_CASE("files are written whole or not at all") {
  directory dir;
  io::write_file(dir / "f", "old");
  {
    io::atomic_file f(dir / "f");
    f.write("half of the new");
  }  // dropped without commit
  const auto now = io::read_file(dir / "f");
  CHECK(std::string(now.begin(), now.end()) == "old");
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path),
                      std::filesystem::directory_iterator()) == 1);
  CHECK_THAT(message([&] { io::write_file(dir / "no/such/file", "x"); }),
             Catch::Contains("cannot be written"));
  CHECK_THAT(message([&] { io::read_file(dir / "missing"); }),
             Catch::Contains("cannot be opened"));
  CHECK_THAT(message([&] { io::read_file(dir.path); }), Catch::Contains("not a regular file"));
  CHECK_THAT(message([&] { io::make_directory(dir / "f"); }),
             Catch::Contains("cannot be made a directory"));
  if (std::filesystem::exists("/dev/full")) {  // a full disk
    CHECK_THAT(message([&] {
                 io::json_lines log("/dev/full");
                 log.write({{"a", 1}});
               }),
               Catch::Contains("is the disk full?"));
  }
}

TEST_CASE("a disk that fills up while a checkpoint is written leaves the old one") {
  directory dir;
  io::safetensors_writer w;
  w.add<float>("x", {1000}, std::vector<float>(1000, 1));
  w.write(dir / "model");
  const auto before = io::read_file(dir / "model");
  // A limit on file sizes stands for the full disk.
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{2000, old.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string text = message([&] { w.write(dir / "model"); });
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK_THAT(text, Catch::Contains("writing failed") && Catch::Contains("unchanged"));
  CHECK(io::read_file(dir / "model") == before);
  CHECK(std::distance(std::filesystem::directory_iterator(dir.path),
                      std::filesystem::directory_iterator()) == 1);
}

TEST_CASE("configurations survive JSON, unknown settings are named") {
  ms::configuration c{ms::song_unet{.resolution = 16,
                                    .channels = 1,
                                    .encoder_channels = 24,
                                    .channel_mult = {1, 2, 3},
                                    .fourier = true,
                                    .encoder_type = ms::auxiliary_path::residual,
                                    .label_dim = 3},
                      {{24, 12}},
                      {ms::precondition::vp, 0.7}};
  const io::json j = io::to_json(c);
  CHECK(io::to_json(io::configuration_from_json(j)) == j);
  const io::json k = io::to_json({ms::adm_unet{.resolution = 32}, {{8, 8}, false}, {}});
  CHECK(io::to_json(io::configuration_from_json(k)) == k);
  // One stage whose decoder is not as wide as its encoder is not what "unified" says.
  const io::json one = io::to_json({ms::song_unet{.encoder_channels = 32}, {{48}}, {}});
  CHECK(io::configuration_from_json(one).stages.widths[0] == 48);
  const auto fails = [](io::json base, const char* key, io::json value, const char* text) {
    base[key] = value;
    CHECK_THAT(message([&] { io::configuration_from_json(base); }), Catch::Contains(text));
  };
  fails(j, "dropuot", 0.1, "'dropuot' = 0.1 is not a setting");
  fails(j, "network", "resnet", "known: song_unet, adm_unet");
  fails(j, "channel_mult", {1, -2}, "'channel_mult' holds -2");
  fails(j, "channel_mult", std::vector<int>(20, 1), "at most 8");
  fails(j, "resolution", "big", "'resolution' has an unfit value");
  fails(j, "architecture", "unified", "names 2 decoders; leave one of the two out");
  fails(j, "preconditioning", "None", "'preconditioning' is \"None\"; known: EDMPrecond");
  CHECK_THAT(message([&] { io::configuration_from_json(io::json::array()); }),
             Catch::Contains("not a JSON object"));
  CHECK(io::partition_from_json({1.0, 2.0}).stage_count() == 3);
  CHECK_THROWS_AS(io::partition_from_json("x"), ms::value_error);
}

TEST_CASE("a split is a partition of the images, chosen by its seed") {
  io::image_set all;
  all.extents = {50, 1, 1, 1};
  for (int i = 0; i < 50; ++i)
    all.values.push_back(float(i) / 50);
  const auto [a, b] = io::split(all, 12, 3);
  CHECK(a.count() == 38);
  CHECK(b.count() == 12);
  std::vector<float> together = a.values;
  together.insert(together.end(), b.values.begin(), b.values.end());
  std::sort(together.begin(), together.end());
  CHECK(together == all.values);
  CHECK(io::split(all, 12, 3).second.values == b.values);
  CHECK(io::split(all, 12, 4).second.values != b.values);
  CHECK_THROWS_AS(io::split(all, 50, 1), ms::value_error);
}

TEST_CASE("figures are PNGs and the report carries them") {
  directory dir;
  const auto is_png = [](const std::string& s) {
    return s.compare(0, 8, "\x89PNG\r\n\x1a\n") == 0;
  };
  const std::string grid =
      io::image_grid(std::vector<double>(5 * 16, 0.3), {5, 4, 4, 1}, 3, 4, "title").png();
  CHECK(is_png(grid));
  CHECK(is_png(io::image_grid(std::vector<double>(2 * 12, 0.3), {2, 2, 2, 3}, 2, 4).png()));
  CHECK(is_png(io::heat_map({1, 0.5, 0.5, 1}, {0.1, 0.9}, {0.5}, "t", "x", {0.1, 50}).png()));
  CHECK(is_png(io::line_chart({{"a", {1, 2, 3}, {1, NAN, 0.1}, io::stage_colour(0)},
                               {"empty", {}, {}, io::stage_colour(1)}},
                              "t", "x", "y", true)
                   .png()));
  CHECK(is_png(io::line_chart({}, "nothing at all", "x", "y", false).png()));
  CHECK(is_png(io::trajectories({std::vector<double>(32, 0.0), std::vector<double>(32, 1.0)},
                                {50, 0.1}, ms::partition({1.0}), {2, 4, 4, 1}, 3, "t")
                   .png()));
  CHECK_THROWS_AS(io::image_grid({}, {0, 4, 4, 1}, 3, 4), ms::value_error);
  CHECK_THROWS_AS(io::heat_map({1, 2, 3}, {0.1, 0.9}, {}, "t", "x"), ms::value_error);
  io::report r("A <report> & more");
  r.heading("h").text("1 < 2").picture(grid, "c").table({{"a", "b"}}).save(dir / "r.html");
  const auto html = io::read_file(dir / "r.html");
  const std::string text(html.begin(), html.end());
  CHECK(text.find("A &lt;report&gt; &amp; more") != std::string::npos);
  CHECK(text.find("data:image/png;base64,iVBORw0KGgo") != std::string::npos);
}

TEST_CASE("pictures survive PNG, npz and CIFAR-10's format") {
  const directory dir;
  io::picture p{3, 2, 3, {}};
  for (int i = 0; i < 18; ++i)
    p.bytes.push_back(static_cast<unsigned char>(13 * i));
  io::make_directory(dir / "pictures");
  io::write_png(dir / "pictures/a.png", p);
  CHECK(io::read_picture(dir / "pictures/a.png").bytes == p.bytes);
  const io::image_set folder = io::read_images(dir / "pictures");
  CHECK(folder.extents == ms::shape{1, 3, 2, 3});
  CHECK(io::to_byte(folder.values[5]) == p.bytes[5]);
  io::write_png(dir / "pictures/b.png", io::picture{2, 2, 1, {1, 2, 3, 4}});
  CHECK_THAT(message([&] { io::read_images(dir / "pictures"); }), Catch::Contains("b.png"));
  io::write_file(dir / "pictures/b.png", "not a picture");
  CHECK_THROWS_AS(io::read_images(dir / "pictures"), ms::file_error);

  io::write_npz(dir / "s.npz", "samples", {1, 3, 2, 3}, p.bytes);
  const io::image_set back = io::read_images(dir / "s.npz");
  CHECK(back.extents == ms::shape{1, 3, 2, 3});
  for (std::size_t i = 0; i < 18; ++i)
    CHECK(io::to_byte(back.values[i]) == p.bytes[i]);
  const auto bytes = io::read_file(dir / "s.npz");
  CHECK(io::detail::crc32(
            std::vector<unsigned char>{'1', '2', '3', '4', '5', '6', '7', '8', '9'}) ==
        0xCBF43926u);  // the check value of CRC-32
  for (std::size_t cut = 0; cut + 90 < bytes.size(); cut += 7)
    CHECK_THROWS_AS(
        io::parse_npz("cut", std::vector<unsigned char>(bytes.begin(),
                                                        bytes.begin() + std::ptrdiff_t(cut))),
        ms::file_error);

  std::vector<unsigned char> record(2 * 3073, 0);
  record[0] = 7;
  record[1] = 255;            // red of the first pixel
  record[1 + 1024 + 1] = 51;  // green of the second
  std::vector<int> labels;
  const io::image_set cifar = io::parse_cifar10("c", record, &labels);
  CHECK(labels == std::vector<int>{7, 0});
  CHECK(cifar.extents == ms::shape{2, 32, 32, 3});
  CHECK(cifar.values[0] == 1);
  CHECK(cifar.values[4] == Approx(51 / 127.5 - 1));
  record[3073] = 10;
  CHECK_THAT(message([&] { io::parse_cifar10("c", record); }), Catch::Contains("label 10"));
  record.pop_back();
  CHECK_THROWS_AS(io::parse_cifar10("c", record), ms::file_error);
}

TEST_CASE("numbers that do not fit are refused, not converted") {
  for (const char* channels : {"1e300", "2147483648", "-2147483649", "18446744073709551615",
                               "3.5", "\"3\"", "null", "true"}) {
    const std::string text =
        std::string(R"({"network": "song_unet", "channels": )") + channels + "}";
    CHECK_THAT(message([&] { io::configuration_from_json(io::json::parse(text)); }),
               Catch::Contains("'channels' has an unfit value"));
  }
  CHECK_THROWS_AS(io::configuration_from_json(io::json::parse(
                      R"({"network": "song_unet", "channel_mult": [1, 1e40]})")),
                  ms::value_error);
  CHECK_THROWS_AS(io::partition_from_json(io::json::parse(R"([1, "2"])")), ms::value_error);
}

#ifdef MULTISTAGE_JPEG
TEST_CASE("JPEG files are read, and broken ones refused") {
  const std::string file =
      MULTISTAGE_TEST_DATA "/gradient.jpg";  // 16 x 8: (16 x, 30 y, 255 - 16 x), quality 95
  const io::picture p = io::read_picture(file);
  REQUIRE((p.width == 16 && p.height == 8 && p.channels == 3));
  for (int y = 0; y < 8; ++y)
    for (int x = 0; x < 16; ++x) {
      const unsigned char* at = p.bytes.data() + (y * 16 + x) * 3;
      CHECK(std::abs(at[0] - 16 * x) <= 6);
      CHECK(std::abs(at[1] - 30 * y) <= 6);
      CHECK(std::abs(at[2] - (255 - 16 * x)) <= 6);
    }
  directory dir;
  const auto bytes = io::read_file(file);
  const std::string whole(bytes.begin(), bytes.end());
  // Cut in its header it is none; cut in its pixels it is read with a warning
  // (tests/test_pictures.cpp).
  for (const std::size_t cut : {0, 3, 100, 400}) {
    io::write_file(dir / "cut.jpg", whole.substr(0, cut));
    CHECK_THROWS_AS(io::read_picture(dir / "cut.jpg"), ms::file_error);
  }
  std::string huge = whole;  // a header that promises 65,535 x 65,535 pixels
  const std::size_t frame = huge.find("\xff\xc0");
  REQUIRE(frame != std::string::npos);
  for (int i = 5; i < 9; ++i)
    huge[frame + std::size_t(i)] = char(0xff);
  io::write_file(dir / "huge.jpg", huge);
  CHECK_THROWS_AS(io::read_picture(dir / "huge.jpg"), ms::file_error);
  // A folder of both kinds, at once and block by block.
  std::filesystem::create_directories(dir / "both");
  io::write_file(dir / "both/b.jpg", whole);
  io::write_png(dir / "both/a.png", p);
  const io::image_set both = io::read_images(dir / "both");
  CHECK(both.extents == ms::shape{2, 8, 16, 3});
  std::vector<float> second(8 * 16 * 3);
  io::open_images(dir / "both").read_block(1, 1, second.data());
  CHECK(std::equal(second.begin(), second.end(), both.values.begin() + 8 * 16 * 3));
}
#endif

TEST_CASE("a data set read block by block is the one read at once") {
  test::directory dir;
  const auto same = [](const ms::image_source& s, const io::image_set& all) {
    REQUIRE(s.extents == all.extents);
    const ms::index_t size = s.extents.row_size();
    for (ms::index_t first = 0; first < all.count(); first += 3) {
      const ms::index_t n = std::min<ms::index_t>(3, all.count() - first);
      std::vector<float> got(std::size_t(n * size));
      s.read_block(first, n, got.data());
      CHECK(std::equal(got.begin(), got.end(), all.values.begin() + first * size));
    }
  };
  std::vector<double> values(7 * 4 * 5);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = std::sin(double(i));
  const std::string npy = dir / "a.npy";
  io::write_npy(npy, {7, 4, 5}, values);
  same(io::open_images(npy), io::read_images(npy));
  // Latents may leave [-1, 1]; pictures may not, and the error says where.
  values[33] = 4.5;
  io::write_npy(npy, {7, 4, 5}, values);
  same(io::open_images(npy, {.latents = true}), io::read_images(npy, {.latents = true}));
  std::vector<float> to(5 * 3072);
  CHECK_THAT(message([&] { io::open_images(npy).read_block(0, 7, to.data()); }),
             Catch::Contains("value 33 is 4.5"));
  // CIFAR-10's files, one or a folder of them.
  std::filesystem::create_directories(dir / "cifar");
  for (int file = 0; file < 2; ++file) {
    std::string bytes;
    for (int r = 0; r < 4 + file; ++r) {
      bytes += char(r);
      for (int i = 0; i < 3072; ++i)
        bytes += char((i * 7 + r * 31 + file) & 255);
    }
    io::write_file(dir / ("cifar/data_batch_" + std::to_string(file) + ".bin").c_str(), bytes);
  }
  same(io::open_images(dir / "cifar"), io::read_images(dir / "cifar"));
  same(io::open_images(dir / "cifar/data_batch_1.bin"),
       io::read_images(dir / "cifar/data_batch_1.bin"));
  io::write_file(dir / "cifar/data_batch_1.bin", std::string(3073, char(11)));
  CHECK_THAT(message([&] { io::open_images(dir / "cifar").read_block(0, 5, to.data()); }),
             Catch::Contains("label 11"));
}
