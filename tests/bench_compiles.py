"""The benchmarks compile without a warning: bench_compiles.py PROJECT BUILD. Nobody runs them in a test, so that no code is made of them:
each goes through the front end of the build's compiler, by its own command of BUILD/compile_commands.json."""
import json, pathlib, shlex, subprocess, sys

bench, build = pathlib.Path(sys.argv[1]).resolve() / "bench", pathlib.Path(sys.argv[2])
commands = [c for c in json.loads((build / "compile_commands.json").read_text()) if pathlib.Path(c["file"]).parent == bench and c["file"].endswith(".cpp")]
bad = 0
for c in commands:
    words = shlex.split(c["command"])
    words = words[: words.index("-o")] + ["-fsyntax-only", c["file"]]
    r = subprocess.run(words, cwd=c["directory"], capture_output=True, text=True)
    if r.returncode or r.stderr:
        bad += 1
        print(f"{pathlib.Path(c['file']).name}:\n{r.stderr[:3000]}")
print(f"{len(commands)} benchmarks, {bad} with errors or warnings")
sys.exit(bool(bad) or not commands)
