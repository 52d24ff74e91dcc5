// Makes a data set of pictures: prepare SOURCE OUT [--size 32 | --size 48x64] [--crop C]
// [--grey]
// [--filter F] [--labels folder | --labels csv FILE] [--deduplicate] ... SOURCE is a folder of
// any depth, a zip or tar archive, or arrays; OUT becomes a folder that every program takes as
// DATA.
#include <CLI/CLI.hpp>
#include <multistage/core/program.hpp>
#include <multistage/core/progress.hpp>
#include <multistage/io/prepare.hpp>

#include "command_line.hpp"
#include "image_options.hpp"

namespace ms = multistage;

int main(int argc, char** argv) {
  std::string source;
  std::string out;
  std::string labels;
  int threads = 0;
  ms::io::prepare_options options;
  ms::io::image_rule arrays;
  CLI::App app{"Makes a data set of images of one size of pictures of any kind"};
  app.add_option(
         "SOURCE", source,
         "a folder of any depth with PNG, JPEG and WebP pictures and archives of them; a "
         "zip or tar archive; npy, npz, IDX (MNIST), CIFAR's .bin or a folder of them")
      ->required();
  app.add_option("OUT", out, "the folder that is made")->required();
  app.add_option(
         "--labels", labels,
         "own (those of MNIST, CIFAR, EDM's dataset.json), folder, csv FILE (file,label) "
         "or none")
      ->type_name("own|folder|csv FILE|none");
  command_line::named_options named;
  named.add(app, options, command_line::add_flags(app, options, {"labels"}));
  app.add_option("--largest", arrays.largest, "value of white in arrays of integers; 0: 255")
      ->check(CLI::Range(0.0, 1e300));
  app.add_option("--array", arrays.array, "which array of an npz archive");
  app.add_option("--threads", threads, "0: one a processor that may be used")
      ->check(CLI::Range(0, 1024));
  std::vector<char*> words = command_line::joined(argc, argv, "--labels", "csv");
  return command_line::run(app, int(words.size()) - 1, words.data(), [&] {
    if (!labels.empty())
      options.labels = ms::io::label_choice(labels);
    named.set("prepare", options);
    ms::thread_pool pool(threads);
    const ms::stop_signals stop;
    ms::progress bar("preparing");
    try {
      const ms::io::prepared made = ms::io::prepare(
          source, out, options, pool,
          [&](ms::index_t done, ms::index_t all) {
            if (all > 0)
              bar.show(double(done) / double(all), std::to_string(done) + " pictures");
            else if (done > 0)
              bar.show(0, "looking: " + std::to_string(done) + " files");
            return stop.caught() == 0;
          },
          arrays);
      bar.end();
      std::printf("%s: %s", out.c_str(), ms::io::summary(made).c_str());
      std::fprintf(stderr, "%s", ms::io::complaints(made).c_str());
      return 0;
    } catch (const ms::state_error&) {
      if (stop.caught() == 0)
        throw;
      std::fprintf(stderr, "\nstopped: nothing was made\n");
      return 128 + stop.caught();
    }
  });
}
