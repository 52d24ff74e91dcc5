// Draws every schedule as sigma over t, and how each spacing lays twenty steps: schedules
// [OUT_DIR]
#include <cstdio>
#include <multistage/io.hpp>
#include <multistage/multistage.hpp>
#include <multistage/schedule/any_schedule.hpp>

#include "command_line.hpp"

namespace ms = multistage;

int main(int argc, char** argv) {
  std::string out = "schedules";
  CLI::App app{"Draws every schedule as sigma over t, and how each spacing lays twenty steps"};
  app.add_option("OUT_DIR", out, "directory for both pictures")->capture_default_str();
  return command_line::run(app, argc, argv, [&] {
    ms::io::make_directory(out);
    std::vector<ms::io::curve> curves;
    for (const char* name : {"vp", "sub_vp", "cosine", "ddpm", "flow", "ve"}) {
      const ms::any_schedule s{std::string(name)};
      ms::io::curve c{name, {}, {}, ms::io::stage_colour(int(curves.size()))};
      for (int i = 0; i <= 200; ++i) {
        const double t = s.t_min() + (s.t_max() - s.t_min()) * i / 200;
        c.x.push_back(t);
        c.y.push_back(s.sigma(t));
      }
      curves.push_back(std::move(c));
    }
    ms::io::line_chart(curves, "Noise over signal along each schedule", "t", "sigma", true)
        .save(out + "/schedules.png");
    std::vector<ms::io::curve> steps;
    for (int k = 0; k <= int(ms::spacing::beta); ++k) {
      ms::io::curve c{ms::to_string(ms::spacing(k)),
                      {},
                      ms::noise_levels(ms::vp_schedule{}, ms::spacing(k), 1, 1e-3, 20),
                      ms::io::stage_colour(k)};
      for (std::size_t i = 0; i < c.y.size(); ++i)
        c.x.push_back(double(i));
      steps.push_back(std::move(c));
    }
    ms::io::line_chart(steps, "Twenty steps of the VP schedule", "step", "sigma", true)
        .save(out + "/spacings.png");
    std::printf("written: %s/schedules.png, %s/spacings.png\n", out.c_str(), out.c_str());
    return 0;
  });
}
