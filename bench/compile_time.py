"""What a user's translation unit costs to compile: user seconds and peak memory, for each compiler at hand.
Units with bars are always measured; --models adds models of several sizes, whose cost must not grow with them.
usage: compile_time.py [--flags "-O2 -march=native"] [--models] [--repetitions 1] [--root FOLDER]

On a machine that others use, user seconds grow, too: compare with another commit, measured beside (--root)."""
import argparse, os, pathlib, re, shutil, subprocess, tempfile

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
SONG = "ms::multi_decoder<ms::song_unet{%s}, ms::decoders{{%s}}>"
QUICKSTART = SONG % (
    ".resolution = 8, .channels = 1, .encoder_channels = 32, .channel_mult = {1, 2}, .num_blocks = 1, .attn_resolutions = {4}",
    "48, 32, 16",
)
MODELS = {
    "edm_cifar10_multistage": "ms::paper::edm_cifar10_multistage<>",
    "vp_cifar10_multistage": "ms::paper::vp_cifar10_multistage<>",
    "ldm_celeba256_multistage": "ms::paper::ldm_celeba256_multistage<>",
    "ldm_imagenet256_multistage": "ms::paper::ldm_imagenet256_multistage<>",
    "edm, 4 times the blocks": SONG
    % (".channel_mult = {2, 2, 2}, .num_blocks = 16, .attn_resolutions = {16}", "192, 128, 16"),
    "edm, 10 times the width": SONG
    % (".encoder_channels = 1280, .channel_mult = {2, 2, 2}, .attn_resolutions = {16}", "1920, 1280, 160"),
    "edm, 60 times the blocks": SONG
    % (".channel_mult = {2, 2, 2}, .num_blocks = 240, .attn_resolutions = {16}", "192, 128, 16"),
}


def program_of(page):
    """The first program with a main on a page of the documentation."""
    return next(text for text in re.findall(r"```cpp\n(.*?)```", page.read_text(), re.S) if "int main" in text)


def measured(command):
    """User seconds, peak MiB and status of a command."""
    _, status, usage = os.wait4(subprocess.Popen(command).pid, 0)
    return usage.ru_utime, usage.ru_maxrss / 1024, status


args = argparse.ArgumentParser()
args.add_argument("--flags", default="-O2 -march=native")
args.add_argument("--models", action="store_true")
args.add_argument("--repetitions", type=int, default=1, help="the least of so many is printed")
args.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent.parent)
given = args.parse_args()
# name: text, bar in user seconds (g++ 12, a calm machine), bar in MiB, what is defined
units = {
    "tensor.hpp alone": ("#include <multistage/tensor.hpp>\n", 1, None, []),
    "a unit that trains and samples": (UNIT % QUICKSTART, 8, None, []),
    "the same, multistage::compiled": (UNIT % QUICKSTART, 8, None, ["-DMULTISTAGE_COMPILED"]),
    "README's program": (program_of(given.root / "README.md"), 10, 700, []),
    "the same, multistage::compiled_io": (
        program_of(given.root / "README.md"),
        10,
        700,
        ["-DMULTISTAGE_COMPILED", "-DMULTISTAGE_COMPILED_IO"],
    ),
    "own-data.md's, pictures, progress": (program_of(given.root / "docs" / "own-data.md"), 10, 700, []),
}
if given.models:
    units |= {name: (UNIT % description, None, None, []) for name, description in MODELS.items()}
packages = ["pkg-config", "--cflags", "cairo", "libpng", "zlib"]
includes = subprocess.run(packages, capture_output=True, text=True, check=True).stdout.split()
includes += [f"-I{given.root / 'include'}", "-isystem", "/usr/include/eigen3"]
with tempfile.TemporaryDirectory() as directory:
    unit = pathlib.Path(directory) / "unit.cpp"
    for compiler in filter(shutil.which, ("g++", "clang++")):
        for name, (text, seconds_bar, memory_bar, defined) in units.items():
            unit.write_text(text)
            command = [compiler, "-std=c++20", *given.flags.split(), "-Wno-missing-braces", *defined, *includes]
            command += ["-c", str(unit), "-o", f"{unit}.o"]
            seconds, memory, status = min(measured(command) for _ in range(given.repetitions))
            bars = [f"{seconds_bar} s"] * (seconds_bar is not None) + [f"{memory_bar} MiB"] * (memory_bar is not None)
            line = f"{compiler:8} {name:34} {seconds:6.1f} s {memory:7.0f} MiB"
            print(line + (f"   bar {', '.join(bars)}" if bars else "") + ("  FAILED" if status else ""), flush=True)
