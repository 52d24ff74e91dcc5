// The report's figures and figures of speech: ticks, axes that say what they are, nearest
// training images, commands as a shell takes them.
#include "../examples/quickstart_report.hpp"
#include "catch.hpp"

const char* const quickstart_commit = "none";
const char* const quickstart_flags = "";

using multistage::io::figure_detail::axis_range;

TEST_CASE("an axis has ticks enough to read it by, inside its interval and round") {
  for (const bool logarithmic : {false, true})
    for (const auto& [low, high] : {std::pair{40.0, 130.0},
                                    {0.011, 0.9},
                                    {1.0, 1e6},
                                    {49.0, 51.0},
                                    {3e-9, 5e-2},
                                    {0.3, 2.9}}) {
      const std::vector<double> ticks = axis_range{low, high, logarithmic}.ticks();
      CAPTURE(low, high, logarithmic, ticks);
      CHECK(ticks.size() >= 3);
      CHECK(ticks.size() <= 12);
      CHECK(std::is_sorted(ticks.begin(), ticks.end()));
      for (const double tick : ticks) {
        CHECK(tick >= low * 0.9998);
        CHECK(tick <= high * 1.0002);
        const double digits =
            tick / std::pow(10.0, std::floor(std::log10(tick * 1.0000001)) - 2);
        CHECK(std::fabs(digits - std::round(digits)) < 1e-6);  // three digits say it
      }
    }
  CHECK(axis_range{1, 1000, true}.ticks() == std::vector<double>{1, 10, 100, 1000});
  // The quickstart's losses once had 50 and 100 alone.
  CHECK(axis_range{40, 130, true}.ticks().size() == 7);
}

TEST_CASE("a logarithmic axis says so") {
  CHECK(axis_range{1, 10, true}.said("loss") == "loss (logarithmic)");
  CHECK(axis_range{1, 10}.said("loss") == "loss");
}

TEST_CASE("the nearest training image of each picture") {
  const std::vector<double> training{0, 0, 1, 1, -1, 1};
  const std::vector<double> pictures{0.9, 1.0, -1, 1, 0.25, -0.25};
  const quickstart_neighbours found = quickstart_nearest(pictures, training, 2);
  CHECK(found.image == std::vector<multistage::index_t>{1, 2, 0});
  CHECK(std::fabs(found.distance[0] - std::sqrt(0.01 / 2)) < 1e-12);
  CHECK(found.distance[1] == 0);
  CHECK(found.distance[2] == 0.25);
  CHECK(std::fabs(found.median() - std::sqrt(0.005)) < 1e-12);
}

TEST_CASE("a command is written as a shell takes it back") {
  const char* const words[] = {"./quickstart", "my pictures", "--seed", "7", "it's"};
  CHECK(quickstart_origin_of(5, words).command ==
        "./quickstart 'my pictures' --seed 7 'it'\\''s'");
  CHECK(quickstart_origin_of(1, words).machine.find("threads") != std::string::npos);
}
