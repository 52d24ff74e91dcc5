// Data sets made of pictures as people have them: resampling against Pillow and against sums
// written out, crops against arithmetic, folders and archives with whatever lies in them.
#include <multistage/io/prepare.hpp>
#ifdef MULTISTAGE_WEBP
#include <webp/encode.h>
#include <webp/mux.h>
#endif

#include "catch.hpp"
#include "directory.hpp"

namespace io = multistage::io;
using test::message;

namespace {

using bytes = std::vector<unsigned char>;

/// A picture by a formula, which the numbers of Pillow below are of.
io::picture patterned(ms::index_t height, ms::index_t width) {
  io::picture p{height, width, 3, {}};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (const int v : {x * x * 3 + y * 17, x * 40 + y * y * 5, 255 - x * 11 - y * 7})
        p.bytes.push_back(static_cast<unsigned char>(((v % 256) + 256) % 256));
  return p;
}
io::picture plain(ms::index_t height, ms::index_t width, bytes colour) {
  io::picture p{height, width, ms::index_t(colour.size()), {}};
  for (ms::index_t i = 0; i < height * width; ++i)
    p.bytes.insert(p.bytes.end(), colour.begin(), colour.end());
  return p;
}

int worst_difference(const bytes& a, const bytes& b) {
  REQUIRE(a.size() == b.size());
  int worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    worst = std::max(worst, std::abs(int(a[i]) - int(b[i])));
  return worst;
}

/// What a set was made of.
struct made_set {
  io::prepared made;
  std::vector<std::string> names;
  std::vector<int> labels;
  std::vector<bytes> images;
};
made_set made_of(const std::string& source,
                 const io::prepare_options& options,
                 int threads = 2) {
  made_set set;
  ms::thread_pool pool(threads);
  const io::image_sink sink{
      [](const ms::shape&) {},
      [&](const std::string& name, int label, std::span<const unsigned char> image) {
        set.names.push_back(name);
        set.labels.push_back(label);
        set.images.emplace_back(image.begin(), image.end());
      }};
  set.made = io::prepare_images(source, options, pool, sink);
  REQUIRE(set.made.extents.rows == ms::index_t(set.images.size()));
  return set;
}

}  // namespace

TEST_CASE("pictures are resized as Pillow resizes them") {
  const io::picture p = patterned(11, 13);
  const auto to = [&](ms::index_t width, ms::index_t height, const io::picture& from) {
    return io::resized(from, {width, height}, io::resize_filter::lanczos).bytes;
  };
  // Pillow 9.4, Image.resize with LANCZOS; it rounds and clips between the axes, so that bytes
  // may differ by 1 where it overshoots little.
  CHECK(worst_difference(
            to(5, 4, p),
            {18,  30,  240, 45,  162, 212, 141, 141, 183, 135, 78,  154, 122, 211, 126,
             63,  111, 221, 91,  174, 193, 180, 88,  164, 98,  152, 135, 148, 112, 107,
             110, 141, 201, 152, 107, 173, 176, 136, 144, 94,  131, 115, 142, 116, 87,
             154, 129, 182, 206, 119, 154, 106, 118, 125, 114, 134, 96,  118, 150, 68}) <= 1);
  CHECK(worst_difference(to(5, 4, io::cropped(p, {0, 0, 3, 2})),
                         {0,  0, 255, 0,  8,  254, 0,  39, 245, 6,  70, 236, 10, 82, 233,
                          4,  0, 254, 4,  10, 251, 7,  41, 242, 13, 72, 233, 17, 84, 230,
                          13, 2, 250, 13, 13, 248, 16, 44, 239, 22, 75, 230, 26, 87, 227,
                          20, 2, 248, 20, 15, 245, 23, 46, 236, 29, 77, 227, 33, 89, 224}) <=
        1);
  CHECK(worst_difference(to(6, 2, p),
                         {41,  69,  232, 61,  146, 208, 121, 158, 184, 179, 88,  160,
                          85,  139, 136, 157, 151, 112, 130, 142, 196, 154, 120, 172,
                          194, 118, 148, 92,  129, 124, 126, 137, 100, 125, 123, 76}) <= 1);
  // Its BOX is the mean of what a pixel covers where sizes divide.
  CHECK(worst_difference(
            io::resized(io::cropped(p, {0, 0, 12, 8}), {4, 2}, io::resize_filter::area).bytes,
            {31, 58,  234, 76,  178, 201, 175, 84,  168, 93,  162, 135,
             99, 134, 206, 144, 126, 173, 136, 139, 140, 140, 110, 107}) <= 1);
  const bytes luma = io::recoloured(io::cropped(p, {0, 0, 13, 1}), 1).bytes;
  CHECK(luma == bytes{29, 52, 77, 104, 132, 163, 195, 78, 114, 151, 114, 155, 198});
}

TEST_CASE("a pixel is the weighted sum of its window") {
  const io::picture p = patterned(7, 10);
  for (const auto filter : {io::resize_filter::lanczos, io::resize_filter::area})
    for (const io::picture_size to :
         {io::picture_size{3, 3}, {4, 20}, {25, 2}, {1, 1}, {10, 4}, {9, 7}}) {
      const io::picture got = io::resized(p, to, filter);
      REQUIRE((got.width == to.width && got.height == to.height));
      const auto weight = [&](double at, ms::index_t from, ms::index_t size, ms::index_t i) {
        const double scale = double(from) / double(size);
        const double centre = (double(i) + 0.5) * scale;
        if (filter == io::resize_filter::area)
          return std::max(
              0.0, std::min(at + 1, centre + scale / 2) - std::max(at, centre - scale / 2));
        const double x = std::abs(at + 0.5 - centre) / std::max(scale, 1.0);
        const auto sinc = [](double v) {
          return v == 0 ? 1 : std::sin(M_PI * v) / (M_PI * v);
        };
        return x < 3 ? sinc(x) * sinc(x / 3) : 0.0;
      };
      for (ms::index_t i = 0; i < got.height; ++i)
        for (ms::index_t j = 0; j < got.width; ++j)
          for (ms::index_t c = 0; c < 3; ++c) {
            double sum = 0;
            double weights = 0;
            for (ms::index_t y = 0; y < p.height; ++y)
              for (ms::index_t x = 0; x < p.width; ++x) {
                const double w = weight(double(y), p.height, got.height, i) *
                                 weight(double(x), p.width, got.width, j);
                weights += w;
                sum += w * p.bytes[std::size_t((y * p.width + x) * 3 + c)];
              }
            const double want = std::clamp(sum / weights, 0.0, 255.0);
            // rounded to the nearest byte, by floats
            CHECK(std::abs(got.bytes[std::size_t((i * got.width + j) * 3 + c)] - want) < 0.501);
          }
    }
  CHECK(io::resized(p, {10, 7}, io::resize_filter::lanczos).bytes == p.bytes);
  // One colour stays that colour, whatever the filter.
  const bytes one = io::resized(plain(9, 5, {7, 80, 255}), {4, 4}, {}).bytes;
  CHECK(one == plain(4, 4, {7, 80, 255}).bytes);
  // A pattern finer than the result is its mean, not stripes.
  io::picture stripes = plain(8, 64, {0});
  for (std::size_t i = 0; i < stripes.bytes.size(); i += 2)
    stripes.bytes[i] = 255;
  for (const unsigned char b : io::resized(stripes, {8, 1}, io::resize_filter::area).bytes)
    CHECK((b == 127 || b == 128));
  CHECK_THROWS_AS(io::resized(p, {0, 4}, {}), ms::value_error);
  CHECK_THROWS_AS(io::cropped(p, {5, 0, 6, 2}), ms::value_error);
}

TEST_CASE("crops are the largest part of the shape, in the middle or where seed and name say") {
  using box = io::picture_box;
  const auto centre = io::crop_rule::centre;
  CHECK(io::crop_box(100, 60, {32, 32}, centre) == box{20, 0, 60, 60});
  CHECK(io::crop_box(60, 101, {32, 32}, centre) == box{0, 20, 60, 60});
  CHECK(io::crop_box(100, 100, {48, 64}, centre) == box{12, 0, 75, 100});
  CHECK(io::crop_box(300, 100, {64, 48}, centre) == box{83, 0, 133, 100});
  CHECK(io::crop_box(1, 1000, {64, 2}, centre) == box{0, 499, 1, 1});
  CHECK(io::crop_box(100, 60, {7, 3}, io::crop_rule::none) == box{0, 0, 100, 60});
  std::set<ms::index_t> seen;
  for (int i = 0; i < 400; ++i) {
    const std::string name = "picture " + std::to_string(i);
    const box b = io::crop_box(100, 96, {32, 32}, io::crop_rule::random_fixed, 5, name);
    CHECK((b.width == 96 && b.height == 96 && b.top == 0 && b.left >= 0 && b.left <= 4));
    CHECK(b == io::crop_box(100, 96, {32, 32}, io::crop_rule::random_fixed, 5, name));
    seen.insert(b.left);
  }
  CHECK(seen.size() == 5);
}

TEST_CASE("options of prepare are read from texts and say what is wrong") {
  CHECK(io::picture_size("32") == io::picture_size{32, 32});
  CHECK(io::picture_size("48x64") == io::picture_size{48, 64});
  CHECK(io::picture_size("48x64").name() == "48x64");
  for (const char* text :
       {"", "x", "32x", "x32", "0", "-3", "32x0", "3.5", "32 x 32", "1000000"})
    CHECK_THAT(message([&] { io::picture_size{std::string(text)}; }),
               Catch::Contains("width x height"));
  CHECK(io::background_colour("#ff8001").rgb == std::array<unsigned char, 3>{255, 128, 1});
  CHECK(io::background_colour("white").name() == "#ffffff");
  for (const char* text : {"red", "#12345", "#1234567", "#12g456", "ff8000"})
    CHECK_THAT(message([&] { io::background_colour{std::string(text)}; }),
               Catch::Contains("hexadecimal"));
  CHECK(io::label_choice("csv my labels.csv").table == "my labels.csv");
  CHECK_THAT(message([] { io::label_choice("csv"); }), Catch::Contains("csv FILE"));
}

TEST_CASE("tables of labels are read with quotes, and their faults named by line") {
  const auto rows = io::parse_table("t",
                                    "\xef\xbb\xbf"
                                    "file,label\r\n\"a,1.png\",\"a \"\"cat\"\"\"\n\n b.png "
                                    ", dog\n\"two\nlines\",x");
  REQUIRE(rows.size() == 4);
  CHECK(rows[1].fields == std::vector<std::string>{"a,1.png", "a \"cat\""});
  CHECK(rows[2].fields == std::vector<std::string>{"b.png", "dog"});
  CHECK((rows[2].line == 4 && rows[3].line == 5));
  CHECK(rows[3].fields[0] == "two\nlines");
  const auto fails = [](const std::string& text) {
    const std::vector<std::string> names = {"a/1.png", "b/1.png", "b/2.png"};
    return message([&] { io::labels_by_table("labels.csv", text, names); });
  };
  CHECK_THAT(fails("b/2.png,x\n\"a/1.png"), Catch::Contains("line 2: a quote is not closed"));
  CHECK_THAT(fails("b/2.png,x\n\n\na\n"), Catch::Contains("line 4: has 1 fields"));
  CHECK_THAT(fails("b/2.png,x,y\n"), Catch::Contains("line 1: has 3 fields"));
  CHECK_THAT(fails("2.png,x\n2.png,y\n"),
             Catch::Contains("line 2: 2.png has the label y, and x"));
  CHECK_THAT(fails("\"a\"b,x\n"), Catch::Contains("line 1: something follows"));
  CHECK_THAT(fails("a\"b,x\n"), Catch::Contains("line 1: a quote stands within"));
  CHECK_THAT(fails("1.png,x\n"), Catch::Contains("names none of the 3 pictures"));
  CHECK_THAT(fails(std::string("a\0b,x\n", 6)), Catch::Contains("NUL"));
  const std::vector<std::string> names = {"a/1.png", "b/1.png", "b/2.png"};
  const io::label_list list =
      io::labels_by_table("t", "Filename,label\na/1.png,10\n2.png,9\nno.png,3\n", names);
  CHECK(list.labels == std::vector<int>{10, -1, 9});  // numbers stay what they are
  CHECK(list.classes.size() == 11);
  CHECK(list.remarks.size() == 1);
}

TEST_CASE("labels by folders and by EDM's dataset.json") {
  const auto by_folder = [](std::vector<std::string> names) {
    return io::labels_by_folder(names);
  };
  const io::label_list animals =
      by_folder({"set/owl/1.png", "set/cat/deep/er/2.png", "set/owl/3.png"});
  CHECK(animals.classes == std::vector<std::string>{"cat", "owl"});
  CHECK(animals.labels == std::vector<int>{1, 0, 1});
  CHECK(by_folder({"10/a", "9/b"}).labels == std::vector<int>{10, 9});
  CHECK(by_folder({"010/a", "9/b"}).labels == std::vector<int>{0, 1});
  CHECK_THAT(message([&] {
               by_folder({"a/1.png", "2.png"});
             }),
             Catch::Contains("2.png lies in no folder"));
  CHECK_THROWS_AS(by_folder({"a/1.png", "a/2.png"}), ms::value_error);
  const std::vector<std::string> names = {"0/1.png", "0/2.png"};
  const auto by_json = [&](const std::string& text) {
    return io::labels_by_dataset_json("dataset.json", text, names);
  };
  CHECK(by_json(R"({"labels": [["0/2.png", 3], ["0/1.png", 0]]})").labels ==
        std::vector<int>{0, 3});
  CHECK(by_json(R"({"labels": null})").labels.empty());
  for (const char* text : {"", "[]", "{}", R"({"labels": 3})", R"({"labels": [["a"]]})",
                           R"({"labels": [["a", -1]]})", R"({"labels": [["a", 1e9]]})",
                           R"({"labels": [["a", [0, 1]]]})", R"({"labels": [["a", 70000]]})",
                           R"({"labels": [["a", 1], ["a", 2]]})"})
    CHECK_THROWS_AS(by_json(text), ms::file_error);
}

namespace {

/// A tar archive of files as ustar has them: a header of 512 bytes, the bytes, zeros.
std::string tar(const std::vector<std::pair<std::string, std::string>>& files) {
  std::string all;
  for (const auto& [name, content] : files) {
    std::string header(512, '\0');
    header.replace(0, name.size(), name);
    header.replace(100, 7, "0000644");
    char size[13];
    std::snprintf(size, sizeof size, "%011zo", content.size());
    header.replace(124, 11, size);
    header.replace(136, 11, "00000000000");
    header.replace(156, 1, "0");
    header.replace(257, 8, std::string("ustar\0", 6) + "00");
    header.replace(148, 8, "        ");
    unsigned sum = 0;
    for (const char c : header)
      sum += static_cast<unsigned char>(c);
    char text[9];
    std::snprintf(text, sizeof text, "%06o", sum);
    header.replace(148, 6, text);
    header[154] = '\0';
    all += header + content + std::string((512 - content.size() % 512) % 512, '\0');
  }
  return all + std::string(1024, '\0');
}
/// A zip archive of stored files.
std::string zip(const std::vector<std::pair<std::string, std::string>>& files) {
  std::string all;
  std::string directory;
  const auto number = [](std::string& to, std::uint64_t v, int n) {
    for (int i = 0; i < n; ++i)
      to += i < 8 ? char(v >> (8 * i) & 255) : '\0';
  };
  for (const auto& [name, content] : files) {
    std::string entry;
    number(entry, 20, 2);
    number(entry, 0, 8);  // flags, stored, time and date
    number(entry,
           io::detail::crc32(
               {reinterpret_cast<const unsigned char*>(content.data()), content.size()}),
           4);
    number(entry, content.size(), 4);
    number(entry, content.size(), 4);
    number(entry, name.size(), 2);
    number(entry, 0, 2);
    number(directory, 0x02014b50, 4);
    number(directory, 20, 2);
    directory += entry;
    number(directory, 0, 10);  // comment, disk, attributes
    number(directory, all.size(), 4);
    directory += name;
    number(all, 0x04034b50, 4);
    all += entry + name + content;
  }
  std::string end;
  number(end, 0x06054b50, 4);
  number(end, 0, 4);
  number(end, files.size(), 2);
  number(end, files.size(), 2);
  number(end, directory.size(), 4);
  number(end, all.size(), 4);
  number(end, 0, 2);
  return all + directory + end;
}
std::string gzipped(const std::string& text) {
  z_stream z{};
  REQUIRE(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY) == Z_OK);
  std::string to(deflateBound(&z, uLong(text.size())), '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = uInt(text.size());
  z.next_out = reinterpret_cast<Bytef*>(to.data());
  z.avail_out = uInt(to.size());
  REQUIRE(deflate(&z, Z_FINISH) == Z_STREAM_END);
  to.resize(z.total_out);
  deflateEnd(&z);
  return to;
}
std::string png(const bytes& colour, ms::index_t height = 4, ms::index_t width = 4) {
  return io::encode_png(plain(height, width, colour));
}

}  // namespace

TEST_CASE("a folder of anything becomes images in the order of paths") {
  const test::directory dir;
  for (const char* folder : {"a", "b/c/d", ".hidden", "b/.git"})
    std::filesystem::create_directories(dir / folder);
  const std::string red = png({255, 0, 0});
  io::write_file(dir / "b/c/d/2.png", red);
  io::write_file(dir / "b/a.txt", png({0, 255, 0}));  // a picture, whatever its name
  io::write_file(dir / "a/1.PNG", png({200}, 7, 3));  // grey, of another size
  io::write_file(dir / "a/0.png", "");                // empty
  io::write_file(dir / "a/cut.jpg", red.substr(0, 40));
  io::write_file(dir / "a/page.jpeg", "<html>not found</html>");
  io::write_file(dir / "a/notes.md", "# notes");
  io::write_file(dir / "a/x.gif", "GIF89a........");
  io::write_file(dir / ".hidden/1.png", red);
  io::write_file(dir / "b/.git/1.png", red);
  io::write_file(dir / "b/._1.png", "junk");
  io::write_file(dir / "b/\xc3\xbc \"o\".png", png({0, 0, 255}));
  io::write_file(dir / "b/\xff\n.png", png({9, 9, 9}));  // no UTF-8, and an end of line
  std::filesystem::create_directory_symlink("..", dir / "b/c/loop");
  std::filesystem::create_directory_symlink(dir.path, dir / "z");
  std::filesystem::create_symlink("nowhere", dir / "b/dangling.png");
  const made_set set = made_of(dir.path, {.size = {4, 4}});
  CHECK(set.names == std::vector<std::string>{"a/1.PNG", "b/a.txt", "b/c/d/2.png",
                                              "b/\xc3\xbc \"o\".png", "b/\xff\n.png"});
  CHECK(set.made.extents == ms::shape{5, 4, 4, 3});
  CHECK(set.images[0] == plain(4, 4, {200, 200, 200}).bytes);
  CHECK(set.images[2] == plain(4, 4, {255, 0, 0}).bytes);
  CHECK(set.made.hidden == 3);
  CHECK(set.made.other == std::map<std::string, ms::index_t>{{"", 1}, {"GIF", 1}});
  CHECK(set.made.enlarged == 1);
  std::vector<std::string> failed;
  for (const io::failed_file& f : set.made.failed) {
    failed.push_back(f.name);
    CHECK_THAT(f.why, Catch::Contains(f.name));
  }
  std::sort(failed.begin(), failed.end());
  CHECK(failed ==
        std::vector<std::string>{"a/0.png", "a/cut.jpg", "a/page.jpeg", "b/dangling.png"});
  CHECK_THROWS_AS(made_of(dir.path, {.size = {4, 4}, .strict = true}), ms::file_error);
  CHECK_THAT(message([&] { made_of(dir.path, {}); }), Catch::Contains("--size"));
  CHECK(made_of(dir.path, {.size = {4, 4}}, 1).images == set.images);
  // By folders: a, and whatever is below b.
  const made_set classes =
      made_of(dir.path, {.size = {4, 4}, .labels = io::label_choice("folder")});
  CHECK(classes.made.classes == std::vector<std::string>{"a", "b"});
  CHECK(classes.labels == std::vector<int>{0, 1, 1, 1, 1});
  CHECK(classes.made.class_counts == std::vector<ms::index_t>{1, 4});
  io::write_file(dir / "t.csv", "b/a.txt,yes\n1.PNG,no\n");
  io::prepare_options by_table{.size = {4, 4}};
  by_table.labels = io::label_choice("csv " + dir / "t.csv");
  const made_set table = made_of(dir.path, by_table);
  CHECK(table.names == std::vector<std::string>{"a/1.PNG", "b/a.txt"});
  CHECK(table.labels == std::vector<int>{0, 1});
  CHECK(table.made.failed.size() == 7);  // three have no label
}

TEST_CASE("mean, deviation, duplicates and grey are those of the images") {
  const test::directory dir;
  io::write_file(dir / "1.png", png({0}));
  io::write_file(dir / "2.png", png({255}));
  io::write_file(dir / "3.png", png({0}, 8, 8));  // the same once it is resized
  made_set set = made_of(dir.path, {.size = {4, 4}, .deduplicate = true});
  CHECK(set.made.extents == ms::shape{2, 4, 4, 1});
  CHECK(set.made.duplicates == 1);
  CHECK(set.made.mean == Approx(0).margin(1e-12));
  CHECK(set.made.deviation == Approx(1));
  io::write_file(dir / "4.png", png({255, 0, 0}));
  set = made_of(dir.path, {.size = {4, 4}, .grey = true});
  CHECK(set.images[3] == plain(4, 4, {76}).bytes);
  set = made_of(dir.path, {.size = {2, 4}});
  CHECK(set.made.extents == ms::shape{4, 4, 2, 3});
  const double red_mean = (-1 + 1 - 1 + (1 - 2) / 3.0) / 4;
  CHECK(set.made.mean == Approx(red_mean));
  CHECK(set.made.deviation == Approx(std::sqrt(1 - red_mean * red_mean)));
}

TEST_CASE("what is transparent stands on the background") {
  const test::directory dir;
  std::filesystem::copy_file(MULTISTAGE_TEST_DATA "/pictures/files/rgba8.png", dir / "a.png");
  std::filesystem::copy_file(MULTISTAGE_TEST_DATA "/pictures/files/greyalpha8.png",
                             dir / "b.png");
  const io::picture black = io::read_picture(dir / "a.png");
  const made_set white = made_of(dir.path, {.background = io::background_colour("white")});
  const made_set red = made_of(dir.path, {.background = io::background_colour("#ff0000")});
  const made_set none = made_of(dir.path, {});
  CHECK(none.images[0] == black.bytes);
  // Drawn on white and on black, a pixel differs by what shows through: the same in all
  // channels. On red, red is white's and the others are black's.
  REQUIRE(red.images[1].size() == white.images[1].size());
  for (std::size_t k = 0; k < 2; ++k)
    for (std::size_t i = 0; i < red.images[k].size(); i += 3) {
      const int through = white.images[k][i] - none.images[k][i];
      for (std::size_t c = 0; c < 3; ++c) {
        CHECK(std::abs(white.images[k][i + c] - none.images[k][i + c] - through) <= 1);
        CHECK(red.images[k][i + c] == (c == 0 ? white : none).images[k][i + c]);
      }
    }
  // Alone, grey with transparency is grey on white and coloured on red.
  CHECK(made_of(dir / "b.png", {.background = io::background_colour("white")})
            .made.extents.channels == 1);
  CHECK(made_of(dir / "b.png", {.background = io::background_colour("#ff0000")})
            .made.extents.channels == 3);
}

#ifdef MULTISTAGE_LCMS
TEST_CASE("colours by another profile become sRGB's") {
  // sRGB's primaries with a straight curve, whose bytes are light itself.
  const cmsCIExyYTRIPLE primaries{{0.64, 0.33, 1}, {0.30, 0.60, 1}, {0.15, 0.06, 1}};
  const cmsCIExyY white{0.3127, 0.3290, 1};
  cmsToneCurve* const line = cmsBuildGamma(nullptr, 1);
  cmsToneCurve* const curves[] = {line, line, line};
  const cmsHPROFILE profile = cmsCreateRGBProfile(&white, &primaries, curves);
  cmsUInt32Number size = 0;
  REQUIRE(cmsSaveProfileToMem(profile, nullptr, &size));
  std::string icc(size, '\0');
  REQUIRE(cmsSaveProfileToMem(profile, icc.data(), &size));
  cmsCloseProfile(profile);
  cmsFreeToneCurve(line);
  // IEC 61966-2-1
  const auto encoded = [](unsigned char b) {
    const double v = b / 255.0;
    return 255 * (v <= 0.0031308 ? 12.92 * v : 1.055 * std::pow(v, 1 / 2.4) - 0.055);
  };
  const auto compare = [&](const bytes& got, const bytes& stored, double tolerance) {
    REQUIRE(got.size() == stored.size());
    double worst = 0;
    for (std::size_t i = 0; i < got.size(); ++i)
      worst = std::max(worst, std::abs(got[i] - encoded(stored[i])));
    CHECK(worst <= tolerance);
  };
  const auto decoded = [](const std::string& text, const io::picture_options& options = {}) {
    return io::decode_picture(
        "p", {reinterpret_cast<const unsigned char*>(text.data()), text.size()}, options);
  };
  const auto big_endian = [](std::size_t v, int n) {
    std::string text;
    for (int shift = 8 * (n - 1); shift >= 0; shift -= 8)
      text += char(v >> shift & 255);
    return text;
  };
  // PNG: a chunk behind the header, its profile deflated.
  const io::picture p = patterned(9, 11);
  std::string packed(compressBound(icc.size()), '\0');
  uLongf packed_size = packed.size();
  REQUIRE(compress(reinterpret_cast<Bytef*>(packed.data()), &packed_size,
                   reinterpret_cast<const Bytef*>(icc.data()), icc.size()) == Z_OK);
  const std::string chunk = "iCCP" + std::string("x\0\0", 3) + packed.substr(0, packed_size);
  const auto with_profile = [&](std::string file) {
    const auto crc =
        io::detail::crc32({reinterpret_cast<const unsigned char*>(chunk.data()), chunk.size()});
    return file.insert(33, big_endian(chunk.size() - 4, 4) + chunk + big_endian(crc, 4));
  };
  compare(decoded(with_profile(io::encode_png(p))).bytes, p.bytes, 2);
  // The profile of colours is none for grey, which is said and stays.
  io::picture_warnings warnings;
  const io::picture_options noting{io::default_most_pixels, &warnings};
  const io::picture grey = plain(3, 3, {90});
  CHECK(decoded(with_profile(io::encode_png(grey)), noting).bytes == grey.bytes);
  CHECK(warnings.count() == 1);
  const ms::warning_handler before = ms::set_warning_handler([](const std::string&) {});
  warnings.report();
  ms::set_warning_handler(before);
#ifdef MULTISTAGE_JPEG
  // JPEG: in two parts behind the first marker.
  const bytes file = io::read_file(MULTISTAGE_TEST_DATA "/pictures/files/plain.jpg");
  std::string text(file.begin(), file.end());
  std::string parts;
  for (const int part : {1, 2}) {
    const std::size_t half = icc.size() / 2;
    const std::string data = part == 1 ? icc.substr(0, half) : icc.substr(half);
    parts += "\xff\xe2" + big_endian(data.size() + 16, 2) + std::string("ICC_PROFILE\0", 12) +
             char(part) + char(2) + data;
  }
  const bytes stored = decoded(text).bytes;
  compare(decoded(text.insert(2, parts)).bytes, stored, 2);
#endif
#ifdef MULTISTAGE_WEBP
  // WebP without loss: what the same picture is as PNG with the same profile.
  std::uint8_t* made = nullptr;
  const std::size_t made_size = WebPEncodeLosslessRGB(p.bytes.data(), int(p.width),
                                                      int(p.height), 3 * int(p.width), &made);
  REQUIRE(made_size > 0);
  const WebPData pixels{made, made_size};
  const WebPData profile_chunk{reinterpret_cast<const std::uint8_t*>(icc.data()), icc.size()};
  WebPMux* const mux = WebPMuxCreate(&pixels, 1);
  REQUIRE(WebPMuxSetChunk(mux, "ICCP", &profile_chunk, 1) == WEBP_MUX_OK);
  WebPData whole{};
  REQUIRE(WebPMuxAssemble(mux, &whole) == WEBP_MUX_OK);
  const std::string bare(reinterpret_cast<const char*>(made), made_size);
  const std::string coloured(reinterpret_cast<const char*>(whole.bytes), whole.size);
  CHECK(decoded(bare).bytes == p.bytes);
  CHECK(decoded(coloured).bytes == decoded(with_profile(io::encode_png(p))).bytes);
  compare(decoded(coloured).bytes, p.bytes, 2);
  WebPDataClear(&whole);
  WebPMuxDelete(mux);
  WebPFree(made);
#endif
}
#endif

TEST_CASE("archives are read like folders, whatever they hold") {
  if (!io::reads_archives)
    return;
  const test::directory dir;
  const std::vector<std::pair<std::string, std::string>> files = {
      {"set/b/2.png", png({255, 0, 0})},
      {"set/a/1.png", png({0, 255, 0})},
      {"set/a/1.png", png({0, 0, 255})},  // the same name again
      {"../../escape.png", png({1, 2, 3})},
      {"/etc/absolute.png", png({4, 5, 6})},
      {"set/.DS_Store", "junk"},
      {"set/README", "text"},
      {"set/a/broken.png", "\x89PNG\r\n\x1a\n"}};
  const std::vector<std::string> names = {"set/b/2.png", "set/a/1.png", "set/a/1.png",
                                          "../../escape.png", "/etc/absolute.png"};
  io::write_file(dir / "tar", tar(files));
  io::write_file(dir / "tar.gz", gzipped(tar(files)));
  io::write_file(dir / "zip", zip(files));
  for (const char* archive : {"tar", "tar.gz", "zip"}) {
    INFO(archive);
    const made_set set = made_of(dir / archive, {});
    CHECK(set.names == names);
    CHECK(set.images[0] == plain(4, 4, {255, 0, 0}).bytes);
    CHECK(set.images[2] == plain(4, 4, {0, 0, 255}).bytes);
    CHECK(set.made.hidden == 1);
    CHECK(set.made.other.at("") == 1);
    REQUIRE(set.made.failed.size() == 1);
    CHECK_THAT(set.made.failed[0].why, Catch::Contains("set/a/broken.png"));
  }
  CHECK(!std::filesystem::exists(dir / "../../escape.png"));
  // In a folder they are folders; where one is cut, what stands before the cut is read.
  std::filesystem::create_directories(dir / "folder");
  io::write_file(dir / "folder/1.tar", tar({files[0], files[1]}));
  io::write_file(dir / "folder/2.tar", tar({files[0], files[2]}).substr(0, 1600));
  io::write_file(dir / "folder/3.tgz", gzipped(tar({files[0]})).substr(0, 60));
  io::write_file(dir / "folder/4.zip", zip({files[0], files[1]}).substr(0, 200));
  const made_set set = made_of(dir / "folder", {});
  CHECK(set.names.size() >= 3);
  CHECK(set.names[0] == "1.tar/set/b/2.png");
  CHECK(set.made.failed.size() >= 2);
  // A bomb: a picture, and so many zeros behind it that no picture of its limit has them.
  io::write_file(dir / "bomb.tgz",
                 gzipped(tar({{"1.png", png({1, 2, 3}) + std::string(1 << 26, '\0')},
                              {"2.png", png({1, 2, 3})}})));
  const made_set bomb = made_of(dir / "bomb.tgz", {.most_pixels = 1 << 20});
  REQUIRE(bomb.made.failed.size() == 1);
  CHECK_THAT(bomb.made.failed[0].why, Catch::Contains("has more than the"));
}

TEST_CASE("EDM's archives have their labels, arrays theirs") {
  const test::directory dir;
  if (io::reads_archives) {
    io::write_file(dir / "edm.zip",
                   zip({{"00000/img1.png", png({1, 2, 3})},
                        {"00000/img0.png", png({3, 2, 1})},
                        {"dataset.json", R"({"labels": [["00000/img0.png", 4], )"
                                         R"(["00000/img1.png", 0]]})"}}));
    const made_set edm = made_of(dir / "edm.zip", {});
    CHECK(edm.labels == std::vector<int>{0, 4});
    CHECK(edm.made.classes.size() == 5);
    CHECK(made_of(dir / "edm.zip", {.labels = io::label_choice("none")}).labels ==
          std::vector<int>{-1, -1});
  }
  std::string cifar(3 * 3073, char(0));
  for (int i = 0; i < 3; ++i) {
    cifar[std::size_t(i) * 3073] = char(2 + i);
    cifar.replace(std::size_t(i) * 3073 + 1, 1024, std::string(1024, char(90)));  // red
  }
  io::write_file(dir / "data_batch_1.bin", cifar);
  const made_set set = made_of(dir / "data_batch_1.bin", {.size = {16, 16}});
  CHECK(set.labels == std::vector<int>{2, 3, 4});
  CHECK(set.made.classes[2] == "bird");
  CHECK(set.images[0] == plain(16, 16, {90, 0, 0}).bytes);
  CHECK_THROWS_AS(made_of(dir / "data_batch_1.bin", {.labels = io::label_choice("folder")}),
                  ms::value_error);
  io::write_npy(dir / "floats.npy", {2, 1, 2}, std::vector<double>{-1, 1, 0.5, -0.5});
  CHECK(made_of(dir / "floats.npy", {}).images == std::vector<bytes>{{0, 255}, {191, 64}});
  CHECK_THROWS_AS(made_of(dir / "nothing", {}), ms::file_error);
}

TEST_CASE("sets that are published come with their labels, packed or not") {
  const test::directory dir;
  // CIFAR-100: a coarse label, a fine one, planes.
  std::string cifar;
  for (int i = 0; i < 3; ++i)
    cifar += std::string(1, char(7)) + char(97 + i) + std::string(1024, char(i)) +
             std::string(1024, char(50)) + std::string(1024, char(200));
  io::write_file(dir / "train.bin", cifar);
  const ms::image_source open = io::open_images(dir / "train.bin");
  CHECK(open.class_count == 100);
  CHECK(open.labels() == std::vector<int>{97, 98, 99});
  CHECK(io::open_images(dir.path).labels() == open.labels());
  bytes want;
  for (int p = 0; p < 1024; ++p)
    for (const int v : {2, 50, 200})
      want.push_back(static_cast<unsigned char>(v));
  const made_set set = made_of(dir / "train.bin", {});
  CHECK(set.images[2] == want);
  CHECK(set.made.class_counts[99] == 1);
  if (io::reads_archives) {
    io::write_file(dir / "cifar.tar.gz", gzipped(tar({{"c/train.bin", cifar}, {"c/x", "x"}})));
    const made_set packed = made_of(dir / "cifar.tar.gz", {});
    CHECK(packed.images == set.images);
    CHECK(packed.labels == set.labels);
  }
  std::string broken = cifar;
  broken[3074 + 1] = 100;
  io::write_file(dir / "train.bin", broken);
  CHECK_THAT(message([&] { io::open_images(dir / "train.bin"); }),
             Catch::Contains("record 1 has the label 100"));
  // MNIST: labels in a file of their own.
  const std::string images("\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x02\x05\x06\x07\x08", 20);
  const std::string labels("\0\0\x08\x01\0\0\0\x02\x09\x03", 10);
  io::write_file(dir / "train-images-idx3-ubyte.gz", gzipped(images));
  CHECK(made_of(dir / "train-images-idx3-ubyte.gz", {}).labels == std::vector<int>{-1, -1});
  io::write_file(dir / "train-labels-idx1-ubyte", labels);
  const made_set mnist = made_of(dir / "train-images-idx3-ubyte.gz", {});
  CHECK(mnist.images == std::vector<bytes>{{5, 6}, {7, 8}});
  CHECK(mnist.labels == std::vector<int>{9, 3});
  CHECK(mnist.made.classes.size() == 10);
  io::write_file(dir / "train-labels-idx1-ubyte", labels.substr(0, 9));
  CHECK_THAT(message([&] { io::open_images(dir / "train-images-idx3-ubyte.gz"); }),
             Catch::Contains("train-labels-idx1-ubyte"));
  io::write_file(dir / "train-labels-idx1-ubyte", std::string("\0\0\x08\x01\0\0\0\x01\x09", 9));
  CHECK_THAT(message([&] { io::open_images(dir / "train-images-idx3-ubyte.gz"); }),
             Catch::Contains("has 1 labels"));
}

TEST_CASE("a source without pictures says what it holds, and no folder is too deep") {
  const test::directory dir;
  std::filesystem::create_directories(dir / "empty");
  CHECK_THAT(message([&] { made_of(dir / "empty", {}); }), Catch::Contains("no pictures"));
  io::write_file(dir / "empty/a.gif", "GIF89a........");
  io::write_file(dir / "empty/b.png", "nonsense");
  CHECK_THAT(message([&] { made_of(dir / "empty", {}); }),
             Catch::Contains("1 GIF") && Catch::Contains("b.png"));
  std::string deep = "deep";
  for (int i = 0; i < 300; ++i)
    deep += "/" + std::to_string(i % 10);
  std::filesystem::create_directories(dir / deep);
  io::write_file(dir / (deep + "/1.png"), png({1, 2, 3}));
  CHECK(made_of(dir / "deep", {}).images.size() == 1);
  io::write_file(dir / "large.png", png({1, 2, 3}, 40, 40));
  CHECK_THAT(message([&] { made_of(dir / "large.png", {.most_pixels = 1000}); }),
             Catch::Contains("no picture") && Catch::Contains("more than the 1000"));
}

TEST_CASE("a set appears whole, with all that is known, and is not replaced by mistake") {
  const test::directory dir;
  std::filesystem::create_directories(dir / "in/cat");
  std::filesystem::create_directories(dir / "in/owl");
  io::write_file(dir / "in/cat/1.png", png({1, 2, 3}));
  io::write_file(dir / "in/owl/2.png", png({9, 8, 7}));
  ms::thread_pool pool(2);
  const io::prepare_options options{.labels = io::label_choice("folder")};
  const std::string out = dir / "sets/deep/out";
  const io::prepared made = io::prepare(dir / "in", out + "/", options, pool);
  CHECK(made.extents == ms::shape{2, 4, 4, 3});
  const ms::image_source images = io::open_images(out);
  CHECK(images.extents == made.extents);
  CHECK(images.fingerprint == made.checksum);
  CHECK(images.class_names == std::vector<std::string>{"cat", "owl"});
  CHECK(images.labels() == std::vector<int>{0, 1});
  std::vector<std::string> names;
  io::for_each_file_name(out, [&](const std::string& name) { names.push_back(name); });
  CHECK(names == std::vector<std::string>{"cat/1.png", "owl/2.png"});
  const io::shard_index index = io::read_shard_index(out);
  CHECK((*index.made)["options"]["labels"] == "folder");
  CHECK((*index.made)["deviation"].get<double>() == Approx(made.deviation));
  // Of itself, another set: with its labels.
  const io::prepared half =
      io::prepare(out, dir / "half", {.size = {2, 2}, .deduplicate = true}, pool);
  CHECK(half.classes == made.classes);
  CHECK(io::open_images(dir / "half").labels() == std::vector<int>{0, 1});
  const auto again = [&](bool overwrite, const std::string& to) {
    io::prepare_options o{.size = {3, 3}};
    o.overwrite = overwrite;
    return message([&] { io::prepare(dir / "in", to, o, pool); });
  };
  CHECK_THAT(again(false, out), Catch::Contains("is there already"));
  CHECK(io::open_images(out).extents.width == 4);
  CHECK(again(true, out) == "nothing");
  CHECK(io::open_images(out).extents.width == 3);
  CHECK_THAT(again(true, dir / "in"), Catch::Contains("no data set in shards"));
  CHECK(std::filesystem::exists(dir / "in/cat/1.png"));
  // One that fails or is stopped leaves nothing, not even a hidden folder.
  io::write_file(dir / "in/cat/3.png", "nonsense");
  io::prepare_options strict;
  strict.strict = true;
  CHECK_THROWS_AS(io::prepare(dir / "in", dir / "new", strict, pool), ms::file_error);
  CHECK_THROWS_AS(io::prepare(dir / "in", dir / "new", {}, pool,
                              [](ms::index_t, ms::index_t) { return false; }),
                  ms::state_error);
  std::vector<std::string> left;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path))
    left.push_back(entry.path().filename().string());
  std::sort(left.begin(), left.end());
  CHECK(left == std::vector<std::string>{"half", "in", "sets"});
  // What a run left that was killed goes with the next one; what lives stays.
  std::filesystem::create_directories(dir / ".new.partial.0123456789abcdef/x");
  io::atomic_folder alive(dir / "new", false);
  CHECK(!std::filesystem::exists(dir / ".new.partial.0123456789abcdef"));
  CHECK(io::prepare(dir / "in", dir / "new", {}, pool).failed.size() == 1);
  CHECK(std::filesystem::exists(alive.inside()));
}

TEST_CASE("pictures that people have, sound and broken, go through") {
  const std::string inputs = MULTISTAGE_TEST_INPUTS;
  if (!std::filesystem::exists(inputs))
    return;
  ms::set_warning_handler([](const std::string&) {});
  const made_set set = made_of(inputs, {.size = {8, 8}});
  CHECK(set.images.size() > 60);
  for (const io::failed_file& f : set.made.failed)
    INFO(f.why);
  const made_set again = made_of(inputs, {.size = {8, 8}}, 1);
  CHECK(again.images == set.images);
  ms::set_warning_handler({});
}
