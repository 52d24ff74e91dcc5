"""The library in strict surroundings: strict.py PROJECT COMPILER
- all umbrellas by a plain -I, without a word under -Wall -Wextra -Wshadow -Wsign-conversion, by the build's compiler and by every clang++ that is installed;
- compiled and run with libstdc++'s checked containers (-D_GLIBCXX_DEBUG), and with libc++ by every clang++ that has it."""
import pathlib, shutil, subprocess, sys, tempfile

source, compiler = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
clangs = [c for c in ("clang++", *(f"clang++-{n}" for n in range(16, 24))) if shutil.which(c) and c not in compiler]
flags = ["-std=c++20", f"-I{source / 'include'}", "-DTHRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_CPP", "-Wall", "-Wextra", "-Wshadow", "-Wsign-conversion"]
packages = [["--cflags", "eigen3", "cairo", "libpng", "zlib"], ["--libs", "cairo", "libpng", "zlib"]]
cflags, libs = (subprocess.run(["pkg-config", *p], capture_output=True, text=True, check=True).stdout.split() for p in packages)
cflags = [f.replace("-I", "-isystem", 1) if f.startswith("-I") else f for f in cflags]  # others' headers are not ours to answer for
program = source / "tests" / "consumers" / "strict.cpp"
bad = 0


def compiled(name, command):
    global bad
    r = subprocess.run(command, capture_output=True, text=True)
    if r.returncode or r.stderr:
        bad += 1
        print(f"{name}: {' '.join(command)}\n{r.stderr[:3000]}")
        return False
    print(f"ok {name}")
    return True


def runs(name, command):
    global bad
    with tempfile.TemporaryDirectory() as d:
        if compiled(f"{name} compiles", [*command, *libs, "-pthread", "-o", f"{d}/strict"]):
            r = subprocess.run([f"{d}/strict", f"{d}/model.safetensors"], capture_output=True, text=True)
            bad += r.returncode != 0
            print(f"{'FAIL' if r.returncode else 'ok'} {name} runs: {(r.stdout + r.stderr).strip()}")


def has_libcxx(clang):
    probe = "#include <vector>\nint main() { return int(std::vector<int>(3).size()) - 3; }\n"
    return subprocess.run([clang, "-stdlib=libc++", "-x", "c++", "-", "-o", "/dev/null"], input=probe, capture_output=True, text=True).returncode == 0


for c in clangs:
    if has_libcxx(c):
        runs(f"{c} with libc++", [c, "-stdlib=libc++", "-O0", *flags, *cflags, str(program)])
    else:
        compiled(f"{c}, syntax", [c, "-fsyntax-only", *flags, *cflags, str(program)])
runs(f"{compiler} with checked containers", [compiler, "-D_GLIBCXX_DEBUG", "-O0", *flags, *cflags, str(program)])
sys.exit(bool(bad))
