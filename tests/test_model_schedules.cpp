// Every schedule is a model's template argument: it compiles, denoises as its prediction says,
// trains and draws. So is one of a user's own.
#include <multistage/samplers/all.hpp>
#include <multistage/training/run.hpp>

#include "support.hpp"

namespace mine {
/// sigma = t^2, trained to predict the picture.
struct schedule {
  double signal(double) const {
    return 1;
  }
  double sigma(double t) const {
    return t * t;
  }
  double t(double sigma) const {
    return std::sqrt(sigma);
  }
  double t_min() const {
    return 0.1;
  }
  double t_max() const {
    return 9;
  }
};
constexpr ms::preconditioning preconditioning_for(const schedule&, double sigma_data) {
  ms::preconditioning p{ms::precondition::flow, sigma_data};
  p.predicts = ms::prediction::sample;
  return p;
}
}  // namespace mine

namespace {

constexpr ms::song_unet net{.resolution = 4,
                            .channels = 1,
                            .encoder_channels = 8,
                            .channel_mult = {1},
                            .num_blocks = 1,
                            .attn_resolutions = {}};

template <class Schedule>
void check(ms::precondition kind, double c_in_at_2, double c_noise_at_2) {
  using model = ms::multi_decoder<net, ms::decoders{{8, 4}}, Schedule>;
  static_assert(model::stage_count == 2);
  model m(ms::partition({1.0}), ms::seed{3});
  CHECK(m.config().precond.kind == kind);
  // c_in is the signal's scale at sigma = 2 (EDM's aside), c_noise what the paper labels it
  // with.
  const auto f = m.config().precond.at(2);
  CHECK(f.in == Approx(c_in_at_2).epsilon(1e-9));
  CHECK(f.noise == Approx(c_noise_at_2).epsilon(1e-9));
  std::vector<float> images(24 * 16);
  for (std::size_t i = 0; i < images.size(); ++i)
    images[i] = float(std::sin(0.7 * double(i)));
  ms::trainer t{m, std::span<const float>(images), ms::shape{24, 4, 4, 1},
                ms::trainer_options{.learning_rate = 3e-3,
                                    .lr_rampup_kimg = 0,
                                    .ema_halflife_kimg = 0,
                                    .batch_size = 24}};
  double first = 0;
  double last = 0;
  for (int k = 0; k < 60; ++k) {
    const auto r = t.step();
    double sum = 0;
    for (int s = 0; s < 2; ++s)
      sum += r.rows[std::size_t(s)] > 0
                 ? r.loss[std::size_t(s)] * double(r.rows[std::size_t(s)]) / 24
                 : 0;
    (k < 20 ? first : k >= 40 ? last : sum) += sum / 20;
  }
  CHECK(last < first);
  const ms::ddim sampler{.num_steps = 6,
                         .sigma_min = 0.01,
                         .sigma_max = 20,
                         .steps = ms::spacing::time_uniform,
                         .schedule = Schedule{}};
  for (const double v : ms::sample(m, sampler, {.seeds = "0-3"}).images)
    REQUIRE(std::isfinite(v));
}

}  // namespace

TEST_CASE("each schedule as a template argument") {
  const double vp = 1 / std::sqrt(5.0);
  check<ms::edm_schedule>(ms::precondition::edm, 1 / std::sqrt(4.25), std::log(2.0) / 4);
  check<ms::vp_schedule>(ms::precondition::vp, vp, 999 * ms::vp_schedule{}.t(2));
  check<ms::sub_vp_schedule>(ms::precondition::subvp,
                             ms::sub_vp_schedule{}.signal(ms::sub_vp_schedule{}.t(2)),
                             999 * ms::sub_vp_schedule{}.t(2));
  check<ms::ve_schedule>(ms::precondition::ve, 1, 0);
  check<ms::flow_schedule>(ms::precondition::flow, 1 / 3.0, 1000 * 2 / 3.0);
  check<ms::ddpm_schedule>(ms::precondition::ddpm, vp, ms::ddpm_schedule{}.nodes().nearest(2));
  // The cosine's index of a thousand steps: t up to rounding and the schedules' different ends.
  const double index = ms::preconditioning{ms::precondition::iddpm}.at(2).noise;
  CHECK(index == Approx(1000 * ms::cosine_schedule{}.t(2)).margin(2));
  check<ms::cosine_schedule>(ms::precondition::iddpm, vp, index);
}

TEST_CASE("a schedule of one's own as a template argument") {
  check<mine::schedule>(ms::precondition::flow, 1 / 3.0, 1000 * 2 / 3.0);
  const ms::multi_decoder<net, ms::decoders{{8}}, mine::schedule> m(ms::partition(),
                                                                    ms::seed{1});
  CHECK(m.config().precond.at(2).skip == 0);
  CHECK(m.config().precond.at(2).out == 1);
}
