"""Programs that must not compile, and the message that must say why: each file's first line holds it."""
import pathlib, subprocess, sys

source, compiler = pathlib.Path(sys.argv[1]), sys.argv[2]
bad = 0
for path in sorted((source / "tests" / "compile_fail").glob("*.cpp")):
    want = path.read_text().splitlines()[0].removeprefix("// ").strip()
    r = subprocess.run([compiler, "-std=c++20", "-fsyntax-only", f"-I{source / 'include'}", "-isystem", "/usr/include/eigen3", str(path)], capture_output=True, text=True)
    good = path.stem.startswith("ok_")
    if good and r.returncode or not good and (r.returncode == 0 or want not in r.stderr):
        bad += 1
        print(f"{path.name}: expected {'success' if good else repr(want)}, got status {r.returncode}:\n{r.stderr[:2500]}")
    else:
        first = next((line for line in r.stderr.splitlines() if "error" in line), "")
        print(f"ok {path.name}: {first[:240]}")
sys.exit(bool(bad))
