// Sizes of the paper's networks, held against the reference implementation's
// (golden/facts.json), at compile time; arrangements of one network; the planner of widths.
#include <multistage/diffusion/paper_models.hpp>
#include <multistage/multistage.hpp>
#include <multistage/networks/tailor_decoders.hpp>

#include "support.hpp"

namespace ms = multistage;
namespace paper = multistage::paper;

namespace {

constexpr bool same(const ms::cost_counter& c,
                    std::initializer_list<ms::index_t> macs,
                    ms::index_t parameters) {
  ms::index_t total = c.segments[0].parameters;
  int s = 0;
  for (const ms::index_t m : macs) {
    if (c.segments[0].macs + c.segments[1 + s].macs != m)
      return false;
    total += c.segments[1 + s++].parameters;
  }
  return total == parameters && c.problem == ms::graph_problem::none;
}
template <class Net>
constexpr bool unified_is(const Net& net, ms::index_t parameters, ms::index_t macs) {
  return same(ms::detail::count(net, {.widths = {net.encoder_channels}}), {macs}, parameters);
}
constexpr ms::decoders attending(ms::decoders d, const std::array<ms::block_choice, 8>& where) {
  d.attention = where;
  return d;
}

// Every count of facts.json.
static_assert(unified_is(paper::edm_32, 55'732'739, 21'191'524'352));
static_assert(unified_is(paper::vp_32, 107'521'411, 18'594'116'656));
static_assert(unified_is(paper::ddpmpp_32, 106'632'579, 18'546'753'536));
static_assert(unified_is(paper::celeba_256, 274'056'163, 101'200'031'744));
static_assert(unified_is(paper::imagenet_256(256), 394'984'196, 57'036'242'944));
using edm = paper::edm_cifar10_multistage<>;
static_assert(edm::parameters == 128'792'233 && edm::shared_parameters == 19'631'616);
static_assert(edm::decoder_parameters(0) == 68'284'547 &&
              edm::decoder_parameters(1) == 36'101'123 &&
              edm::decoder_parameters(2) == 4'774'947);
static_assert(edm::macs(0) == 35'751'788'544 && edm::macs(1) == 21'191'524'352 &&
              edm::macs(2) == 7'726'235'648);
using vp = paper::vp_cifar10_multistage<>;
static_assert(vp::parameters == 237'169'337 && vp::shared_parameters == 43'482'624);
static_assert(vp::decoder_parameters(0) == 125'995'843 &&
              vp::decoder_parameters(1) == 64'038'787 &&
              vp::decoder_parameters(2) == 3'652'083);
static_assert(vp::macs(0) == 30'994'936'880 && vp::macs(1) == 18'594'116'656 &&
              vp::macs(2) == 7'158'060'080);
constexpr auto celeba =
    ms::detail::count(paper::celeba_256,
                      attending(paper::latents, paper::reference_celeba_attention));
static_assert(same(celeba, {120'442'392'576, 78'207'438'848, 53'410'304'000}, 493'841'449) &&
              celeba.segments[0].parameters == 107'911'776);
static_assert(celeba.segments[1].parameters == 208'055'363 &&
              celeba.segments[2].parameters == 115'918'147 &&
              celeba.segments[3].parameters == 61'956'163);
constexpr auto imagenet =
    ms::detail::count(paper::imagenet_256(224),
                      attending(paper::latents, paper::reference_imagenet_attention));
static_assert(same(imagenet, {51'711'004'672, 31'320'846'336, 22'403'977'216}, 509'464'972) &&
              imagenet.segments[0].parameters == 132'960'128);
static_assert(imagenet.segments[1].parameters == 215'675'268 &&
              imagenet.segments[2].parameters == 117'842'180 &&
              imagenet.segments[3].parameters == 42'987'396);

}  // namespace

TEST_CASE("widths are tailored to a budget") {
  const double budget = 15e9;
  const std::vector<double> shares{18, 4, 13};
  const auto fit = ms::tailor_decoders(paper::edm_32, {.budget = budget, .shares = shares});
  REQUIRE(fit.stages.stage_count() == 3);
  const auto average = [&](const ms::decoders& d) {
    const auto c = ms::detail::count(paper::edm_32, d);
    double sum = 0;
    for (int s = 0; s < 3; ++s)
      sum += shares[s] / 35 * double(c.segments[0].macs + c.segments[1 + s].macs);
    return sum;
  };
  CHECK(average(fit.stages) == Approx(fit.average_macs));
  CHECK(fit.average_macs <= budget);
  for (int s = 0; s < 3; ++s) {  // no stage can be widened any more
    ms::decoders wider = fit.stages;
    wider.widths[s] += 16;
    CHECK(average(wider) > budget);
  }
  CHECK(fit.stages.widths[1] > fit.stages.widths[0]);  // what runs seldom may be wide
  // A stage that needs width more gets more; exhaustive search over a coarse grid finds nothing
  // better.
  const std::vector<double> needs{3, 1, 0.5};
  const auto needy =
      ms::tailor_decoders(paper::edm_32, {.budget = budget, .shares = shares, .needs = needs});
  CHECK(needy.stages.widths[0] > fit.stages.widths[0]);
  const auto value = [&](const ms::decoders& d) {
    double v = 0;
    for (int s = 0; s < 3; ++s)
      v += needs[s] * std::log(d.widths[s]);
    return v;
  };
  double best = 0;
  for (int a = 16; a <= 256; a += 16)
    for (int b = 16; b <= 256; b += 48)
      for (int c = 16; c <= 256; c += 16)
        if (const ms::decoders d{.widths = {a, b, c}}; average(d) <= budget)
          best = std::max(best, value(d));
  CHECK(value(needy.stages) > best - 0.15);  // the size of one step

  const auto refused = [](ms::tailoring t, const char* why) {
    CHECK_THAT(test::message([&] { ms::tailor_decoders(paper::edm_32, t); }),
               Catch::Contains(why));
  };
  refused({.budget = 1e9, .shares = shares}, "the budget is");
  refused({.budget = budget, .shares = {}}, "shares");
  refused({.budget = budget, .shares = {1, -1}}, "negative");
  refused({.budget = budget, .shares = shares, .needs = {1}}, "needs");
}
