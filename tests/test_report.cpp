// The report's figures and figures of speech: ticks, axes that say what they are, nearest
// training images, commands as a shell takes them.
#include <multistage/evidence/statistics.hpp>

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

namespace ms = multistage;

TEST_CASE("Student's t, means with intervals and pairs agree with R") {
  // qt(0.975, n), and qt(0.995, 4); of one and two degrees of freedom closed forms
  const std::pair<int, double> known[] = {{1, std::tan(0.475 * 3.14159265358979323846)},
                                          {2, 0.95 * std::sqrt(2 / 0.0975)},
                                          {3, 3.18244630528371},
                                          {4, 2.77644510519779},
                                          {9, 2.26215716279820},
                                          {30, 2.04227245630124}};
  for (const auto& [degrees, bound] : known) {
    CAPTURE(degrees);
    CHECK(std::fabs(ms::student_t_bound(0.95, degrees) / bound - 1) < 5e-12);
  }
  CHECK(std::fabs(ms::student_t_bound(0.99, 4) / 4.60409487134999 - 1) < 5e-12);
  // t.test(1:5)
  const ms::estimate e = ms::mean_of(std::vector<double>{1, 2, 3, 4, 5});
  CHECK(std::fabs(e.low() - 1.036756838522439) < 1e-11);
  CHECK(std::fabs(e.high() - 4.963243161477561) < 1e-11);
  // Pairs that differ by nearly the same each time: far sharper than their own spread.
  const std::vector<double> a{1.1, 5.2, 9.0};
  const std::vector<double> b{2.0, 6.2, 10.1};
  const ms::estimate d = ms::mean_difference(a, b);
  CHECK(std::fabs(d.mean + 1) < 1e-12);
  CHECK(std::fabs(d.half - 4.30265272974946 * 0.1 / std::sqrt(3.0)) < 1e-9);
  CHECK(ms::verdict_of(d) == ms::verdict::lower);
  CHECK(ms::verdict_of(ms::mean_difference(b, a)) == ms::verdict::higher);
  CHECK(ms::verdict_of(ms::mean_of(a)) == ms::verdict::open);  // 5.1 +- 9.8
  CHECK(ms::verdict_of(ms::mean_of(std::vector<double>{-1})) == ms::verdict::open);
  CHECK_THROWS_AS(ms::mean_difference(a, e.n == 5 ? std::vector<double>{1} : b),
                  ms::value_error);
}

TEST_CASE("where a curve first comes down to a value") {
  const std::vector<double> compute{1, 4, 16};
  const std::vector<double> quality{8, 4, 2};
  CHECK(std::fabs(ms::first_reach(compute, quality, 3) - 8) < 1e-12);  // in the middle of 4, 16
  CHECK(ms::first_reach(compute, quality, 8) == 1);
  CHECK(ms::first_reach(compute, quality, 2) == 16);
  CHECK(std::isnan(ms::first_reach(compute, quality, 1.9)));
  CHECK_THROWS_AS(ms::first_reach(quality, compute, 1), ms::value_error);
}

TEST_CASE("tables as Markdown and in pages; bands behind curves") {
  const ms::io::grid t{{"a", "b"}, {{"1|2", "x\ny"}, {"<3"}}};
  CHECK(ms::io::markdown(t) == "| a | b |\n| --- | --- |\n| 1\\|2 | x y |\n| <3 |  |\n");
  CHECK(ms::io::report("page").columns(t).html().find("<td>&lt;3</td>") != std::string::npos);
  ms::io::curve c{"c", {1, 10, 100}, {3, 2, 1}, {1, 0, 0}};
  const auto pale = [&] {
    int count = 0;
    const auto p = ms::io::line_chart({c}, "t", "x", "y", false, true).pixels();
    for (std::size_t i = 0; i < p.bytes.size(); i += 3)
      count += p.bytes[i] == 255 && p.bytes[i + 1] > 200 && p.bytes[i + 1] < 220;
    return count;
  };
  CHECK(pale() < 500);  // edges of the line
  c.low = {2.5, 1.5, 0.5};
  c.high = {3.5, 2.5, 1.5};
  // The band is 1 high of 3.3 (0.5 to 3.5 with room), over all of 620 x 366 pixels.
  CHECK(std::fabs(pale() / (620 * 366 / 3.3) - 1) < 0.1);
}
