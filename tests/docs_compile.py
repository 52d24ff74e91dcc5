"""Every program in README.md and docs/ compiles as it stands: the cpp blocks that have a main. Those that begin with "// runs" are run, too."""
import pathlib, re, subprocess, sys, tempfile

source, compiler = pathlib.Path(sys.argv[1]), sys.argv[2]
flags = subprocess.run(["pkg-config", "--cflags", "eigen3", "cairo"], capture_output=True, text=True, check=True).stdout.split()
bad = count = 0
for page in [source / "README.md", *sorted((source / "docs").glob("*.md"))]:
    for block in re.findall(r"```cpp\n(.*?)```", page.read_text(), re.S):
        if "int main" not in block:
            continue
        count += 1
        runs = block.startswith("// runs")
        program = pathlib.Path(tempfile.gettempdir()) / f"multistage-docs-{page.stem}"
        r = subprocess.run([compiler, "-std=c++20", *(["-O2", "-march=native", "-pthread", "-o", str(program)] if runs else ["-fsyntax-only"]), "-Wall", "-Wextra", "-Wno-missing-braces", f"-I{source / 'include'}", *flags, "-x", "c++", "-"], input=block, capture_output=True, text=True)
        if r.returncode or "warning" in r.stderr:
            bad += 1
            print(f"{page.name}:\n{r.stderr[:3000]}")
        elif runs:
            out = subprocess.run([str(program)], capture_output=True, text=True, timeout=300)
            program.unlink()
            print(f"{page.name}: {out.stdout.strip()}")
            bad += out.returncode != 0
print(f"{count} programs, {bad} with errors or warnings")
sys.exit(bool(bad) or count == 0)
