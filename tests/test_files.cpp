// Files: what is lost or wrong in silence where writers meet, die, or meet links and long
// names; what is refused of safetensors, npy and JSON; logs that a crash tore; files that are
// cut while in use.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <csignal>
#include <fstream>
#include <multistage/graph/recorder.hpp>
#include <multistage/io/dataset.hpp>
#include <multistage/io/json_lines.hpp>
#include <multistage/io/run_lock.hpp>
#include <multistage/io/weights.hpp>
#include <thread>

#include "catch.hpp"
#include "directory.hpp"

namespace {

namespace io = ms::io;
namespace fs = std::filesystem;
using test::directory;
using test::message;

std::string text_of(const std::string& path) {
  const auto bytes = io::read_file(path);
  return {bytes.begin(), bytes.end()};
}
std::vector<unsigned char> bytes_of(const std::string& s) {
  return {s.begin(), s.end()};
}

using test::in_child;

/// A safetensors file of a header and some data.
std::vector<unsigned char> with_header(const std::string& header, std::size_t data = 0) {
  std::string s(8, '\0');
  for (int i = 0; i < 8; ++i)
    s[std::size_t(i)] = char(header.size() >> (8 * i));
  return bytes_of(s + header + std::string(data, '\0'));
}
std::string tensor(const char* name, const char* type, const char* shape, const char* offsets) {
  return "\"" + std::string(name) + "\":{\"dtype\":\"" + type + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}
std::vector<unsigned char> npy(const std::string& header, std::size_t data) {
  const std::string h = header + "\n";
  return bytes_of(std::string("\x93NUMPY\x01\x00", 8) + char(h.size() & 255) +
                  char(h.size() >> 8) + h + std::string(data, '\1'));
}
std::string npy_header(const std::string& type, const std::string& shape) {
  return "{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + ", }";
}

}  // namespace

TEST_CASE("writers of one path at once never mix, and leave nothing behind") {
  const directory dir;
  const std::string path = dir / "model";
  const std::string a(200'000, 'a');
  const std::string b(150'000, 'b');
  io::write_file(path, a);
  std::atomic<bool> done{false};
  std::atomic<int> mixed{0};
  const auto write = [&](const std::string& text) {
    for (int i = 0; i < 40; ++i)
      io::write_file(path, text);
  };
  std::thread reader([&] {
    while (!done) {
      // A descriptor keeps the file it opened, so that what is read is one file's.
      const std::string now = text_of(path);
      if (now != a && now != b)
        ++mixed;
    }
  });
  std::thread first([&] { write(a); });
  std::thread second([&] { write(b); });
  first.join();
  second.join();
  done = true;
  reader.join();
  CHECK(mixed == 0);
  CHECK(dir.names() == std::vector<std::string>{"model"});
}

TEST_CASE("what dead writers left is gone with the next save; what a living one writes stays") {
  const directory dir;
  const std::string path = dir / "model";
  io::write_file(path, "old");
  const std::string name(250, 'n');
  for (const std::string& which : {std::string("model"), name}) {
    REQUIRE(in_child([&] {
              auto* file = new io::atomic_file(
                  dir / which);  // never destroyed; removes the dead one's before it
              file->write("half");
            }) == 0);
    CHECK(dir.names().size() == 2);
  }
  {
    io::atomic_file living(path);  // removes what the dead left
    living.write("new");
    CHECK(dir.names().size() == 2);
    io::write_file(path, "other");
    CHECK(dir.names().size() == 2);
    living.commit();
  }
  CHECK(text_of(path) == "new");
  CHECK(dir.names() == std::vector<std::string>{"model"});
  // A folder of many files is not searched at every save, yet in the end.
  for (int i = 0; i < 300; ++i)
    std::ofstream(dir / std::to_string(i)) << i;
  REQUIRE(in_child([&] { (new io::atomic_file(path))->write("half"); }) == 0);
  const std::size_t before = dir.names().size();
  for (int i = 0; i < 10; ++i)
    io::write_file(path, "x");
  CHECK(dir.names().size() == before - 1);
  // Files of users that look a little like ours are none of ours.
  for (const char* mine :
       {".model.partial.0123456789abcdeg", "model.partial.0123456789abcdef", ".partial.12"})
    std::ofstream(dir / mine) << "mine";
  for (int i = 0; i < 10; ++i)
    io::write_file(path, "x");
  CHECK(dir.names().size() == before - 1 + 3);
}

TEST_CASE("names of 255 bytes, links, permissions and things that are no files") {
  const directory dir;
  const std::string longest(255, 'x');
  io::write_file(dir / longest, "1");
  CHECK(text_of(dir / longest) == "1");
  CHECK_THAT(message([&] { io::write_file(dir / (longest + "x"), "1"); }),
             Catch::Contains("too long"));

  fs::create_directories(dir / "real");
  io::write_file(dir / "real/file", "old");
  fs::create_symlink("real/file", dir / "link");
  fs::create_symlink("link", dir / "link_to_link");
  fs::create_symlink("real/new", dir / "dangling");
  fs::create_symlink("round", dir / "round");
  io::write_file(dir / "link_to_link", "new");
  CHECK(fs::is_symlink(dir / "link_to_link"));
  CHECK(fs::is_symlink(dir / "link"));
  CHECK(text_of(dir / "real/file") == "new");
  io::write_file(dir / "dangling", "made");
  CHECK(fs::is_symlink(dir / "dangling"));
  CHECK(text_of(dir / "real/new") == "made");
  CHECK_THAT(message([&] { io::write_file(dir / "round", "x"); }),
             Catch::Contains("symbolic links"));

  fs::permissions(dir / "real/file", fs::perms(0640));
  io::write_file(dir / "link", "again");
  CHECK(fs::status(dir / "real/file").permissions() == fs::perms(0640));

  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  CHECK_THAT(message([&] { io::write_file(dir / "pipe", "x"); }),
             Catch::Contains("not a regular file"));
  CHECK_THAT(message([&] { io::read_file(dir / "pipe"); }),
             Catch::Contains("not a regular file"));  // does not wait
  CHECK_THAT(message([&] { io::write_file(dir / "real", "x"); }),
             Catch::Contains("not a regular file"));
  CHECK_THAT(message([&] { io::write_file(dir / "real/", "x"); }),
             Catch::Contains("not the name of a file"));
  CHECK(fs::is_fifo(dir / "pipe"));
}

TEST_CASE("one run a place: the second is told who the first is; death frees the place") {
  const directory dir;
  const std::string own = "process " + std::to_string(::getpid()) + " on ";
  fs::create_symlink("model", dir / "link");
  {
    const io::run_lock directory_lock(dir.path);
    const io::run_lock file_lock(dir / "model");
    for (const std::string& path : {dir.path, dir / "model", dir / "link"})
      CHECK_THAT(message([&] { io::run_lock second(path); }),
                 Catch::Contains(path + ": another run is at work there: " + own));
    const io::run_lock other(dir / std::string(255, 'x'));  // the longest name
  }
  CHECK(dir.names() == std::vector<std::string>{"link"});
  const int status = in_child([&] {
    const io::run_lock lock(dir / "model");
    std::raise(SIGKILL);
  });
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
  CHECK(dir.names().size() == 2);  // the dead one's name lies there, and locks nobody out
  {
    const io::run_lock lock(dir / "model");
    const int second = in_child([&] {
      if (message([&] { io::run_lock again(dir / "model"); }).find(own) == std::string::npos)
        ::_exit(1);
    });
    CHECK(second == 0);
  }
  CHECK(dir.names() == std::vector<std::string>{"link"});
}

TEST_CASE("numbers of a file are not cut off, and its texts move no terminal's cursor") {
  const directory dir;
  io::safetensors_writer w;
  w.add<float>("whole", {2}, {3, -4});
  w.add<float>("half", {2}, {1, 0.5f});
  w.add<float>("a\x1b[31m\nred", {1}, {0.5f});
  w.add<float>("caf\xc3\xa9", {1}, {0.5f});
  w.write(dir / "w");
  const io::safetensors f(dir / "w");
  CHECK(f.get<std::int64_t>("whole") == std::vector<std::int64_t>{3, -4});
  CHECK_THAT(message([&] { f.get<std::int64_t>("half"); }),
             Catch::Contains("value 1 is 0.5") && Catch::Contains("none of the integers"));
  CHECK_THAT(message([&] { f.get<int>("a\x1b[31m\nred"); }),
             Catch::Contains("tensor 'a?[31m?red'"));
  CHECK_THAT(message([&] { f.get<int>("caf\xc3\xa9"); }),
             Catch::Contains("tensor 'caf\xc3\xa9'"));
  CHECK_THAT(message([&] { f.get<int>("\x9b"); }), Catch::Contains("no tensor '?'"));
  CHECK(ms::printable("caf\xc3\xa9", 4) == "caf");  // no character is cut in two
  CHECK(ms::printable("\xc2\x9b") == "\xc2?");      // U+009B, a terminal's other escape
}

TEST_CASE("a file that is cut or changed while it is used is an error that names it") {
  const directory dir;
  io::safetensors_writer w;
  w.add<float>("x", {100'000}, std::vector<float>(100'000, 1));
  w.write(dir / "w");
  const io::safetensors cut(dir / "w");
  fs::resize_file(dir / "w", 4096);
  CHECK_THAT(message([&] { cut.get<float>("x"); }),
             Catch::Contains(dir / "w") && Catch::Contains("the file was cut"));
  w.write(dir / "w");
  const io::safetensors replaced(dir / "w");
  w.write(dir /
          "w");  // another file under the same name: the one that was opened is still whole
  CHECK(replaced.get<float>("x") == std::vector<float>(100'000, 1));
  const io::safetensors changed(dir / "w");
  {
    std::fstream f(dir / "w", std::ios::in | std::ios::out | std::ios::binary);
    f.seekp(-4, std::ios::end);
    f << "abcd";
  }
  CHECK_THAT(message([&] { changed.get<float>("x"); }),
             Catch::Contains(dir / "w") && Catch::Contains("changed"));

  const std::vector<double> values(100 * 64 * 64, 0.5);
  io::write_npy(dir / "a.npy", {100, 64, 64}, values);
  const ms::image_source images = io::open_images(dir / "a.npy");
  std::vector<float> to(64 * 64);
  images.read_block(99, 1, to.data());
  CHECK(to.back() == 0.5f);
  fs::resize_file(dir / "a.npy", 100'000);
  CHECK_THAT(message([&] { images.read_block(99, 1, to.data()); }),
             Catch::Contains("a.npy") && Catch::Contains("cut"));
  io::write_file(dir / "data_batch_1.bin", std::string(20 * 3073, '\1'));
  const ms::image_source cifar = io::open_images(dir / "data_batch_1.bin");
  fs::resize_file(dir / "data_batch_1.bin", 10 * 3073);
  std::vector<float> record(3072);
  CHECK_THAT(message([&] { cifar.read_block(19, 1, record.data()); }),
             Catch::Contains("data_batch_1.bin") && Catch::Contains("cut"));
}

TEST_CASE(
    "a file rewritten in place with its old time is an error; one that lost its name is "
    "whole") {
  const directory dir;
  io::safetensors_writer w;
  w.add<float>("x", {4}, {1, 2, 3, 4});
  w.write(dir / "w");
  const io::safetensors f(dir / "w");
  CHECK(f.get<float>("x")[3] == 4);
  const auto time = fs::last_write_time(dir / "w");
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // coarser clocks of file systems
  {
    std::fstream file(dir / "w", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-4, std::ios::end);
    file << "abcd";
  }
  fs::last_write_time(dir / "w", time);
  REQUIRE(fs::last_write_time(dir / "w") == time);
  CHECK_THAT(message([&] { f.get<float>("x"); }),
             Catch::Contains(dir / "w") && Catch::Contains("changed"));
  const io::safetensors kept(dir / "w");
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  fs::remove(dir / "w");
  CHECK(kept.get<float>("x")[0] == 1);
}

TEST_CASE("a path with a NUL byte is refused, not cut short") {
  const directory dir;
  const std::string path = dir / std::string("a\0b", 3);
  for (const auto& use : std::vector<std::function<void()>>{
           [&] { io::write_file(path, "x"); }, [&] { io::read_file(path); },
           [&] { io::make_directory(path); }, [&] { io::run_lock lock(path); },
           [&] {
             io::json_lines log(path);
           }})
    CHECK_THAT(message(use), Catch::Contains(dir / "a\\0b") && Catch::Contains("NUL"));
  CHECK(dir.names().empty());
}

TEST_CASE("what a dead run of another user left locks nobody out") {
  if (::geteuid() != 0)
    return;  // only root can be another user
  const directory dir;
  fs::permissions(dir.path, fs::perms::all);
  const std::string lock_file = dir / ".model.lock";
  const auto by_another = [&](const std::function<bool()>& f) {
    return in_child([&] {
      if (::setgid(65'534) != 0 || ::setuid(65'534) != 0)
        ::_exit(2);
      ::_exit(f() ? 0 : 1);
    });
  };
  io::write_file(lock_file, "process 1 on a machine that is gone");
  fs::permissions(lock_file, fs::perms(0644));
  CHECK(by_another([&] {
          const io::run_lock lock(dir / "model");
          return message([&] { io::run_lock second(dir / "model"); }).find("another run") !=
                 std::string::npos;
        }) == 0);
  CHECK(dir.names().empty());
  {  // a living one still does
    const io::run_lock living(dir / "model");
    fs::permissions(lock_file, fs::perms(0644));
    CHECK(by_another([&] {
            return message([&] { io::run_lock second(dir / "model"); })
                       .find("another run is at work there: process " +
                             std::to_string(::getppid())) != std::string::npos;
          }) == 0);
  }
  io::write_file(lock_file, "");
  fs::permissions(lock_file, fs::perms(0600));
  CHECK(by_another([&] {
          return message([&] { io::run_lock lock(dir / "model"); })
                     .find(
                         ".model.lock: Permission denied; if no run is at work there, remove "
                         "that file") != std::string::npos;
        }) == 0);
}

TEST_CASE("a log's torn last line goes when the log is gone on with, a whole one stays") {
  const directory dir;
  const std::string path = dir / "log.jsonl";
  const auto resumed = [&](const std::string& text) {
    io::write_file(path, text);
    io::json_lines log(path, true);
    log.write({{"step", 3}});
    return text_of(path);
  };
  const std::string end = "{\"step\":3}\n";
  CHECK(resumed("") == end);
  CHECK(resumed("{\"step\":1}\n{\"step\":2}\n") == "{\"step\":1}\n{\"step\":2}\n" + end);
  CHECK(resumed("{\"step\":1}\n{\"ste") == "{\"step\":1}\n" + end);
  CHECK(resumed("{\"ste") == end);
  CHECK(resumed("{\"step\":1}\n" + std::string(5000, '\0')) ==
        "{\"step\":1}\n" + end);  // blocks a crash left
  CHECK(resumed("{\"step\":1}\n{\"step\":2}") == "{\"step\":1}\n{\"step\":2}\n" + end);
  CHECK(resumed("{\"step\":1}\n" + std::string(3'000'000, '[')) == "{\"step\":1}\n" + end);
  const std::string wide = "{\"x\":\"" + std::string(10'000, 'x') + "\"}\n";
  CHECK(resumed(wide + wide.substr(0, 9'000)) == wide + end);
  // Text of any bytes can be logged; without `append` a log begins anew.
  io::json_lines log(path);
  log.write({{"name", "\xff"}});
  CHECK(text_of(path) == "{\"name\":\"\xef\xbf\xbd\"}\n");
}

TEST_CASE("a log whose disk is full keeps its whole lines") {
  const directory dir;
  io::json_lines log(dir / "log");
  log.write({{"a", std::string(1000, 'x')}});
  const std::string before = text_of(dir / "log");
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1500, old.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string text = message([&] { log.write({{"b", std::string(1000, 'x')}}); });
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK_THAT(text, Catch::Contains("is the disk full?"));
  CHECK(text_of(dir / "log") == before);
}

TEST_CASE("where a program has no standard streams, what it prints lands in no file") {
  const directory dir;
  const int status = in_child([&] {
    for (int number = 0; number < 3; ++number)
      ::close(number);
    io::json_lines log(dir / "log");
    io::atomic_file file(dir / "file");
    const io::run_lock lock(dir.path);
    for (int number = 0; number < 3; ++number) {
      const std::string_view text = "progress";
      if (::write(number, text.data(), text.size()) >= 0)
        ::_exit(1);
    }
    log.write({{"step", 1}});
    file.write("data");
    file.commit();
  });
  CHECK(status == 0);
  CHECK(text_of(dir / "log") == "{\"step\":1}\n");
  CHECK(text_of(dir / "file") == "data");
}

// The verdicts are those of the format's own reader (safetensors 0.8.0,
// safetensors.deserialize), but for keys that are there twice: it keeps one of them, the
// format's description forbids them.
TEST_CASE("safetensors are taken and refused as the format's own reader does") {
  const auto taken = [](const std::string& header, std::size_t data = 0) {
    CHECK(message([&] { io::safetensors("f", with_header(header, data)); }) == "nothing");
  };
  const auto refused = [](const std::string& header, std::size_t data, const char* reason) {
    CHECK_THAT(
        message([&] { io::safetensors("f", with_header(header, data)); }),
        Catch::Contains("f: not a sound safetensors file: byte") && Catch::Contains(reason));
  };
  const auto one = [](const char* type, const char* shape, const char* offsets) {
    return "{" + tensor("x", type, shape, offsets) + "}";
  };
  const auto two = [](const char* first, const char* second) {
    return "{" + tensor("x", "U8", "[4]", first) + "," + tensor("y", "U8", "[4]", second) + "}";
  };
  for (const io::dtype_info& d : io::dtypes)
    taken(one(d.name, "[4]", ("[0," + std::to_string(d.bits / 2) + "]").c_str()),
          std::size_t(d.bits / 2));
  for (const char* type : {"F99", "C128", "f32", "F8", "F4_E2M1", ""})
    refused(one(type, "[1]", "[0,4]"), 4, "is unknown");
  for (const char* type : {"F4", "F6_E2M3"})
    refused(one(type, "[3]", "[0,2]"), 2, "no whole number of bytes");
  taken("{}");
  taken("  {}");
  taken("{}\n\t ");
  taken(R"({"__metadata__":null})");
  taken(one("F32", "[]", "[0,4]"), 4);
  taken(one("F32", "[0]", "[0,0]"));
  taken(one("F32", "[0,1099511627776,1099511627776]", "[0,0]"));
  taken("{" + tensor("x", "U8", "[4]", "[0,4]") + "," + tensor("z", "F32", "[0]", "[4,4]") +
            "," + tensor("y", "U8", "[4]", "[4,8]") + "}",
        8);
  taken(two("[4,8]", "[0,4]"), 8);  // any order
  taken(R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":)" +
            std::string(60, '[') + std::string(60, ']') + "}}",
        1);
  refused(two("[0,4]", "[2,6]"), 6,
          "tensor 'y': its data begins at byte 2 of the data, what lies before ends at 4: they "
          "overlap");
  refused(two("[0,4]", "[0,4]"), 4, "overlap");
  refused(two("[0,4]", "[5,9]"), 9,
          "tensor 'y': its data begins at byte 5 of the data, what lies before ends at 4: "
          "there is a hole");
  refused(one("U8", "[4]", "[1,5]"), 5, "tensor 'x': its data begins at byte 1");
  refused(one("U8", "[4]", "[0,4]"), 7, "3 bytes are left over behind the last tensor, 'x'");
  refused("{}", 5, "5 bytes are left over");
  refused(
      "{" + tensor("x", "U8", "[4]", "[0,4]") + "," + tensor("x", "U8", "[4]", "[4,8]") + "}",
      8, "'x' is there twice");
  refused(R"({"x":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
          "'dtype' is there twice");
  refused(R"({"__metadata__":{"a":"1"},"__metadata__":{"a":"2"}})", 0, "twice");
  refused(R"({"__metadata__":{"a":"1","a":"2"}})", 0, "twice");
  refused(R"({"__metadata__":{"a":{"b":"c"}}})", 0, "not a string");
  refused(one("F32", "[1099511627776,1048576,8]", "[0,0]"), 0, "too large");
  refused(one("F32", "[1099511627776,1099511627776,0]", "[0,0]"), 0, "too large");
  refused(one("F32", "[18446744073709551615]", "[0,0]"), 0, "too large");
  for (const char* extents : {"[-1]", "[1.0]", "[1e0]", "[true]", "[\"1\"]", "[null]"})
    refused(one("U8", extents, "[0,1]"), 1, "whole number");
  for (const char* offsets : {"[0,1.0]", "[-0,1]", "[0,1e0]"})
    refused(one("U8", "[1]", offsets), 1, "whole number");
  for (const char* offsets : {"[0]", "[0,1,1]", "{}", "1"})
    refused(one("U8", "[1]", offsets), 1, "missing");
  refused("", 0, "not a JSON object");
  refused("[]", 0, "not a JSON object");
  refused("\xef\xbb\xbf{}", 0, "not a JSON object");
  refused(std::string("{}\0", 3), 0, "NUL");
  refused("{/**/}", 0, "not JSON");
  refused("{\"\xff\":1}", 0, "not JSON");
  for (const int depth : {200, 60'000, 1'000'000})
    refused("{\"x\":" + std::string(std::size_t(depth), '[') +
                std::string(std::size_t(depth), ']') + "}",
            0, "deeper than");
  refused("{\"x\":" + std::string(60'000, '['), 0, "deeper than");
}

TEST_CASE(
    "types the library does not compute in stand beside weights until they are asked for") {
  const auto file = with_header(
      "{" + tensor("w", "F32", "[1]", "[0,4]") + "," + tensor("q", "F8_E4M3", "[4]", "[4,8]") +
          "," + tensor("n", "I64", "[1]", "[8,16]") + "," +
          tensor("c", "C64", "[1]", "[16,24]") + "," + tensor("b", "BOOL", "[1]", "[24,25]") +
          "," + tensor("u", "U16", "[1]", "[25,27]") + "}",
      27);
  const io::safetensors f("f", file);
  CHECK(f.tensors().size() == 6);
  CHECK(f.entry("q").type.name == std::string("F8_E4M3"));
  CHECK(f.get<float>("w") == std::vector<float>{0});
  CHECK(f.get<double>("n") == std::vector<double>{0});
  for (const char* name : {"q", "c"})
    CHECK_THAT(message([&] { f.get<float>(name); }),
               Catch::Contains("f: tensor '" + std::string(name) + "'") &&
                   Catch::Contains("does not compute in"));
  for (const char* name : {"q", "n", "b", "u"})
    CHECK_THAT(message([&] { io::read_weights<float>(f, name); }),
               Catch::Contains("weights are F16, BF16, F32 or F64"));
}

TEST_CASE("every integer type reads as its numbers") {
  // NumPy: np.array([200, 255], u1), [-2, 3] of i1, [60000] of u2, [-300] of i2, [4000000000]
  // of u4, [-70000] of i4, [2**63 + 2**20] of u8, [-5] of i8
  const unsigned char data[] = {
      200, 255, 254, 3, 0x60, 0xea, 0xd4, 0xfe, 0x00, 0x28, 0x6b, 0xee, 0x90, 0xee, 0xfe, 0xff,
      0,   0,   16,  0, 0,    0,    0,    0x80, 0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  auto bytes = with_header(
      "{" + tensor("u1", "U8", "[2]", "[0,2]") + "," + tensor("i1", "I8", "[2]", "[2,4]") +
      "," + tensor("u2", "U16", "[1]", "[4,6]") + "," + tensor("i2", "I16", "[1]", "[6,8]") +
      "," + tensor("u4", "U32", "[1]", "[8,12]") + "," + tensor("i4", "I32", "[1]", "[12,16]") +
      "," + tensor("u8", "U64", "[1]", "[16,24]") + "," +
      tensor("i8", "I64", "[1]", "[24,32]") + "}");
  bytes.insert(bytes.end(), std::begin(data), std::end(data));
  const io::safetensors f("f", bytes);
  CHECK(f.get<double>("u1") == std::vector<double>{200, 255});
  CHECK(f.get<double>("i1") == std::vector<double>{-2, 3});
  CHECK(f.get<double>("u2") == std::vector<double>{60000});
  CHECK(f.get<double>("i2") == std::vector<double>{-300});
  CHECK(f.get<double>("u4") == std::vector<double>{4000000000.0});
  CHECK(f.get<double>("i4") == std::vector<double>{-70000});
  CHECK(f.get<double>("u8") == std::vector<double>{0x1p63 + 0x1p20});
  CHECK(f.get<double>("i8") == std::vector<double>{-5});
}

TEST_CASE("every type that is written has its own name in the file and reads as its numbers") {
  const directory dir;
  io::safetensors_writer w;
  w.add<double>("F64", {1}, {-2.5});
  w.add<float>("F32", {1}, {-2.5f});
  w.add<std::int64_t>("I64", {2}, {-5, 5});
  w.add<std::int32_t>("I32", {1}, {-70'000});
  w.add<std::int16_t>("I16", {1}, {-300});
  w.add<std::int8_t>("I8", {1}, {-2});
  w.add<std::uint64_t>("U64", {1}, {std::uint64_t{1} << 63});
  w.add<std::uint32_t>("U32", {1}, {4'000'000'000});
  w.add<std::uint16_t>("U16", {1}, {60'000});
  w.add<std::uint8_t>("U8", {1}, {200});
  w.add<bool>("BOOL", {3}, {true, false, true});
  w.write(dir / "f");
  const io::safetensors f(dir / "f");
  CHECK(f.tensors().size() == 11);
  for (const auto& [name, entry] : f.tensors())
    CHECK(entry.type.name == name);
  CHECK(f.get<std::int64_t>("I64") == std::vector<std::int64_t>{-5, 5});
  CHECK(f.get<int>("I32") == std::vector<int>{-70'000});
  CHECK(f.get<int>("I16") == std::vector<int>{-300});
  CHECK(f.get<int>("I8") == std::vector<int>{-2});
  CHECK(f.get<double>("U64") == std::vector<double>{0x1p63});
  CHECK(f.get<std::int64_t>("U32") == std::vector<std::int64_t>{4'000'000'000});
  CHECK(f.get<int>("U16") == std::vector<int>{60'000});
  CHECK(f.get<int>("U8") == std::vector<int>{200});
  CHECK(f.get<bool>("BOOL") == std::vector<bool>{true, false, true});
  CHECK_THAT(message([&] { f.get<std::int8_t>("F64"); }), Catch::Contains("value 0 is -2.5"));
}

TEST_CASE("values that the type asked for has not are refused, naming the tensor") {
  const directory dir;
  io::safetensors_writer w;
  w.add<double>("reals", {3}, {1, 2147483648.0, 3});
  w.add<double>("nan", {1}, {std::numeric_limits<double>::quiet_NaN()});
  w.add<double>("large", {1}, {-1e39});
  w.add<std::int64_t>("whole", {2}, {7, -1});
  w.add<std::int32_t>("wide", {1}, {128});
  w.add<double>("least", {1}, {-2147483648.0});
  w.write(dir / "f");
  const io::safetensors f(dir / "f");
  const auto refused = [&]<class T>(const char* name, T) {
    CHECK_THAT(message([&] { f.get<T>(name); }),
               Catch::Contains(dir / "f" + ": tensor '" + name + "': value "));
  };
  refused("reals", int{});
  refused("nan", int{});
  refused("nan", std::uint8_t{});
  refused("large", float{});
  refused("large", std::int64_t{});
  refused("whole", std::uint64_t{});
  refused("whole", std::uint8_t{});
  refused("wide", std::int8_t{});
  CHECK_THAT(message([&] { f.get<int>("reals"); }),
             Catch::Contains("value 1 is 2.14748365e+09"));
  CHECK(f.get<unsigned>("reals") == std::vector<unsigned>{1, 2147483648u, 3});
  CHECK(f.get<int>("least") == std::vector<int>{std::numeric_limits<int>::min()});
  CHECK(f.get<std::uint8_t>("wide") == std::vector<std::uint8_t>{128});
  CHECK(f.get<double>("large") == std::vector<double>{-1e39});
  CHECK(std::isnan(f.get<float>("nan")[0]));
}

TEST_CASE("what no reader could tell apart or read is refused when it is given to the writer") {
  const directory dir;
  io::safetensors_writer w;
  w.add<float>("a", {1}, {1});
  CHECK_THAT(message([&] { w.add<float>("a", {1}, {2}); }),
             Catch::Contains("two tensors are called 'a'"));
  CHECK_THAT(message([&] { w.add<float>("__metadata__", {1}, {2}); }),
             Catch::Contains("__metadata__"));
  CHECK_THAT(message([&] { w.add<float>("\xff", {1}, {2}); }), Catch::Contains("not UTF-8"));
  CHECK_THROWS_AS((w.add<float>("huge", {ms::index_t{1} << 40, 1 << 20, 8}, {})),
                  ms::shape_error);
  CHECK_THROWS_AS((w.add<float>("negative", {-1, -1}, {2})), ms::shape_error);
  w.metadata = {{"key", "\xc3"}};
  CHECK_THAT(message([&] { w.write(dir / "f"); }), Catch::Contains("not UTF-8"));
  CHECK(dir.names().empty());
  w.metadata = {{"schl\xc3\xbcssel", "\xe2\x82\xac \xf0\x9f\x98\x80"}};
  w.add<float>("\xc3\xbc", {1}, {3});
  w.write(dir / "f");
  const io::safetensors f(dir / "f");
  CHECK(f.get<float>("\xc3\xbc") == std::vector<float>{3});
  CHECK(f.metadata() == w.metadata);
}

TEST_CASE("weights that are not finite are neither saved nor read") {
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), HUGE_VAL, -HUGE_VAL}) {
    const directory dir;
    io::safetensors_writer w;
    w.add<double>("x", {3}, {1, bad, 2});
    w.add<float>("y", {1}, {float(bad)});
    w.add<double>("large", {1}, {1e300});
    w.write(dir / "f");
    const io::safetensors f(dir / "f");
    CHECK_THAT(message([&] { io::read_weights<double>(f, "x"); }),
               Catch::Contains("tensor 'x': value 1 of 3 is not finite"));
    CHECK_THAT(message([&] { io::read_weights<float>(f, "y"); }),
               Catch::Contains("tensor 'y': value 0 of 1"));
    CHECK_THAT(message([&] { io::read_weights<float>(f, "large"); }),
               Catch::Contains("not finite"));  // in float
    CHECK(io::read_weights<double>(f, "large") == std::vector<double>{1e300});
  }
}

TEST_CASE("npy: only whole extents from 0, in a tuple; booleans are black and white") {
  const auto extents = [](const std::string& shape, std::size_t values) {
    return io::parse_npy("f", npy(npy_header("|u1", shape), values)).extents;
  };
  using list = std::vector<ms::index_t>;
  CHECK(extents("(2, 3)", 6) == list{2, 3});
  CHECK(extents("( 2 ,3 ,)", 6) == list{2, 3});
  CHECK(extents("(2L, 3L)", 6) == list{2, 3});
  CHECK(extents("()", 1).empty());
  CHECK(extents("(7,)", 7) == list{7});
  CHECK(extents("(0, 8, 8)", 0) == list{0, 8, 8});
  for (const char* shape : {"(-2, -3)",
                            "(2, -3)",
                            "(1.5, 4)",
                            "(2.0, 3)",
                            "(1e1,)",
                            "('2', 3)",
                            "(2 3)",
                            "(, 2)",
                            "(2,, 3)",
                            "(True, 6)",
                            "(0x6,)",
                            "(6)",
                            "6",
                            "[6]",
                            "(2, 3",
                            "((2, 3))",
                            "(99999999999999, 0)",
                            "(1099511627776, 1048576, 8)",
                            "(0, 4611686018427387904, 8)",
                            "(0, 1099511627776, 1048576)"})
    CHECK_THAT(message([&] { extents(shape, 6); }),
               Catch::Contains("f: not a sound npy file: byte 10"));
  const auto fails = [](const std::string& header, const char* reason) {
    CHECK_THAT(message([&] { io::parse_npy("f", npy(header, 6)); }), Catch::Contains(reason));
  };
  fails("{'descr': '|u1', 'fortran_order': False, 'shape': (6,), 'shape': (6,), }", "twice");
  fails("{'descr': '|u1', 'fortran_order': False, 'shape': (6,), 'more': 1, }",
        "'more' is unknown");
  fails("{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (6,), }", "structured");
  fails("{'descr': '|u1', 'fortran_order': 0, 'shape': (6,), }", "neither True nor False");
  fails("{'descr': '|u1', 'fortran_order': False, 'shape': (6,), } + 1", "follows");
  fails("['descr', 'fortran_order', 'shape']", "no");
  CHECK(
      io::parse_npy("f", npy("{\"shape\": (6,), 'fortran_order': False, 'descr': \"|u1\"}", 6))
          .values.size() == 6);

  auto bits = npy(npy_header("|b1", "(1, 2, 3)"), 6);
  bits[bits.size() - 2] = 0;
  const io::image_set images = io::images_from(io::parse_npy("f", bits), "f");
  CHECK(images.values == std::vector<float>{1, 1, 1, 1, -1, 1});
  CHECK(io::images_from(io::parse_npy("f", bits), "f", {16}).values == images.values);
  bits.back() = 2;
  CHECK_THROWS_AS(io::images_from(io::parse_npy("f", bits), "f"), ms::error);
}

TEST_CASE("a network whose weights could not be read back is refused when it is recorded") {
  // Two layers, each in the scope and under the name given.
  const auto record = [](const char* first_scope, const char* first, const char* second_scope,
                         const char* second) {
    ms::recorder<ms::name_list> b;
    ms::feature x = b.input(ms::input_slot::image, 4, 8, 8);
    {
      const auto scope = b.scope(first_scope);
      x = b.conv(x, 4, first, {});
    }
    const auto scope = b.scope(second_scope);
    b.segment(1);
    b.output(b.conv(x, 4, second, {}));
    b.finish();
  };
  CHECK(message([&] { record("a", "conv", "b", "conv"); }) == "nothing");
  CHECK(message([&] { record("a", "conv", "a", "conv2"); }) == "nothing");
  CHECK(message([&] { record("\xc3\xbc", "conv", "\xe2\x82\xac", "conv"); }) == "nothing");
  CHECK_THAT(message([&] { record("a", "conv", "a", "conv"); }),
             Catch::Contains("two parameters are called 'a.conv."));
  CHECK_THAT(message([&] { record("a.b", "conv", "a", "b.conv"); }),
             Catch::Contains("two parameters are called 'a.b.conv."));
  CHECK_THAT(message([&] { record("training", "conv", "b", "conv"); }),
             Catch::Contains("'training.conv.weight'"));
  CHECK_THAT(message([&] { record("\xff", "conv", "b", "conv"); }),
             Catch::Contains("not UTF-8"));
  const auto linear = [](std::string_view weight) {
    ms::recorder<ms::name_list> b;
    ms::layer_options o;
    o.weight_name = weight;
    o.bias = false;
    b.output(b.linear(b.input(ms::input_slot::image, 4), 4, "", o));
    b.finish();
  };
  CHECK(message([&] { linear("metadata"); }) == "nothing");
  CHECK_THAT(message([&] { linear("__metadata__"); }), Catch::Contains("'__metadata__'"));
}

TEST_CASE("arrays that nobody could read are refused before anything is written") {
  const directory dir;
  const ms::index_t large = ms::index_t{1} << 40;
  for (const std::vector<ms::index_t>& extents :
       std::vector<std::vector<ms::index_t>>{{2, 2},
                                             {7},
                                             {},
                                             {-2, -3},
                                             {-1, 0},
                                             {large, large, 6},
                                             {0, large, 2},
                                             std::vector<ms::index_t>(65, 1)}) {
    CHECK_THROWS_AS(io::write_npy(dir / "a.npy", extents, std::vector<double>(6)),
                    ms::shape_error);
    CHECK_THROWS_AS(io::write_npz(dir / "a.npz", "a", extents, std::vector<unsigned char>(6)),
                    ms::shape_error);
  }
  CHECK_THAT(message([&] {
               io::write_npy(dir / "a.npy", {2, 2}, std::vector<double>(6));
             }),
             Catch::Contains("a.npy: cannot be written: 6 values"));
  CHECK(dir.names().empty());
  io::write_npy(dir / "none.npy", {0, 3}, {});
  CHECK(io::read_npy(dir / "none.npy").extents == std::vector<ms::index_t>{0, 3});
  io::write_npy(dir / "one.npy", {}, std::vector<double>{2.5});
  CHECK(io::read_npy(dir / "one.npy").values == std::vector<double>{2.5});
  for (const char* type : {"xf4", ">f4", "?f4", " f4"})
    CHECK_THAT(message([&] { io::parse_npy("f", npy(npy_header(type, "(1,)"), 4)); }),
               Catch::Contains("type '" + std::string(type) + "' is not supported"));
  for (const char* type : {"<f4", "=f4", "|f4"})
    CHECK(io::parse_npy("f", npy(npy_header(type, "(1,)"), 4)).type == "f4");
  CHECK_THROWS_AS(io::images_from({"f8", {2, 2, 2}, std::vector<double>(7)}, "f"),
                  ms::shape_error);
  CHECK_THROWS_AS(io::images_from({"f8", {2, -2, -2}, std::vector<double>(8)}, "f"),
                  ms::shape_error);
}

TEST_CASE("extents whose product overflows are refused") {
  const std::vector<float> none;
  CHECK(ms::countable(ms::shape{1, 2, 3, 4}));
  CHECK(ms::countable(ms::shape{0, 2, 3, 4}));
  CHECK_FALSE(ms::countable(ms::shape{ms::index_t{1} << 40, 1, 1 << 20, 8}));
  CHECK_FALSE(ms::countable(ms::shape{0, ms::index_t{1} << 40, 1 << 20, 8}));
  CHECK_FALSE(ms::countable(ms::shape{1, -1, 1, 1}));
  const ms::shape huge{ms::index_t{1} << 40, 1, 1 << 20, 16};  // 2^64: 0 where it wraps around
  CHECK_THROWS_AS(ms::image_source::of(std::span<const float>(none), huge), ms::shape_error);
}

TEST_CASE("JSON of any depth and with keys twice is refused, saying where") {
  const auto fails = [](const std::string& text, const char* reason) {
    CHECK_THAT(message([&] { io::parse_json(text, "f"); }),
               Catch::Contains("f: ") && Catch::Contains(reason));
  };
  fails(std::string(60'000, '[') + std::string(60'000, ']'), "deeper than");
  fails("{\"a\": 1,\n \"b\": {\"c\": 1, \"c\": 2}}", "'c' is there twice");
  fails("{\"a\": 1,\n \"b\": nan}", "line 2");
  fails("{\"a\": 1e999}", "not JSON that can be read");
  fails("", "not JSON");
  fails("{\"a\": 1} x", "line 1");
  CHECK((*io::parse_json("{\"a\": {\"a\": [{\"a\": 1}, {\"a\": 2}]}}",
                         "f"))["a"]["a"][1]["a"] == 2);
}
