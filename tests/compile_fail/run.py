"""Programs that must not compile, and the message that must say why and name the remedy. A file's head:
  // the text that must be there
  // also: more of it                  (any number)
  // with: -std=c++17                  (other flags than -std=c++20)
  // lines: 30                         (at most, of all that the compiler says; 40 where it is left out)
Names beginning with ok_ must compile without a word, -Wall and -Wextra on. run.py PROJECT COMPILER; with 77 where COMPILER is not installed.
The library is compiled once for all of them, except for those with flags of their own and those that must compile, which read it as users do."""
import pathlib, shutil, subprocess, sys, tempfile

source, compiler = pathlib.Path(sys.argv[1]), sys.argv[2]
if not shutil.which(compiler):
    print(f"{compiler} is not installed")
    sys.exit(77)
flags_of_all = [f"-I{source / 'include'}", "-isystem", "/usr/include/eigen3"]
folder = tempfile.TemporaryDirectory()
bad = 0


def precompiled(compiler):
    """Options by which a unit begins with the library, which has been read before."""
    header = pathlib.Path(folder.name) / "library.hpp"
    header.write_text("#include <multistage/multistage.hpp>\n")
    made = header.with_suffix(".hpp.pch" if "clang" in compiler else ".hpp.gch")
    subprocess.run([compiler, "-std=c++20", *flags_of_all, "-x", "c++-header", str(header), "-o", str(made)], check=True)
    return ["-include-pch", str(made)] if "clang" in compiler else ["-include", str(header)]


library = precompiled(compiler)
for path in sorted((source / "tests" / "compile_fail").glob("*.cpp")):
    head = [line[3:].strip() for line in path.read_text().splitlines() if line.startswith("// ")]
    of = lambda key: [line.removeprefix(key).strip() for line in head if line.startswith(key)]
    wants, flags = [head[0], *of("also:")], of("with:")[0].split() if of("with:") else []
    most = int((of("lines:") or ["40"])[0])
    good = path.stem.startswith("ok_")
    begin = [] if good or flags else library
    command = [compiler, *(flags or ["-std=c++20"]), *(["-Wall", "-Wextra"] if good else []), "-fsyntax-only", *flags_of_all, *begin, str(path)]
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
