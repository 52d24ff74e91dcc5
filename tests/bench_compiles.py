"""The benchmarks compile without a warning: bench_compiles.py PROJECT BUILD. Nobody runs them in a test, so that no code is made of them:
they go through the front end of the build's compiler, as one unit in which each has a namespace of its own, by the options of
BUILD/compile_commands.json. What they include comes first; #pragma once keeps it from being read again."""
import json, pathlib, re, shlex, subprocess, sys

bench, build = pathlib.Path(sys.argv[1]).resolve() / "bench", pathlib.Path(sys.argv[2])
commands = [c for c in json.loads((build / "compile_commands.json").read_text()) if pathlib.Path(c["file"]).parent == bench and c["file"].endswith(".cpp")]
if not commands:
    sys.exit("the build has no benchmarks")
options, unit, included = [], [], []
for c in sorted(commands, key=lambda c: c["file"]):
    words = shlex.split(c["command"])
    pairs = re.findall(r"-isystem \S+|\S+", " ".join(words[1 : words.index("-o")]))
    options += [p for p in pairs if p not in options]
    for line in pathlib.Path(c["file"]).read_text().splitlines():
        if line.startswith("#"):
            included.append(re.sub('#include "', f'#include "{bench}/', line))
        elif line and not line.startswith("//"):
            break
    name = pathlib.Path(c["file"]).stem
    unit += [f"namespace of_{name} {{", f'#include "{c["file"]}"', "}"]
command = [shlex.split(commands[0]["command"])[0], *(word for o in options for word in o.split()), "-Wno-return-type", "-fsyntax-only", "-x", "c++", "-"]  # main() may end without a return, of_ops::main() may not
r = subprocess.run(command, input="\n".join([*included, *unit, "int main() {}", ""]), cwd=commands[0]["directory"], capture_output=True, text=True)
print(f"{len(commands)} benchmarks, status {r.returncode}\n{r.stderr[:5000]}")
sys.exit(bool(r.returncode or r.stderr))
