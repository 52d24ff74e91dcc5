"""Programs that must not compile, and the message that must say why and name the remedy. A file's head:
  // the text that must be there
  // also: more of it                  (any number)
  // with: -std=c++17                  (other flags than -std=c++20)
  // lines: 30                         (at most, of all that the compiler says; 40 where it is left out)
Names beginning with ok_ must compile without a word, -Wall and -Wextra on. Each goes through the build's compiler, and clang++ where it is."""
import pathlib, shutil, subprocess, sys

source, compilers = pathlib.Path(sys.argv[1]), [sys.argv[2]]
if shutil.which("clang++") and "clang" not in sys.argv[2]:
    compilers.append("clang++")
bad = 0
for path in sorted((source / "tests" / "compile_fail").glob("*.cpp")):
    head = [line[3:].strip() for line in path.read_text().splitlines() if line.startswith("// ")]
    of = lambda key: [line.removeprefix(key).strip() for line in head if line.startswith(key)]
    wants, flags = [head[0], *of("also:")], (of("with:") or ["-std=c++20"])[0].split()
    most = int((of("lines:") or ["40"])[0])
    good = path.stem.startswith("ok_")
    for compiler in compilers:
        command = [compiler, *flags, *(["-Wall", "-Wextra"] if good else []), "-fsyntax-only", f"-I{source / 'include'}", "-isystem", "/usr/include/eigen3", str(path)]
        r = subprocess.run(command, capture_output=True, text=True)
        lines = r.stderr.count("\n")
        missing = [] if good else [w for w in wants if w not in r.stderr]
        if (good and (r.returncode or r.stderr)) or not good and (r.returncode == 0 or missing or lines > most):
            bad += 1
            print(f"{path.name}, {compiler}: expected {'success without a word' if good else missing or f'at most {most} lines'}, got status {r.returncode}, {lines} lines:\n{r.stderr[:2500]}")
        else:
            first = next((line for line in r.stderr.splitlines() if "error" in line), "")
            print(f"ok {path.name}, {compiler}, {lines} lines: {first[:240]}")
sys.exit(bool(bad))
