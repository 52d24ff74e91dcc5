// What must hold however much freedom the compiler is given with arithmetic: exp is right, and
// NaN and infinity are noticed. tests/fast_math.sh compiles it with many flags; with
// MULTISTAGE_WHOLE it trains a model, too.
#include <bit>
#include <cstdio>
#include <multistage/backend/cpu/math.hpp>
#ifdef MULTISTAGE_WHOLE
#include <multistage/multistage.hpp>
#endif

namespace ms = multistage;

namespace {
int failures = 0;
void check(bool condition, const char* what, double value) {
  if (!condition)
    std::printf("wrong: %s (%g)\n", what, value), ++failures;
}
// By their bits: std::isnan is one of the things that may be optimised away.
bool is_nan(float x) {
  return (std::bit_cast<std::uint32_t>(x) & 0x7fffffffu) > 0x7f800000u;
}
bool is_finite(float x) {
  return (std::bit_cast<std::uint32_t>(x) & 0x7f800000u) != 0x7f800000u;
}
float nan_value() {
  return std::bit_cast<float>(0x7fc00000u);
}

void exponential() {
  using vec = ms::simd::vec<float>;
  constexpr int lanes = ms::simd::lanes<float>;
  double worst = 0;
  for (int i = -80'000; i <= 80'000; i += lanes) {
    float x[lanes];
    float y[lanes];
    for (int l = 0; l < lanes; ++l)
      x[l] = float(i + l) * 1e-3f;
    ms::simd::store(y, ms::simd::exp<float>(ms::simd::load(x)));
    for (int l = 0; l < lanes; ++l) {
      const double right = std::exp(double(x[l]));
      worst = std::max(worst, std::fabs(double(y[l]) / right - 1));
    }
  }
  check(worst < 2e-7, "relative error of exp", worst);
  float y[lanes];
  const vec nan = ms::simd::broadcast(nan_value());
  ms::simd::store(y, ms::simd::exp<float>(nan));
  check(is_nan(y[0]), "exp(NaN) is NaN", y[0]);
}

#ifdef MULTISTAGE_WHOLE
constexpr ms::song_unet network{.resolution = 8,
                                .channels = 1,
                                .encoder_channels = 16,
                                .channel_mult = {1, 2},
                                .num_blocks = 1,
                                .attn_resolutions = {4}};
using model = ms::multi_decoder<network, ms::decoders{16, 8}>;

template <class Error>
bool throws(auto&& f) {
  try {
    f();
  } catch (const Error&) {
    return true;
  }
  return false;
}

void training() {
  std::vector<float> images(20 * 64);
  for (std::size_t i = 0; i < images.size(); ++i)
    images[i] = float(i * 7 % 13) / 6.5f - 1;
  const ms::shape extents{20, 8, 8, 1};
  model net(ms::partition({1.0}), ms::seed{1});
  const auto train = [&](const std::vector<float>& v) {
    ms::trainer t{net,
                  std::span<const float>(v),
                  extents,
                  {.learning_rate = 1e-3, .lr_rampup_kimg = 0, .batch_size = 8}};
    double loss = 0;
    for (int i = 0; i < 20; ++i)
      loss = t.step().loss[0];
    return loss;
  };
  check(train(images) < 100, "a loss that is a number", 0);
  for (const float w : net.weights().to_host())
    check(is_finite(w), "a weight", w);
  for (const float bad : {nan_value(), std::bit_cast<float>(0x7f800000u)}) {
    std::vector<float> spoilt = images;
    spoilt[100] = bad;
    check(throws<ms::value_error>([&] { train(spoilt); }),
          "an image that is not finite is refused", bad);
  }
  check(throws<ms::value_error>([&] {
          ms::edm_heun o{.s_churn = double(nan_value())};
          ms::sample(net, o, {.seeds = "0"});
        }),
        "an option that is NaN", 0);
  net.weights().data()[50] = nan_value();
  check(throws<ms::numeric_error>([&] { train(images); }),
        "a loss that is NaN stops the training", 0);
  net.averaged_weights().data()[50] = nan_value();
  check(throws<ms::numeric_error>(
            [&] { ms::sample(net, ms::edm_heun{.num_steps = 2}, {.seeds = "0"}); }),
        "a picture that is NaN is refused", 0);
}
#endif
}  // namespace

int main() {
  exponential();
#ifdef MULTISTAGE_WHOLE
  training();
#endif
  return failures != 0;
}
