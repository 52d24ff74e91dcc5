"""Every header compiles as a translation unit of its own (those for nvcc aside)."""
import concurrent.futures, pathlib, subprocess, sys

source, compiler, flags = pathlib.Path(sys.argv[1]), sys.argv[2], [f for f in sys.argv[3:] if f]
root = source / "include" / "multistage"
headers = [p for p in sorted(root.rglob("*.hpp")) if "backend/cuda" not in p.as_posix() and p.name != "cuda.hpp"]


def flags_of(package):
    return subprocess.run(["pkg-config", "--cflags", package], capture_output=True, text=True, check=True).stdout.split()


mpi = subprocess.run(["pkg-config", "--cflags", "ompi-cxx"], capture_output=True, text=True)
if mpi.returncode:
    headers = [p for p in headers if p.name != "mpi.hpp"]
extra = [*mpi.stdout.split(), "-DOMPI_SKIP_MPICXX", "-isystem", "/usr/include/eigen3", *flags_of("eigen3"), *flags_of("cairo"), *flags_of("libpng"), "-DMULTISTAGE_JPEG", "-DMULTISTAGE_WEBP", "-DTHRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_CPP", f"-I{source / 'include'}"]


def check(header):
    unit = f"#include <multistage/{header.relative_to(root).as_posix()}>\n#include <multistage/{header.relative_to(root).as_posix()}>\n"
    r = subprocess.run([compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wextra", "-Wno-missing-braces", *flags, *extra, "-x", "c++", "-"], input=unit, capture_output=True, text=True)
    return header, r.returncode, r.stderr


bad = 0
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    for header, code, text in pool.map(check, headers):
        if code or "warning" in text:
            bad += 1
            print(f"{header.relative_to(root)}:\n{text[:3000]}")
print(f"{len(headers)} headers, {bad} with errors or warnings")
sys.exit(bool(bad))
