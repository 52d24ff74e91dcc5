"""The Eigen backend needs no flags, no compiler of its own and no vector registers: a model that trains and draws is built without -march by every
compiler at hand, without Eigen's vectors, and in double and long double; all draw the same pictures. (float is golden_eigen's.)
usage: eigen_portable.py SOURCE COMPILER"""
import pathlib, shutil, subprocess, sys, tempfile

source, compiler = pathlib.Path(sys.argv[1]), sys.argv[2]
eigen = subprocess.run(["pkg-config", "--cflags", "eigen3"], capture_output=True, text=True, check=True).stdout.replace("-I", "-isystem ").split()
# compiler, scalar, flags, how far pictures may be from those in long double (ten steps of Adam and four of Heun's grow rounding)
BUILDS = [
    (compiler, "long double", [], 0),
    (compiler, "double", ["-DEIGEN_DONT_VECTORIZE", "-pedantic-errors"], 1e-10),
    ("clang++", "double", [], 1e-10),
]
want, bad = None, 0
with tempfile.TemporaryDirectory() as directory:
    program = pathlib.Path(directory) / "program"
    for name, scalar, flags, bar in BUILDS:
        if not shutil.which(name):
            print(f"{name} is not here: left out")
            continue
        command = [name, "-std=c++20", "-O0", "-Wall", "-Wextra", "-Wno-missing-braces", *flags, f"-DSCALAR={scalar}", f"-I{source / 'include'}", *eigen,
                   str(source / "tests" / "eigen_portable.cpp"), "-o", str(program), "-pthread"]
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode or "warning" in built.stderr:
            print(built.stderr[:3000])
            bad += 1
            continue
        got = [float(line) for line in subprocess.run([str(program)], capture_output=True, text=True, check=True, timeout=300).stdout.split()]
        want = want or got
        worst = max(abs(a - b) for a, b in zip(got, want, strict=True))
        ok = len(got) == 128 and max(map(abs, want)) > 0.1 and worst <= bar
        bad += not ok
        print(f"{'ok  ' if ok else 'FAIL'} {name} {scalar} {' '.join(flags)}: {len(got)} values, at most {worst:.2g} from long double")
sys.exit(bool(bad))
