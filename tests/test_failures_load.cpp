// Every allocation of loading a checkpoint and of resuming a run fails once; what follows must be as
// if nothing had happened. Apart from test_failures.cpp for its flags: see faults.hpp.
#include "faults.hpp"

TEMPLATE_TEST_CASE("a load or a resume whose memory fails can be asked for again", "", BACKENDS) {
  const test::directory folder;
  const std::string path = folder / "model.safetensors";
  {
    training<TestType> t{TestType(1)};
    t.start();
    t.trainer->step();
    t.trainer->step();
    ms::save(path, *t.trainer);
  }
  struct loading {
    TestType backend;
    std::optional<model_of<TestType>> model;
  };
  for (const bool lazy : {false, true}) {
    const long points = walk<TestType>(
        1, lazy, [](const TestType& b) { return loading{b, std::nullopt}; },
        [&](loading& l) {
          l.model.emplace(ms::load(path, l.backend, {.lazy = lazy}));
          if (lazy) l.model->weights();
        },
        [](loading& l) { return [&] {
          std::vector<double> all;
          append(all, l.model->weights().to_host());
          return all;
        }(); });
    CHECK(points > 100);
  }
  const long points = walk<TestType>(
      1, false,
      [](const TestType& b) {
        auto t = std::make_unique<training<TestType>>(b);
        t->start();
        return t;
      },
      [&](auto& t) { ms::resume(path, *t->trainer); }, [](auto& t) { return t->state(); });
  CHECK(points > 100);
}
