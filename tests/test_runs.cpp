// Runs and their checkpoints: what is not sound is neither saved nor gone on from; signals
// save; one run a checkpoint; and a fault at every call that touches a file, as an error and as
// a death, loses nothing. The calls are replaced by the linker (--wrap in CMakeLists.txt).
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <csignal>
#include <cstdarg>
#include <fstream>
#include <multistage/io/json_lines.hpp>
#include <multistage/multistage.hpp>
#include <multistage/training/checkpoint.hpp>
#include <thread>

#include "catch.hpp"
#include "directory.hpp"

namespace {

/// A fault at the n-th of the calls below.
struct {
  long at = 0;          // 0: none
  long calls = 0;       // since it was set
  int error = 0;        // what errno becomes; 0: the process dies there
  bool halves = false;  // a write first writes half
} fault;

/// Whether this call fails.
bool fails() {
  if (++fault.calls != fault.at)
    return false;
  if (fault.error == 0)
    ::_exit(77);
  errno = fault.error;
  return true;
}

}  // namespace

extern "C" {
int __real_openat(int, const char*, int, ...);
ssize_t __real_write(int, const void*, size_t);
ssize_t __real_pread(int, void*, size_t, off_t);
int __real_fsync(int);
int __real_renameat(int, const char*, int, const char*);
int __real_unlinkat(int, const char*, int);
int __real_flock(int, int);
int __real_ftruncate(int, off_t);
int __real_fchmod(int, mode_t);
int __wrap_openat(int directory, const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
  va_end(more);
  return fails() ? -1 : __real_openat(directory, path, flags, mode);
}
ssize_t __wrap_write(int file, const void* data, size_t size) {
  if (!fails())
    return __real_write(file, data, size);
  if (!fault.halves || size < 2)
    return -1;
  fault.at = fault.calls + 1;  // the next call says why
  return __real_write(file, data, size / 2);
}
ssize_t __wrap_pread(int file, void* to, size_t size, off_t at) {
  return fails() ? -1 : __real_pread(file, to, size, at);
}
int __wrap_fsync(int file) {
  return fails() ? -1 : __real_fsync(file);
}
int __wrap_renameat(int a, const char* from, int b, const char* to) {
  return fails() ? -1 : __real_renameat(a, from, b, to);
}
int __wrap_unlinkat(int directory, const char* path, int flags) {
  return fails() ? -1 : __real_unlinkat(directory, path, flags);
}
int __wrap_flock(int file, int operation) {
  return fails() ? -1 : __real_flock(file, operation);
}
int __wrap_ftruncate(int file, off_t size) {
  return fails() ? -1 : __real_ftruncate(file, size);
}
int __wrap_fchmod(int file, mode_t mode) {
  return fails() ? -1 : __real_fchmod(file, mode);
}
}

namespace {

namespace io = ms::io;
namespace fs = std::filesystem;
using test::directory;
using test::message;
using model_type = ms::dynamic_model<float, ms::cpu>;
using trainer_type = ms::trainer<float, ms::cpu>;

constexpr ms::song_unet tiny{.resolution = 4,
                             .channels = 1,
                             .encoder_channels = 8,
                             .channel_mult = {1, 2},
                             .num_blocks = 1,
                             .attn_resolutions = {}};

/// A small model with its trainer and images, in one thread, so that a process can be forked.
struct training {
  std::vector<float> images;
  model_type model;
  trainer_type trainer;

  explicit training(ms::trainer_options options = usual(), float first = 0.25f)
      : images(make_images(first)),
        model(ms::cpu(1), {tiny, {{8, 4}}, {}}, ms::partition({1.0}), 1),
        trainer(model, std::span<const float>(images), ms::shape{20, 4, 4, 1}, options) {}
  static ms::trainer_options usual() {
    return {.batch_size = 8, .least_stage_share = 0.2, .seed = 3};
  }
  static std::vector<float> make_images(float first) {
    std::vector<float> v(20 * 16);
    const ms::random_stream numbers(7);
    for (std::size_t i = 0; i < v.size(); ++i)
      v[i] = float(2 * numbers.uniform(i) - 1);
    v[0] = first;
    return v;
  }
  void steps(int n) {
    while (n-- > 0)
      trainer.step();
  }
};

std::string text_of(const std::string& path) {
  const auto bytes = io::read_file(path);
  return {bytes.begin(), bytes.end()};
}
ms::index_t steps_in(const std::string& path) {
  return io::safetensors(path).meta_json("training")->at("steps").get<ms::index_t>();
}

using test::in_child;

/// A checkpoint as it is, but for what `edit` changes of its tensors and its metadata.
using tensors = std::map<std::string, std::pair<std::vector<ms::index_t>, std::vector<double>>>;
void rewrite(const std::string& from,
             const std::string& to,
             const std::function<void(tensors&, std::map<std::string, std::string>&)>& edit) {
  const io::safetensors f(from);
  tensors all;
  for (const auto& [name, entry] : f.tensors())
    all[name] = {entry.extents, f.get<double>(name)};
  auto metadata = f.metadata();
  edit(all, metadata);
  io::safetensors_writer w;
  w.metadata = metadata;
  for (const auto& [name, t] : all)
    w.add<double>(name, t.first, t.second);
  w.write(to);
}

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("a save refuses what is not finite and leaves the last good checkpoint") {
  const directory dir;
  const std::string path = dir / "model";
  for (const float bad : {float(not_a_number), HUGE_VALF, -HUGE_VALF}) {
    for (int which = 0; which < 4; ++which) {
      training t;
      t.steps(2);
      ms::save(path, t.trainer);
      const std::string before = text_of(path);
      t.steps(1);
      float* const values[] = {t.model.weights().data(), t.model.averaged_weights().data(),
                               t.trainer.first_moment().data(),
                               t.trainer.second_moment().data()};
      const char* const names[] = {"'training.weights.", "tensor '", "'training.first_moment.",
                                   "'training.second_moment."};
      values[which][5] = bad;
      CHECK_THAT(message([&] { ms::save(path, t.trainer); }),
                 Catch::Contains("not finite") && Catch::Contains(names[which]) &&
                     Catch::Contains("is as it was"));
      CHECK(text_of(path) == before);
      if (which == 1)
        CHECK_THAT(message([&] { ms::save(path, t.model); }), Catch::Contains("not finite"));
      CHECK(text_of(path) == before);
    }
  }
  training t;
  ms::resume(path, t.trainer);
  CHECK(t.trainer.steps() == 2);
  CHECK(dir.names() == std::vector<std::string>{"model"});
}

TEST_CASE("load and resume refuse states that no run can have had, naming file and value") {
  const directory dir;
  const std::string good = dir / "good";
  const std::string bad = dir / "bad";
  {
    training t;
    t.steps(2);
    ms::save(good, t.trainer);
  }
  rewrite(good, bad, [](tensors&, auto&) {});  // the way of this test is sound
  {
    training t;
    ms::resume(bad, t.trainer);
    ms::load<float>(bad, ms::cpu(1));
    CHECK(t.trainer.steps() == 2);
  }
  const auto refused =
      [&](const char* why, bool by_load,
          const std::function<void(tensors&, std::map<std::string, std::string>&)>& edit) {
        rewrite(good, bad, edit);
        training t;
        t.steps(1);
        const auto before = t.model.weights().to_host();
        CHECK_THAT(message([&] { ms::resume(bad, t.trainer); }),
                   Catch::Contains(bad) && Catch::Contains(why));
        CHECK(t.trainer.steps() == 1);
        CHECK(t.model.weights().to_host() == before);
        const std::string loaded = message([&] { ms::load<float>(bad, ms::cpu(1)); });
        if (by_load)
          CHECK_THAT(loaded, Catch::Contains(bad) && Catch::Contains(why));
        else
          CHECK(loaded == "nothing");
      };
  const auto refused_state = [&](const char* key, const io::json& value) {
    refused(key, true, [&](tensors&, auto& metadata) {
      io::json j = io::json::parse(metadata["training"]);
      j[key] = value;
      metadata["training"] = j.dump();
    });
  };
  for (const io::json& v : {io::json(-1), io::json(1.5), io::json("2"), io::json(),
                            io::json(std::uint64_t{1} << 62)})
    refused_state("steps", v);
  for (const io::json& v : {io::json(-1e9), io::json(1e300), io::json("x"), io::json()})
    refused_state("images_seen", v);
  for (const io::json& v : {io::json{-1, 1, 1}, io::json{1, 1, 99}, io::json{1, 1}, io::json(1),
                            io::json{1, 1, 1, 1}})
    refused_state("segment_updates", v);
  for (const io::json& v : {io::json{-1.0, 1.0}, io::json{1.0}, io::json::array()})
    refused_state("stage_images", v);
  refused_state("importance", io::json{-1.0});
  for (const io::json& v : {io::json(-1), io::json(1.5)})
    refused_state("seed", v);
  for (const io::json& v : {io::json(0), io::json(-8)})
    refused_state("batch_size", v);
  refused_state("images", 5);
  refused_state("images", "");
  // The counters against each other.
  const double seen =
      io::safetensors(good).meta_json("training")->at("images_seen").get<double>();
  refused_state("images_seen", seen + 0.5);
  refused_state("images_seen", 1);
  refused_state("images_seen", 0);
  for (const io::json& v : {io::json{seen, seen}, io::json{0.0, 0.0}, io::json{seen - 1, 0.0}})
    refused_state("stage_images", v);
  refused("segment_updates", true, [&](tensors&, auto& metadata) {  // of a stage without images
    io::json j = io::json::parse(metadata["training"]);
    j["stage_images"] = io::json{seen, 0.0};
    j["segment_updates"] = io::json{2, 2, 2};
    metadata["training"] = j.dump();
  });
  refused("stage_images", true, [&](tensors&, auto& metadata) {  // images that no stage saw
    io::json j = io::json::parse(metadata["training"]);
    j["images_seen"] = seen + 1;
    metadata["training"] = j.dump();
  });
  refused("images_seen", true, [&](tensors&, auto& metadata) {  // images without a step
    io::json j = io::json::parse(metadata["training"]);
    j["steps"] = 0;
    j["segment_updates"] = io::json{0, 0, 0};
    metadata["training"] = j.dump();
  });
  refused("segment 0 was never updated", false, [&](tensors&, auto& metadata) {
    io::json j = io::json::parse(metadata["training"]);
    j["segment_updates"][0] = 0;
    metadata["training"] = j.dump();
  });
  refused("loss_importance", false, [&](tensors&, auto& metadata) {  // resume names the file
    io::json j = io::json::parse(metadata["training"]);
    j["importance"] = io::json{1.0, 1.0};
    metadata["training"] = j.dump();
  });
  for (const io::json& v : {io::json(0), io::json(2), io::json("1"), io::json()})
    refused_state("rate_factor", v);
  refused_state("options", io::json{1});
  refused("learning_rate", false, [&](tensors&, auto& metadata) {  // another than this run's
    io::json j = io::json::parse(metadata["training"]);
    j["options"]["learning_rate"] = 0.5;
    metadata["training"] = j.dump();
  });
  // Averages that are not what a run writes, or not this run's.
  const auto refused_averages = [&](const char* why, const io::json& averages) {
    refused(why, false,
            [&](tensors&, auto& metadata) { metadata["averages"] = averages.dump(); });
  };
  const io::json images{16.0, 0.0, 16.0};
  for (const io::json& v :
       {io::json(1), io::json::object(), io::json{{"segment_images", images}},
        io::json{{"segment_images", {1, 2}}, {"kept", io::json::array()}},
        io::json{{"segment_images", {-1, 0, 0}}, {"kept", io::json::array()}},
        io::json{{"segment_images", images}, {"kept", {{{"name", "a"}}}}},
        io::json{{"segment_images", images}, {"kept", {{{"name", "a"}, {"halflife", 0}}}}},
        io::json{{"segment_images", images}, {"kept", {{{"name", "a"}, {"exponent", -1}}}}}})
    refused_averages("'averages' is broken", v);
  refused_averages("not those of its training state",
                   {{"segment_images", {1e6, 0.0, 16.0}}, {"kept", io::json::array()}});
  const io::json own = [&] {
    const io::json_document j = io::safetensors(good).meta_json("training");
    io::json list{j->at("images_seen")};
    for (const io::json& n : j->at("stage_images"))
      list.push_back(n);
    return list;
  }();
  refused_averages(
      "averages std_0.1, this run none",
      {{"segment_images", own}, {"kept", {{{"name", "std_0.1"}, {"exponent", 6}}}}});
  const auto refused_config = [&](const char* key, const io::json& value) {
    refused(key, true, [&](tensors&, auto& metadata) {
      io::json j = io::json::parse(metadata["config"]);
      j[key] = value;
      metadata["config"] = j.dump();
    });
  };
  for (const io::json& v : {io::json(0), io::json(-0.5), io::json(), io::json("0.5"),
                            io::json(1e300), io::json(1e-300)})
    refused_config("sigma_data", v);
  refused_config("dropuot", 0.5);
  refused_config("beta_start", -1);
  refused_config("num_timesteps", 2147483647);
  for (const io::json& v : {io::json{2.0, 1.0}, io::json{-1.0}, io::json("x")})
    refused("boundar", true, [&](tensors&, auto& metadata) {
      io::json j = io::json::parse(metadata["config"]);
      j["stage_boundaries"] = v;
      metadata["config"] = j.dump();
    });
  for (const char* key : {"config", "training"}) {
    refused("deeper than", true, [&](tensors&, auto& metadata) {
      metadata[key].insert(metadata[key].size() - 1,
                           ",\"deep\":" + std::string(60'000, '[') + std::string(60'000, ']'));
    });
    refused("not JSON", true, [&](tensors&, auto& metadata) { metadata[key].pop_back(); });
    refused("twice", true, [&](tensors&, auto& metadata) {
      metadata[key].insert(metadata[key].size() - 1, ",\"seed\":1,\"seed\":1");
    });
  }
  const auto refused_tensor = [&](const char* prefix, double value, bool by_load,
                                  const char* why) {
    refused(why, by_load, [&](tensors& all, auto&) {
      // The first of the prefix; those without one are the average.
      for (auto& [name, t] : all)
        if (*prefix != '\0' ? name.rfind(prefix, 0) == 0 : name.rfind("training.", 0) != 0) {
          t.second[0] = value;
          return;
        }
    });
  };
  for (const double v : {not_a_number, HUGE_VAL, -HUGE_VAL, 1e300}) {
    refused_tensor("", v, true, "not finite");
    for (const char* prefix :
         {"training.weights.", "training.first_moment.", "training.second_moment."})
      refused_tensor(prefix, v, false, "not finite");
  }
  refused_tensor("training.second_moment.", -1e-9, false, "not negative");
}

TEST_CASE("a run goes on with its own images only, unless told") {
  const directory dir;
  const std::string path = dir / "model";
  training first;
  first.steps(1);
  ms::save(path, first.trainer);
  training other(training::usual(), 0.26f);
  CHECK_THAT(message([&] { ms::resume(path, other.trainer); }),
             Catch::Contains(path) && Catch::Contains("other images") &&
                 Catch::Contains(first.trainer.images_fingerprint()));
  CHECK(other.trainer.steps() == 0);
  ms::resume(path, other.trainer, {.other_images = true});
  CHECK(other.trainer.steps() == 1);
  // Files of older versions do not say.
  rewrite(path, dir / "old", [](tensors&, auto& metadata) {
    io::json j = io::json::parse(metadata["training"]);
    j.erase("images");
    metadata["training"] = j.dump();
  });
  training third(training::usual(), 0.26f);
  ms::resume(dir / "old", third.trainer);
  CHECK(third.trainer.steps() == 1);
}

TEST_CASE("constants with which nothing can be computed are refused when a model is made") {
  for (const double bad : {0.0, -0.5, not_a_number, HUGE_VAL, 1e-300})
    CHECK_THAT(message([&] {
                 model_type m(ms::cpu(1), {tiny, {{8}}, {ms::precondition::edm, bad}},
                              ms::partition(), 1);
               }),
               Catch::Contains("sigma_data"));
  CHECK_THROWS_AS(
      (ms::tensor<float, ms::cpu>(ms::cpu(1), {ms::index_t{1} << 40, 1, 1 << 20, 8})),
      ms::shape_error);
  CHECK_THROWS_AS(
      (ms::tensor<float, ms::cpu>(ms::cpu(1), {ms::index_t{1} << 40, 1, 1 << 20, 16})),
      ms::shape_error);  // 2^64: 0
}

TEST_CASE("weights stand beside tensors of other types; integers are no weights") {
  const directory dir;
  training t;
  ms::save(dir / "model", t.model);
  const io::safetensors f(dir / "model");
  // The file again, with tensors of types nobody computes in behind the others.
  io::json header = io::json::object();
  std::string data;
  for (const auto& [name, entry] : f.tensors()) {
    const auto values = f.get<float>(name);
    header[name] = {{"dtype", "F32"},
                    {"shape", entry.extents},
                    {"data_offsets", {data.size(), data.size() + values.size() * 4}}};
    data.append(reinterpret_cast<const char*>(values.data()), values.size() * 4);
  }
  const std::string some = header.begin().key();
  for (const char* type : {"F8_E4M3", "I64", "BOOL", "C64", "U16"}) {
    header[std::string("beside.") + type] = {
        {"dtype", type}, {"shape", {0}}, {"data_offsets", {data.size(), data.size()}}};
  }
  header["__metadata__"] = f.metadata();
  const auto write = [&](const io::json& h) {
    const std::string text = h.dump();
    std::string file(8, '\0');
    for (int i = 0; i < 8; ++i)
      file[std::size_t(i)] = char(text.size() >> (8 * i));
    io::write_file(dir / "beside", file + text + data);
  };
  write(header);
  training other;
  other.steps(1);
  ms::load_weights(dir / "beside", other.model);
  CHECK(other.model.weights().to_host() == t.model.weights().to_host());
  auto loaded = ms::load<float>(dir / "beside", ms::cpu(1));
  CHECK(loaded.weights().to_host() == t.model.weights().to_host());
  CHECK(io::safetensors(dir / "beside").entry("beside.F8_E4M3").type.name ==
        std::string("F8_E4M3"));
  for (const char* type : {"I32", "U32"}) {
    io::json integers = header;
    integers[some]["dtype"] = type;
    write(integers);
    CHECK_THAT(message([&] { ms::load_weights(dir / "beside", other.model); }),
               Catch::Contains(some + " is " + type + ", weights are"));
    CHECK_THAT(message([&] { ms::load<float>(dir / "beside", ms::cpu(1)); }),
               Catch::Contains(some + " is " + type + ", weights are"));
  }
}

TEST_CASE(
    "a stage that is read lazily from a file that was cut is an error that names the file") {
  const directory dir;
  training t;
  ms::save(dir / "model", t.model);
  auto lazy = ms::load<float>(dir / "model", ms::cpu(1), {.lazy = true});
  fs::resize_file(dir / "model", fs::file_size(dir / "model") / 4);
  CHECK_THAT(message([&] { lazy.weights(); }),
             Catch::Contains(dir / "model") && Catch::Contains("cut"));
}

TEST_CASE(
    "what reads or writes a model waits its turn: no torn checkpoints from a second thread") {
  const directory dir;
  const std::string path = dir / "model";
  training t;
  t.steps(1);
  ms::save(path, t.trainer);
  const std::string before = text_of(path);
  t.steps(1);
  const auto weights = t.model.weights().to_host();
  std::vector<std::string> said;
  {
    const auto at_work = t.model.use();
    std::thread second([&] {
      said = {message([&] { ms::save(path, t.trainer); }),
              message([&] { ms::save(path, t.model); }),
              message([&] { ms::resume(path, t.trainer); }),
              message([&] { ms::load_weights(path, t.model); }),
              message([&] { ms::start_from(path, t.model); })};
    });
    second.join();
    CHECK(text_of(path) == before);
    ms::save(path, t.trainer);  // whose turn it is may
    CHECK(steps_in(path) == 2);
    ms::resume(path, t.trainer);
  }
  CHECK(said.size() == 5);
  for (const std::string& s : said)
    CHECK_THAT(s, Catch::Contains("in use by another thread"));
  CHECK(t.model.weights().to_host() == weights);
  CHECK(t.trainer.steps() == 2);
}

TEST_CASE("a run whose checkpoint could not be written is refused before its first step") {
  const directory dir;
  std::filesystem::create_directory(dir / "folder");
  training t;
  for (const std::string& path : {dir.path, dir / "folder", dir / "folder/", dir / "none/model",
                                  std::string("/dev/null"), std::string()}) {
    const std::string said = message([&] {
      ms::run(t.trainer, ms::training_limit{.steps = 1}, {.path = path},
              [](const ms::loss_point&, double) { return true; });
    });
    CHECK_THAT(said, Catch::Contains(path + ": cannot be written"));
  }
  CHECK(t.trainer.steps() == 0);
  CHECK(dir.names() == std::vector<std::string>{"folder"});
}

TEST_CASE("a run keeps its checkpoint: in between, at its end, and when the observer throws") {
  const directory dir;
  const std::string path = dir / "model";
  training whole;
  whole.steps(6);
  ms::save(dir / "whole", whole.trainer);

  training t;
  std::vector<ms::index_t> held;
  const ms::run_checkpoint often{.path = path, .every_seconds = 1e-9};
  ms::run(
      t.trainer, {.steps = 4}, often,
      [&](const ms::loss_point&, double) {
        held.push_back(fs::exists(path) ? steps_in(path) : 0);
        return true;
      },
      0);
  CHECK(held == std::vector<ms::index_t>{0, 1, 2, 3});
  CHECK(steps_in(path) == 4);
  // A second run waits for nobody: it is told who is at work.
  {
    const io::run_lock lock(path);
    training second;
    CHECK_THAT(message([&] {
                 ms::run(second.trainer, {.steps = 1}, often,
                         [](const ms::loss_point&, double) { return true; });
               }),
               Catch::Contains(path + ": another run is at work there: process " +
                               std::to_string(::getpid())));
    CHECK(second.trainer.steps() == 0);
  }
  training rest;
  ms::run_checkpoint on = often;
  on.resume = true;
  ms::run(rest.trainer, {.steps = 2}, on, [](const ms::loss_point&, double) { return true; });
  CHECK(text_of(path) == text_of(dir / "whole"));

  training thrower;
  on.every_seconds = 1e9;
  CHECK_THROWS_AS(ms::run(
                      thrower.trainer, {.steps = 9}, on,
                      [](const ms::loss_point& p, double) -> bool {
                        if (p.step == 8)
                          throw std::runtime_error("the observer's own");
                        return true;
                      },
                      0),
                  std::runtime_error);
  CHECK(steps_in(path) == 8);
  CHECK(dir.names() == std::vector<std::string>{"model", "whole"});
  training missing;
  on.path = dir / "missing";
  CHECK_THAT(message([&] {
               ms::run(missing.trainer, {.steps = 1}, on,
                       [](const ms::loss_point&, double) { return true; });
             }),
             Catch::Contains("missing"));
}

TEST_CASE("a run that leaves the numbers keeps the last sound state and says which") {
  const directory dir;
  const std::string path = dir / "model";
  training t;
  ms::run(t.trainer, {.steps = 3}, {.path = path},
          [](const ms::loss_point&, double) { return true; });
  const std::string before = text_of(path);
  for (const double rate : {1e39, 1e20}) {
    ms::trainer_options wild = training::usual();
    wild.learning_rate = rate;
    wild.lr_rampup_kimg = 0;
    training bad(wild);
    const std::string text = message([&] {
      ms::run(
          bad.trainer, {.steps = 50},
          {.path = path,
           .every_seconds = 1e-9,
           .resume = true,
           .resumed_with = {.other_options = true}},
          [](const ms::loss_point&, double) { return true; }, 0);
    });
    CHECK_THAT(text, Catch::Contains("not finite") &&
                         Catch::Contains(path + " holds the state after step " +
                                         std::to_string(steps_in(path))));
    ms::load<float>(path, ms::cpu(1));
    training again;
    ms::resume(path, again.trainer, {.other_options = true});
    io::write_file(path, before);
  }
}

TEST_CASE("a run that leaves the numbers goes back with half the learning rate, so often") {
  const directory dir;
  const std::string path = dir / "model";
  const ms::run_checkpoint back{
      .path = path, .every_seconds = 1e-9, .on_nan = ms::on_non_finite::back};
  std::vector<std::string> said;
  training t;
  const auto before =
      ms::set_warning_handler([&](const std::string& text) { said.push_back(text); });
  bool spoilt = false;
  const ms::run_result r = ms::run(
      t.trainer, {.steps = 9}, back,
      [&](const ms::loss_point& p, double) {
        if (p.step == 6 && !spoilt) {  // behind the state after step 5, before that of step 6
          spoilt = true;
          t.trainer.model().weights().data()[3] = float(not_a_number);
        }
        return true;
      },
      0);
  ms::set_warning_handler(before);
  CHECK(t.trainer.steps() == 9);
  CHECK(t.trainer.rate_factor() == 0.5);
  CHECK(r.images == 9 * double(training::usual().batch_size));
  REQUIRE(r.history.size() == 10);  // step 6 twice
  REQUIRE(said.size() == 1);
  CHECK_THAT(said[0], Catch::Contains("not finite") && Catch::Contains("after step 5") &&
                          Catch::Contains("times 0.5") &&
                          Catch::Contains("return 1 of at most 3"));
  // The same as five steps and four with half the rate, also when it is resumed.
  training other;
  other.steps(5);
  other.trainer.set_rate_factor(0.5);
  other.steps(4);
  CHECK(other.model.weights().to_host() == t.model.weights().to_host());
  training resumed;
  ms::resume(path, resumed.trainer);
  CHECK(resumed.trainer.rate_factor() == 0.5);

  ms::trainer_options wild = training::usual();
  wild.learning_rate = 1e20;
  wild.lr_rampup_kimg = 0;
  training bad(wild);
  const std::string text = message([&] {
    ms::run(
        bad.trainer, {.steps = 50}, back, [](const ms::loss_point&, double) { return true; },
        0);
  });
  CHECK_THAT(text, Catch::Contains("not finite") && Catch::Contains("went back 3 times"));
}

TEST_CASE("SIGINT, SIGTERM and SIGHUP save and end; what a program ignores stays so") {
  const directory dir;
  const std::string path = dir / "model";
  const std::string log_path = dir / "log";
  struct ending {
    int status;
    ms::index_t steps;
  };
  // A run in a process of its own; `act` is called once it is at work.
  const auto run_until = [&](const std::function<void()>& prepare,
                             const std::function<void(pid_t)>& act, ms::index_t most) {
    fs::remove(path);
    fs::remove(log_path);
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        prepare();
        training t;
        io::json_lines log(log_path);
        const ms::run_result r = ms::run(
            t.trainer, {.steps = most}, {.path = path},
            [&](const ms::loss_point& p, double) {
              log.write({{"step", p.step}});
              std::printf("step\n");
              std::fflush(stdout);
              return true;
            },
            0);
        ::_exit(r.interrupted ? 128 + r.signal : 0);
      } catch (...) {
        ::_exit(99);
      }
    }
    for (int i = 0; i < 2000 && (!fs::exists(log_path) || fs::file_size(log_path) < 30); ++i)
      ::usleep(10'000);
    act(child);
    ending e{};
    ::waitpid(child, &e.status, 0);
    e.steps = fs::exists(path) ? steps_in(path) : -1;
    return e;
  };
  const auto quiet = [] {
    const int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, 1);
  };
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    const ending e = run_until(
        quiet, [&](pid_t child) { ::kill(child, number); }, 100'000'000);
    CHECK((WIFEXITED(e.status) && WEXITSTATUS(e.status) == 128 + number));
    CHECK(e.steps > 0);
    const auto bytes = io::read_file(log_path);
    CHECK(bytes.back() == '\n');
    CHECK(dir.names() == std::vector<std::string>{"log", "model"});  // the lock is gone
  }
  // A closed terminal sends its signal twice.
  const ending twice = run_until(
      quiet, [&](pid_t child) { ::kill(child, SIGHUP), ::kill(child, SIGHUP); }, 100'000'000);
  CHECK((WIFEXITED(twice.status) && WEXITSTATUS(twice.status) == 128 + SIGHUP &&
         twice.steps > 0));
  // nohup: the run goes to its end.
  const ending ignored = run_until([&] { quiet(), std::signal(SIGHUP, SIG_IGN); },
                                   [&](pid_t child) { ::kill(child, SIGHUP); }, 300);
  CHECK(
      (WIFEXITED(ignored.status) && WEXITSTATUS(ignored.status) == 0 && ignored.steps == 300));
  // A handler of the program's own is back when the run is over.
  const auto own = +[](int) {
  };
  const auto before = std::signal(SIGTERM, own);
  {
    const ms::stop_signals first;
    {
      const ms::stop_signals second;  // in another run, say
    }
    std::raise(SIGTERM);
    CHECK(first.caught() == SIGTERM);
  }
  CHECK(std::signal(SIGTERM, before) == own);
  // The reader of stdout goes away, as `| head -1` does.
  const ending piped = run_until(
      [] {
        int ends[2];
        if (::pipe(ends) != 0)
          ::_exit(98);
        ::dup2(ends[1], 1);
        ::close(ends[0]);
        ::close(ends[1]);
      },
      [](pid_t) {}, 40);
  CHECK((WIFEXITED(piped.status) && WEXITSTATUS(piped.status) == 0 && piped.steps == 40));
}

TEST_CASE("a program's status is 2 for errors and lost output, and its own otherwise") {
  const auto status = [](const char* output, auto body) {
    const int s = in_child([&] {
      ::close(2);
      if (output != nullptr) {
        const int file = ::open(output, O_WRONLY);
        ::dup2(file, 1);
      } else {
        int ends[2];
        if (::pipe(ends) != 0)
          ::_exit(98);
        ::dup2(ends[1], 1);
        ::close(ends[0]);
        ::close(ends[1]);
      }
      ::_exit(ms::exit_status(body));
    });
    return WIFEXITED(s) ? WEXITSTATUS(s) : 1000 + WTERMSIG(s);
  };
  const auto speak = [] {
    std::printf("text\n");
    return 7;
  };
  CHECK(status("/dev/null", speak) == 7);
  CHECK(status("/dev/full", speak) == 2);
  CHECK(status(nullptr, speak) == 7);  // nobody reads
  CHECK(status("/dev/null", []() -> int { throw ms::value_error("v"); }) == 2);
  CHECK(status("/dev/null", []() -> int { throw std::bad_alloc(); }) == 2);
  CHECK(status("/dev/null", []() -> int { throw 5; }) == 2);
}

TEST_CASE(
    "a fault at any call of a save leaves the old checkpoint or the new one, and no other "
    "file") {
  const directory dir;
  const std::string path = dir / "model";
  training t;
  t.steps(1);
  ms::save(path, t.trainer);
  const std::string before = text_of(path);
  t.steps(1);
  ms::save(dir / "new", t.trainer);
  const std::string after = text_of(dir / "new");
  fs::remove(dir / "new");
  REQUIRE(before != after);

  for (const int error : {EIO, ENOSPC, EINTR, 0})
    for (const bool halves : {false, true}) {
      if (halves && error != ENOSPC)
        continue;
      long points = 0;
      for (long n = 1;; ++n) {
        io::write_file(path, before);
        bool reached = false;
        std::string said;
        if (error == 0) {  // death
          const int status = in_child([&] {
            fault = {n, 0, 0, false};
            ms::save(path, t.trainer);
          });
          reached = WIFEXITED(status) && WEXITSTATUS(status) == 77;
          said = "died";
        } else {
          fault = {n, 0, error, halves};
          said = message([&] { ms::save(path, t.trainer); });
          reached = fault.calls >= n;
          fault = {};
        }
        const std::string now = text_of(path);
        CHECK((now == before || now == after));
        if (said == "nothing")
          CHECK(now == after);
        if (said != "nothing" && said != "died")
          CHECK_THAT(said, Catch::Contains(path));
        ms::save(path, t.trainer);  // and the next one succeeds and tidies up
        CHECK(text_of(path) == after);
        const auto names = dir.names();
        CHECK(names == std::vector<std::string>{"model"});
        if (!reached)
          break;
        ++points;
      }
      CHECK(points >= 8);
    }
}

TEST_CASE(
    "a fault at any call of a run: what is there is sound, and going on ends where no fault "
    "would have") {
  const directory dir;
  const std::string path = dir / "model";
  const std::string log_path = dir / "log";
  constexpr int all = 3;
  training whole;
  whole.steps(all);
  ms::save(dir / "whole", whole.trainer);
  const std::string expected = text_of(dir / "whole");
  fs::remove(dir / "whole");
  const ms::warning_handler speaker = ms::set_warning_handler([](const std::string&) {});

  const auto work = [&] {
    training t;
    const bool resume = fs::exists(path);
    io::json_lines log(log_path, resume);
    const ms::index_t before = resume ? steps_in(path) : 0;
    if (before >= all)
      return;
    ms::run(
        t.trainer, {.steps = all - before},
        {.path = path, .every_seconds = 1e-9, .resume = resume},
        [&](const ms::loss_point& p, double) {
          log.write({{"step", p.step}});
          return true;
        },
        0);
  };
  for (const int error : {ENOSPC, 0}) {
    long points = 0;
    for (long n = 1;; ++n) {
      for (const std::string& name : dir.names())
        fs::remove(dir / name);
      bool reached = false;
      std::string said = "nothing";
      if (error == 0) {
        const int status = in_child([&] {
          fault = {n, 0, 0, false};
          work();
        });
        reached = WIFEXITED(status) && WEXITSTATUS(status) == 77;
        CHECK((reached || status == 0));
      } else {
        fault = {n, 0, error, true};
        said = message(work);  // anything but an error of the library ends this test
        reached = fault.calls >= n;
        fault = {};
      }
      if (fs::exists(path))
        ms::load<float>(path, ms::cpu(1));
      if (said == "nothing" && error != 0)
        CHECK(text_of(path) == expected);
      CHECK(message(work) == "nothing");
      CHECK(text_of(path) == expected);
      std::ifstream log(log_path);
      ms::index_t last = 0;
      for (std::string line; std::getline(log, line);)
        last = io::parse_json(line, log_path)->at("step").get<ms::index_t>();
      // A line that could not be written is lost; the state after its step is not.
      CHECK((last == all || (last == all - 1 && said.find(log_path) != std::string::npos)));
      {
        const io::run_lock nobody_else(path);  // whose name a death at the very end left
        io::write_file(dir / "next", "");      // a next save, where the run was over already
        fs::remove(dir / "next");
      }
      CHECK(dir.names() == std::vector<std::string>{"log", "model"});
      if (!reached)
        break;
      ++points;
    }
    CHECK(points >= 40);
  }
  ms::set_warning_handler(speaker);
}
