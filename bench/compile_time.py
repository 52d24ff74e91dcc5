"""How long a user's translation unit takes to compile and how much memory, for models of several sizes and each compiler at hand.
usage: compile_time.py [--flags "-O2 -march=native"]"""
import argparse, os, pathlib, shutil, subprocess, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = {
    "header alone": "",
    "quickstart": "ms::multi_decoder<ms::song_unet{.resolution = 8, .channels = 1, .encoder_channels = 32, .channel_mult = {1, 2}, .num_blocks = 1, .attn_resolutions = {4}}, ms::decoders{{48, 32, 16}}>",
    "edm_cifar10_multistage": "ms::paper::edm_cifar10_multistage<>",
    "vp_cifar10_multistage": "ms::paper::vp_cifar10_multistage<>",
    "ldm_celeba256_multistage": "ms::paper::ldm_celeba256_multistage<>",
    "ldm_imagenet256_multistage": "ms::paper::ldm_imagenet256_multistage<>",
    "edm, 4 times the blocks": "ms::multi_decoder<ms::song_unet{.channel_mult = {2, 2, 2}, .num_blocks = 16, .attn_resolutions = {16}}, ms::decoders{{192, 128, 16}}>",
    "edm, 10 times the width": "ms::multi_decoder<ms::song_unet{.encoder_channels = 1280, .channel_mult = {2, 2, 2}, .attn_resolutions = {16}}, ms::decoders{{1920, 1280, 160}}>",
    "edm, 60 times the blocks": "ms::multi_decoder<ms::song_unet{.channel_mult = {2, 2, 2}, .num_blocks = 240, .attn_resolutions = {16}}, ms::decoders{{192, 128, 16}}>",
}
UNIT = """#include <multistage/diffusion/paper_models.hpp>
#include <multistage/multistage.hpp>
namespace ms = multistage;
using model = %s;
static_assert(model::parameters > 0);
int main() {
  model net(ms::partition({0.5, 40.0}), ms::seed{1});
  std::vector<float> images(std::size_t(net.images(4).size()), 0.5f);
  ms::trainer trainer{net, std::span<const float>(images), net.images(4), ms::trainer_options{}};
  ms::run(trainer, ms::seconds(1), [](const ms::loss_point&, double) { return true; });
  return int(ms::sample(net, ms::edm_heun{.num_steps = 18}, {.seeds = "0-3"}).images.size());
}
"""
args = argparse.ArgumentParser()
args.add_argument("--flags", default="-O2 -march=native")
flags = args.parse_args().flags.split()
with tempfile.TemporaryDirectory() as d:
    for compiler in ("g++", "clang++"):
        if not shutil.which(compiler):
            continue
        for name, description in MODELS.items():
            unit = pathlib.Path(d) / "unit.cpp"
            unit.write_text(UNIT % description if description else "#include <multistage/multistage.hpp>\n")
            begin = time.monotonic()
            p = subprocess.Popen([compiler, "-std=c++20", *flags, "-Wno-missing-braces", "-c", str(unit), "-o", str(unit) + ".o", f"-I{ROOT / 'include'}", "-isystem", "/usr/include/eigen3"])
            _, status, usage = os.wait4(p.pid, 0)
            print(f"{compiler:8} {name:32} {time.monotonic() - begin:6.1f} s {usage.ru_maxrss / 1024:7.0f} MiB" + ("" if status == 0 else "  FAILED"), flush=True)
