// Layers of the paper's networks against oneDNN's (Debian: libdnnl-dev), in turn, on as many
// threads as there are cores:
//   race_onednn [--repeats N] [--batch N]
// oneDNN gets the memory formats it asks for, and its weights in them, before time is taken; we
// get ours kept where sampling keeps them. GFLOP/s count the multiplications of the direct
// form. Winograd of oneDNN's is tried where it has one; "-" where it says it has none.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <dnnl.hpp>
#include <multistage/multistage.hpp>
#include <optional>
#include <thread>
#include <unordered_map>

#include "machine_peak.hpp"

namespace ms = multistage;

namespace {

struct layer {
  ms::index_t in;
  ms::index_t out;
  ms::index_t side;
  ms::index_t kernel;
};

constexpr int passes = 3;
const char* const pass_names[passes] = {"forward", "input gradient", "weight gradient"};

/// One convolution of oneDNN's, ready to run.
class theirs {
 public:
  theirs(dnnl::engine e, const layer& l, ms::index_t batch, int pass, dnnl::algorithm algorithm)
      : stream_(e) {
    using namespace dnnl;
    const auto any = [](memory::dims d) {
      return memory::desc(d, memory::data_type::f32, memory::format_tag::any);
    };
    const memory::desc x = any({batch, l.in, l.side, l.side});
    const memory::desc w = any({l.out, l.in, l.kernel, l.kernel});
    const memory::desc y = any({batch, l.out, l.side, l.side});
    const memory::dims one{1, 1};
    const memory::dims pad{l.kernel / 2, l.kernel / 2};
    const auto forward = convolution_forward::primitive_desc(
        {pass == 0 ? prop_kind::forward_inference : prop_kind::forward_training, algorithm, x,
         w, y, one, pad, pad},
        e);
    const auto take = [&](int argument, const memory::desc& d) {
      memory m(d, e);
      std::fill_n(static_cast<float*>(m.get_data_handle()), d.get_size() / sizeof(float),
                  0.25f);
      arguments_.emplace(argument, m);
    };
    if (pass == 0) {
      take(DNNL_ARG_SRC, forward.src_desc());
      take(DNNL_ARG_WEIGHTS, forward.weights_desc());
      take(DNNL_ARG_DST, forward.dst_desc());
      primitive_ = convolution_forward(forward);
    } else if (pass == 1) {
      const auto d = convolution_backward_data::primitive_desc(
          {algorithm, x, w, y, one, pad, pad}, e, forward);
      take(DNNL_ARG_DIFF_SRC, d.diff_src_desc());
      take(DNNL_ARG_WEIGHTS, d.weights_desc());
      take(DNNL_ARG_DIFF_DST, d.diff_dst_desc());
      primitive_ = convolution_backward_data(d);
    } else {
      const auto d = convolution_backward_weights::primitive_desc(
          {algorithm, x, w, y, one, pad, pad}, e, forward);
      take(DNNL_ARG_SRC, d.src_desc());
      take(DNNL_ARG_DIFF_WEIGHTS, d.diff_weights_desc());
      take(DNNL_ARG_DIFF_DST, d.diff_dst_desc());
      primitive_ = convolution_backward_weights(d);
    }
  }
  void operator()() {
    primitive_.execute(stream_, arguments_);
    stream_.wait();
  }

 private:
  dnnl::stream stream_;
  dnnl::primitive primitive_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

std::optional<theirs> make(dnnl::engine e,
                           const layer& l,
                           ms::index_t batch,
                           int pass,
                           dnnl::algorithm algorithm) {
  try {
    return theirs(e, l, batch, pass, algorithm);
  } catch (const dnnl::error&) {
    return std::nullopt;  // it has no such implementation
  }
}

/// The same layer of ours.
class ours {
 public:
  ours(ms::cpu b, const layer& l, ms::index_t batch)
      : b_(b),
        x_(b, {batch, l.side, l.side, l.in}),
        w_(b, {l.kernel, l.kernel, l.in, l.out}),
        y_(b, {batch, l.side, l.side, l.out}),
        dx_(b, x_.extents()),
        dw_(b, w_.extents()),
        problem_{batch,
                 l.side,
                 l.side,
                 l.in,
                 0,
                 l.side,
                 l.side,
                 l.out,
                 int(l.kernel),
                 1,
                 int(l.kernel / 2),
                 x_.data(),
                 nullptr,
                 w_.data()} {
    for (ms::tensor<float, ms::cpu>* t : {&x_, &w_, &y_})
      std::fill_n(t->data(), t->size(), 0.25f);
    problem_.y = y_.data();
    if (const ms::index_t size = conv_prepared_size(b_, problem_)) {
      kept_ = ms::tensor<float, ms::cpu>(b_, {1, 1, 1, size});
      conv_prepare(b_, problem_, kept_.data());
    }
  }
  void operator()(int pass) {
    if (pass == 0) {
      ms::conv_problem<float> p = problem_;
      p.prepared = kept_.size() ? kept_.data() : nullptr;
      conv_forward(b_, p);
    } else if (pass == 1)
      conv_backward_input(b_, problem_, y_.data(), dx_.data(), false,
                          static_cast<float*>(nullptr), false);
    else
      conv_backward_weight(b_, problem_, y_.data(), dw_.data());
  }

 private:
  ms::cpu b_;
  ms::tensor<float, ms::cpu> x_;
  ms::tensor<float, ms::cpu> w_;
  ms::tensor<float, ms::cpu> y_;
  ms::tensor<float, ms::cpu> dx_;
  ms::tensor<float, ms::cpu> dw_;
  ms::tensor<float, ms::cpu> kept_;
  ms::conv_problem<float> problem_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Convolutions of the paper's networks against oneDNN's"};
  int repeats = 10;
  ms::index_t batch = 4;
  app.add_option("--repeats", repeats, "of which the best counts")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--batch", batch)->check(CLI::Range(1, 4096))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return ms::exit_status([&] {
    const layer layers[] = {{256, 256, 32, 3}, {384, 384, 32, 3}, {640, 384, 32, 3},
                            {384, 384, 16, 3}, {640, 384, 16, 3}, {384, 384, 8, 3},
                            {32, 32, 32, 3},   {96, 96, 8, 3},    {640, 384, 32, 1},
                            {256, 768, 16, 1}};
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    const ms::cpu b;
    std::printf("oneDNN %d.%d.%d, %d threads, batch %lld; GFLOP/s of the direct form\n",
                dnnl::version()->major, dnnl::version()->minor, dnnl::version()->patch,
                b.threads(), static_cast<long long>(batch));
    std::printf("%-24s %-16s %8s %8s %8s %8s\n", "layer", "pass", "ours", "direct", "winograd",
                "ratio");
    for (const layer& l : layers) {
      ours mine(b, l, batch);
      const double flops =
          2e-9 * double(batch * l.side * l.side * l.kernel * l.kernel * l.in * l.out);
      for (int pass = 0; pass < passes; ++pass) {
        auto direct = make(engine, l, batch, pass, dnnl::algorithm::convolution_direct);
        auto winograd =
            l.kernel == 3 ? make(engine, l, batch, pass, dnnl::algorithm::convolution_winograd)
                          : std::nullopt;
        double s = HUGE_VAL;
        double s_direct = HUGE_VAL;
        double s_winograd = HUGE_VAL;
        // In turn. Either side's idle threads look for work for a while, which would take the
        // other's time: let them fall asleep, then wake up one's own.
        const auto timed = [&](double& best, auto&& f) {
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
          const double once = std::min(bench::seconds_of(2, f), best);
          best =
              std::min(once, bench::seconds_of(int(std::clamp(3e-3 / once, 1.0, 1000.0)), f));
        };
        for (int i = 0; i < repeats; ++i) {
          timed(s, [&] { mine(pass); });
          if (direct)
            timed(s_direct, *direct);
          if (winograd)
            timed(s_winograd, *winograd);
        }
        char name[64];
        std::snprintf(name, sizeof name, "%lldx%lld %lld -> %lld at %lldx%lld",
                      static_cast<long long>(l.kernel), static_cast<long long>(l.kernel),
                      static_cast<long long>(l.in), static_cast<long long>(l.out),
                      static_cast<long long>(l.side), static_cast<long long>(l.side));
        const auto rate = [&](double t) {
          char text[16];
          if (std::isfinite(t))
            std::snprintf(text, sizeof text, "%.0f", flops / t);
          else
            std::snprintf(text, sizeof text, "-");
          return std::string(text);
        };
        std::printf("%-24s %-16s %8s %8s %8s %8.2f\n", name, pass_names[pass], rate(s).c_str(),
                    rate(s_direct).c_str(), rate(s_winograd).c_str(),
                    std::min(s_direct, s_winograd) / s);
      }
    }
    return 0;
  });
}
