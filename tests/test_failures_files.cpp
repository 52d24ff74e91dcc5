// Every allocation of saving, loading and resuming fails once, alone and with all that follow;
// what comes after must be as if nothing had happened, and the file the one there was or the
// new one.
#include <multistage/io.hpp>

#include "faults.hpp"

namespace {

constexpr long each = 400;  // behind them some are passed over

/// A run of two steps, and its checkpoint.
template <class Backend>
struct saved_run {
  test::directory folder;
  std::string path = folder / "model.safetensors";
  saved_run() {
    training<Backend> t{Backend(1)};
    t.start();
    t.trainer->step();
    t.trainer->step();
    ms::save(path, *t.trainer);
  }
};

template <class Backend>
std::vector<double> weights_of(model_of<Backend>& model) {
  std::vector<double> all;
  append(all, model.weights().to_host());
  append(all, model.averaged_weights().to_host());
  return all;
}

}  // namespace

TEST_CASE("a load whose memory fails can be asked for again") {
  const saved_run<ms::cpu> saved;
  struct loading {
    ms::cpu backend;
    std::optional<model_of<ms::cpu>> model;
  };
  for (const bool lasting : {false, true}) {
    const bool lazy = lasting;
    const long points = walk<ms::cpu>(
        1, lasting,
        [](const ms::cpu& b) {
          return loading{b, std::nullopt};
        },
        [&](loading& l) {
          l.model.emplace(ms::load(saved.path, l.backend, {.lazy = lazy}));
          l.model->weights();
        },
        [](loading& l) { return weights_of(*l.model); }, each);
    CHECK(points > 100);
  }
}

TEST_CASE("a run whose resuming fails for memory can be resumed again, or go on as it was") {
  const saved_run<ms::cpu> saved;
  const auto make = [](const ms::cpu& b) {
    auto t = std::make_unique<training<ms::cpu>>(b);
    t->start();
    return t;
  };
  for (const bool lasting : {false, true}) {
    const long points = walk<ms::cpu>(
        1, lasting, make, [&](auto& t) { ms::resume(saved.path, *t->trainer); },
        [](auto& t) { return t->state(); }, each);
    CHECK(points > 100);
  }
}

TEST_CASE("a save whose memory fails leaves the file there was") {
  struct saving {
    test::directory folder;
    std::string path = folder / "model.safetensors";
    std::unique_ptr<training<ms::cpu>> run;
    long before = 0;
  };
  for (const bool lasting : {false, true}) {
    const long points = walk<ms::cpu>(
        1, lasting,
        [](const ms::cpu& b) {
          auto s = std::make_unique<saving>();
          s->run = std::make_unique<training<ms::cpu>>(b);
          s->run->start();
          s->run->trainer->step();
          ms::save(s->path, *s->run->trainer);
          s->run->trainer->step();
          return s;
        },
        [](auto& s) {
          try {
            ms::save(s->path, *s->run->trainer);
          } catch (const std::bad_alloc&) {
            fault::disarm();
            // What is there can be resumed, from either of the two steps.
            auto again = make_model(ms::cpu(1));
            training<ms::cpu> other{ms::cpu(1)};
            other.start();
            ms::resume(s->path, *other.trainer);
            REQUIRE((other.trainer->steps() == 1 || other.trainer->steps() == 2));
            fault::struck = true;
            throw;
          }
        },
        [](auto& s) {
          auto model = ms::load(s->path, ms::cpu(1));
          return weights_of(model);
        },
        150);
    CHECK(points > 100);
  }
}
