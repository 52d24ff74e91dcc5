// Run configurations: presets of the papers' sizes, JSON there and back with origins, what is
// refused; stages by name; what a run's folder keeps.
#include <fstream>
#include <multistage/multistage.hpp>
#include <multistage/runs/presets.hpp>
#include <multistage/runs/run_directory.hpp>
#include <multistage/runs/stage_search.hpp>

#include "catch.hpp"
#include "directory.hpp"

using json = ms::io::json;

TEST_CASE("presets are of the papers' sizes, and JSON holds all of them") {
  // of the reference implementation (golden/facts.json)
  const std::map<std::string, ms::index_t> sizes{{"edm_cifar10", 128'792'233},
                                                 {"edm_cifar10-unified", 55'732'739},
                                                 {"vp_cifar10", 237'169'337},
                                                 {"vp_cifar10-unified", 107'521'411},
                                                 {"ldm_celeba256", 493'841'449},
                                                 {"ldm_celeba256-unified", 274'056'163},
                                                 {"ldm_imagenet256_class", 509'464'972},
                                                 {"ldm_imagenet256_class-unified", 394'984'196},
                                                 {"quickstart", 2'074'499}};  // README's
  for (const ms::preset_name& p : ms::preset_names())
    for (const char* form : {"", "-unified", "-separate"}) {
      const std::string name = std::string(p.name) + form;
      CAPTURE(name);
      const ms::run_configuration c = ms::preset(name);
      const ms::described_network network = record(c.model);
      if (sizes.count(name))
        CHECK(ms::parameters_of(network.structure) == sizes.at(name));
      if (form == std::string("-separate"))
        CHECK(network.structure.parameter_range(0)[1] == 0);
      const json j = to_json(c);
      CHECK(to_json(ms::configuration_of_run(j, "again")) == j);
      CHECK(c.origins.at("model.network") == "preset " + name);
    }
  CHECK_THAT(test::message([] { ms::preset("mine"); }), Catch::Contains("known: quickstart"));
}

TEST_CASE("names of options are unique among the sections of a run") {
  ms::run_configuration c;
  std::map<std::string, std::string> seen;
  const auto note = [&](const std::string& section, const auto& options) {
    std::decay_t<decltype(options)>::fields(options, [&](const ms::option& o, const auto&) {
      const auto [at, fresh] = seen.emplace(o.name, section);
      // what data decide of the model is no option of a command line
      CHECK((fresh || at->second == section || o.name == std::string("channels")));
    });
  };
  ms::run_configuration::sections(c, note);
  ms::run_configuration::model_parts(c, [&](const auto& part) { note("model", part); });
  CHECK(seen.size() > 80);
}

TEST_CASE("a configuration is laid over another, and values know where they came from") {
  ms::run_configuration c = ms::preset("small-32");
  const double before = c.training.learning_rate;
  ms::lay_over(c,
               json{{"training", {{"batch_size", 7}, {"levels", "time_uniform"}}},
                    {"model", {{"decoder_channels", {64, 32}}}}},
               "mine.json");
  CHECK(c.training.batch_size == 7);
  CHECK(c.training.levels.name() == "time_uniform");
  CHECK(c.training.learning_rate == before);
  CHECK(c.model.stages.widths == std::array<int, 8>{64, 32});
  CHECK(c.chosen("training.batch_size"));
  CHECK_FALSE(c.chosen("training.learning_rate"));
  CHECK(c.origins.at("training.learning_rate") == "preset small-32");
  CHECK_FALSE(c.origins.count("training.gradient_clip"));
  // a list takes the place of the one before
  for (const std::vector<double>& stds : {std::vector{0.05, 0.1}, std::vector{0.2}}) {
    ms::lay_over(c, json{{"training", {{"average_stds", stds}}}}, "mine.json");
    CHECK(c.training.average_stds == stds);
  }
  // a whole configuration says itself what nobody chose
  ms::run_configuration other;
  ms::lay_over(other, to_json(c), "run/config.json");
  CHECK(other.origins == [&] {
    auto expected = c.origins;
    for (auto& [name, origin] : expected)
      if (origin == "mine.json")
        origin = "run/config.json";
    return expected;
  }());
  // nothing changes when something is wrong
  const json whole = to_json(c);
  for (const json& bad :
       {json{{"training", {{"batch_size", 8}, {"rate", 1}}}}, json{{"run", {{"keep", 0}}}},
        json{{"training", {{"levels", "mine"}}}}, json{{"model", {{"network", "mine"}}}},
        json{{"nothing", json::object()}}, json{{"run", 3}}, json::array()}) {
    CHECK_THROWS_AS(ms::lay_over(c, bad, "bad"), ms::value_error);
    CHECK(to_json(c) == whole);
  }
  CHECK(ms::table_of(c).find("batch_size                 7") != std::string::npos);
}

TEST_CASE("the trainer is told what sections say together") {
  ms::run_configuration c = ms::preset("edm_cifar10");
  c.levels = {.p_mean = 0.5, .p_std = 0.25};
  c.run.seed = 9;
  const ms::trainer_options o = ms::trainer_options_of(c);
  CHECK(o.seed == 9);
  CHECK_FALSE(bool(o.weight));
  // half of the levels are below e^p_mean
  CHECK(o.levels.stage_probabilities(ms::partition({std::exp(0.5)}))[0] ==
        Approx(0.5).margin(1e-12));
  // times are of the model's own schedule: half of DDPM's 1,000 steps, up to a step
  const ms::trainer_options latent = ms::trainer_options_of(ms::preset("ldm_celeba256"));
  const double middle = ms::ddpm_schedule{}.sigma(0.5);
  CHECK(latent.levels.stage_probabilities(ms::partition({middle}))[0] ==
        Approx(0.5).margin(1e-3));
}

TEST_CASE("stages are found as options name them, and remembered") {
  const test::directory folder;
  const std::vector<float> values = [] {
    std::vector<float> v(40 * 16);
    const ms::random_stream numbers(3);
    for (std::size_t i = 0; i < v.size(); ++i)
      v[i] = numbers.uniform(i / 16) < 0.5 ? -0.8f : float(numbers.uniform(i));
    return v;
  }();
  const auto images =
      ms::image_source::of(std::span<const float>(values), ms::shape{40, 4, 4, 1});
  ms::stage_options o{.nodes = 9, .cache = folder.path + "/cache"};
  o.clustering.draws = 64;
  const auto find = [&](const std::string& stages) {
    o.stages = stages;
    return ms::find_stages(ms::cpu(2), images, "images", o, ms::edm_schedule{}, 1);
  };
  CHECK(find("1").stages.stage_count() == 1);
  CHECK(find("0.5,20").stages == ms::partition({0.5, 20}));
  const ms::found_stages four = find("4");
  CHECK(four.stages.stage_count() == 4);
  CHECK_FALSE(four.cached);
  const ms::found_stages again = find("4");
  CHECK(again.cached);
  CHECK(again.stages == four.stages);
  CHECK(again.similarity.matrix == four.similarity.matrix);
  CHECK_FALSE(find("2").cached);
  ms::io::write_file(folder.path + "/stages.json", "{\"stage_boundaries\": [0.25, 3]}");
  CHECK(find(folder.path + "/stages.json").stages == ms::partition({0.25, 3}));
  CHECK_THROWS_AS(find("9"), ms::value_error);
  CHECK_THROWS_AS(find("20,0.5"), ms::value_error);
  CHECK_THROWS_AS(find(folder.path + "/nothing.json"), ms::file_error);
  for (const auto& entry : std::filesystem::directory_iterator(o.cache))
    ms::io::write_file(entry.path().string(), "{\"stage_boundaries\": ");  // a broken cache
  CHECK(find("4").stages == four.stages);
}

TEST_CASE("decoders go with the number of stages, or with a budget") {
  ms::run_configuration c = ms::preset("edm_cifar10");
  const auto widths = [&](std::vector<double> boundaries) {
    return ms::decoders_for(c, ms::partition(std::move(boundaries))).widths;
  };
  CHECK(widths({0.5, 20}) == std::array<int, 8>{192, 128, 16});
  CHECK(widths({1}) == std::array<int, 8>{192, 16});
  CHECK(widths({0.2, 0.5, 5, 20}) == std::array<int, 8>{192, 160, 128, 80, 16});
  CHECK(widths({}) == std::array<int, 8>{128});
  c.stages.budget = 15'000;
  const ms::decoders tailored = ms::decoders_for(c, ms::partition({0.5, 20}));
  const auto cost = ms::detail::count(ms::paper::edm_32, tailored);
  const auto shares =
      ms::trainer_options_of(c).levels.stage_probabilities(ms::partition({0.5, 20}));
  double average = double(cost.segments[0].macs);
  for (std::size_t s = 0; s < 3; ++s)
    average += shares[s] * double(cost.segments[s + 1].macs);
  CHECK(average <= 15e9);
  CHECK(average > 13e9);
  // Where a stage's share of the rows is lifted, it costs as much as it then does.
  c.training.least_stage_share = 0.25;
  const ms::decoders lifted = ms::decoders_for(c, ms::partition({0.5, 20}));
  const auto of_lifted = ms::detail::count(ms::paper::edm_32, lifted);
  const double least = 0.25 * double(of_lifted.segments[3].macs);
  CHECK(least + double(of_lifted.segments[0].macs) <= 15e9);
  CHECK(lifted.widths[2] < tailored.widths[2]);
  // Decoders narrower than the usual step.
  c = ms::preset("small-64");
  CHECK(widths({0.2, 2, 20}) == std::array<int, 8>{8, 8, 8, 8});
  ms::song_unet narrow{.resolution = 16, .encoder_channels = 8, .channel_mult = {1, 2}};
  narrow.norm_groups = 4;
  c.model.network = narrow;
  const auto macs = [&](const ms::decoders& d) {
    const auto all = ms::detail::count(narrow, d);
    return double(all.segments[0].macs + all.segments[1].macs) / 1e6;
  };
  c.stages.budget = macs({.widths = {8}});
  CHECK(widths({}) == std::array<int, 8>{8});
  c.stages.budget = macs({.widths = {12}}) - 1e-3;
  CHECK(widths({}) == std::array<int, 8>{8});
}

TEST_CASE("a run's folder is begun once, gone on with, and locked") {
  const test::directory folder;
  const std::string path = folder.path + "/run";
  CHECK_THROWS_AS(ms::run_directory(path, ms::run_directory::resume), ms::value_error);
  {
    const ms::run_directory place(path, ms::run_directory::begin);
    CHECK_THROWS_AS(ms::run_directory(path, ms::run_directory::begin), ms::file_error);
    ms::run_configuration c = ms::preset("small-64");
    c.run.kimg = 3;
    place.write_run(c);
    ms::io::write_file(place.snapshot(12345), "x");
    ms::io::write_file(place.snapshot(800), "x");
    REQUIRE(place.snapshots().size() == 2);
    CHECK(place.snapshots()[0].first == 800);
  }
  {
    const ms::run_directory place(path, ms::run_directory::resume);
    CHECK(place.read_run().run.kimg == 3);
    CHECK(place.read_run().origins.at("training.batch_size") == "preset small-64");
    CHECK(place.snapshots().size() == 2);
  }
  {
    // what ended before its first checkpoint is begun anew, and leaves nothing behind
    const ms::run_directory place(path, ms::run_directory::begin);
    CHECK(place.snapshots().empty());
    ms::io::write_file(place.checkpoint(), "weights");
  }
  CHECK_THROWS_AS(ms::run_directory(path, ms::run_directory::begin), ms::value_error);
  CHECK(ms::run_directory(path, ms::run_directory::resume).has_checkpoint());
}

TEST_CASE("a log is read with the later of steps that were made twice, and torn lines aside") {
  const test::directory folder;
  const std::string path = folder.path + "/log.jsonl";
  std::ofstream(path) << "{\"step\":1,\"images\":10,\"loss\":[3,null]}\n"
                      << "{\"step\":5,\"images\":50,\"loss\":[2,1]}\n"
                      << "{\"images\":50,\"frechet_distance\":4,\"n\":8,\"features\":\"f\"}\n"
                      << "[1]\nnonsense\n"
                      << "{\"step\":3,\"images\":30,\"loss\":[2.5,1.5]}\n"
                      << "{\"images\":40,\"frechet_distance\":5,\"n\":8,\"features\":\"f\"}\n"
                      << "{\"step\":7,\"ima";
  const ms::run_history h = ms::read_history(path);
  REQUIRE(h.points.size() == 2);
  CHECK(std::isnan(h.points[0].loss[1]));
  CHECK(h.points[1].step == 3);
  REQUIRE(h.distances.size() == 1);
  CHECK(h.distances[0].frechet == 5);
  CHECK(ms::read_history(folder.path + "/nothing").points.empty());
}

TEST_CASE("versions of a file stay beside it, so many as asked for") {
  const test::directory folder;
  const std::string path = folder.path + "/model.bin";
  ms::io::keep_version(path, 1);  // nothing there yet
  for (int step = 10; step <= 40; step += 10) {
    if (step > 10)
      ms::io::keep_version(path, step - 10);
    ms::io::write_file(path, std::to_string(step));
    ms::io::drop_versions(path, 2);
  }
  ms::io::write_file(folder.path + "/model-notes.bin", "mine");
  const auto found = ms::io::versions_of(path);
  REQUIRE(found.size() == 2);
  CHECK(found[0].first == 20);
  const auto bytes = ms::io::read_file(found[1].second);
  CHECK(std::string(bytes.begin(), bytes.end()) == "30");
  ms::io::drop_versions(path, 0);
  CHECK(std::filesystem::exists(folder.path + "/model-notes.bin"));
  CHECK(std::filesystem::exists(path));
}
