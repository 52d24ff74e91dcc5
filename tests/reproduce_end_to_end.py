"""reproduce in its smallest form: reproduce_end_to_end.py FOLDER_OF_PROGRAMS PROJECT SCRATCH. A run that was stopped gives the lines of one that was not; what a cell
says is recomputed here and by other programs: compute from the images it saw, quality from its checkpoint, intervals and verdicts from its lines."""
import json, math, pathlib, re, shutil, signal, struct, subprocess, sys, time

programs, project, scratch = (pathlib.Path(p).resolve() for p in sys.argv[1:4])
shutil.rmtree(scratch, ignore_errors=True)
scratch.mkdir(parents=True)
DIGITS = project / "examples/data/digits.npy"
COMMAND = ["--experiment", project / "examples/reproduce.json", "--scale", "tiny", "--data", project / "examples/data", "--table", "4"]
bad = 0


def check(condition, *what):
    global bad
    if not condition:
        bad += 1
        print("FAIL", *what)


def run(program, *options, **more):
    return subprocess.run([str(programs / program), *map(str, options)], capture_output=True, text=True, timeout=300, cwd=scratch, **more)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_clocks(path):
    return [{k: v for k, v in line.items() if "seconds" not in k} for line in lines(path)]


# --- Philox 4x32-10, as golden/random has it, and the split that holds images out -----------------------------------------------------------
def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & 0xFFFFFFFF, (a >> 32) ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def below(seed, stream, element, bound):
    i = element // 4
    words = philox((i & 0xFFFFFFFF, i >> 32, stream & 0xFFFFFFFF, stream >> 32), (seed & 0xFFFFFFFF, seed >> 32))
    return words[element % 4] * bound >> 32


def held_out(count, held, seed, purpose):
    order = list(range(count))
    for i in range(count - 1, 0, -1):
        j = below(seed, purpose << 48, i, i + 1)
        order[i], order[j] = order[j], order[i]
    return order[:held]


# --- One run that is left alone, by two processes; one that is stopped again and again -------------------------------------------------------
whole, stopped = scratch / "whole", scratch / "stopped"
other = subprocess.Popen([str(programs / "reproduce"), str(whole), *map(str, COMMAND), "--worker"], stderr=subprocess.DEVNULL)
r = run("reproduce", whole, *COMMAND)
check(r.returncode == 0 and other.wait(timeout=60) == 0, r.returncode, r.stdout, r.stderr)
stops = 0
while True:
    p = subprocess.Popen([str(programs / "reproduce"), str(stopped), *map(str, COMMAND)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, err = p.communicate(timeout=0.6 * 2**stops)
    except subprocess.TimeoutExpired:
        p.send_signal(signal.SIGTERM)
        out, err = p.communicate(timeout=60)
    if p.returncode == 0:
        break
    # Before and behind the cells, where nothing is lost, the signal ends it as usual.
    check(p.returncode == -signal.SIGTERM or (p.returncode == 128 + signal.SIGTERM and "the same command goes on" in out), p.returncode, out, err)
    stops += 1
    if stops > 60 or bad:
        break
cells = sorted(path.name for path in (whole / "cells").glob("*.jsonl"))
check(len(cells) == 14 and cells == sorted(path.name for path in (stopped / "cells").glob("*.jsonl")), cells)
for name in cells:
    check(without_clocks(whole / "cells" / name) == without_clocks(stopped / "cells" / name), name, "differs from the run that was stopped", stops)
for name in ("report.html", "evidence.md", "figures/table-4-1-curves.png"):
    check((whole / name).stat().st_size > 1000, name)

# --- Compute is images times multiply-accumulates, and ends behind the step that reaches the budget --------------------------------------------
for name in cells:
    found = lines(whole / "cells" / name)
    start, points = found[0], [l for l in found if l["kind"] == "point"]
    check(found[-1] == {"kind": "end"}, name, found[-1])
    for point in points:
        limit, batch = point["share"] * start["budget"], 16
        check(point["spent"] >= limit and point["spent"] - batch * max(start["macs"]) < limit, name, point, start["macs"])
        check(point["images"] % batch == 0 and min(start["macs"]) <= point["spent"] / point["images"] <= max(start["macs"]), name, point)
unified = lines(whole / "cells" / "edm-unified.seed0.jsonl")
check(unified[-2]["spent"] == unified[-2]["images"] * unified[0]["macs"][0], unified[-2])
check(unified[-2]["sampling_macs"] == unified[-2]["evaluations"] * unified[0]["macs"][0], unified[-2])

# --- Quality of a cell, by its checkpoint: generate draws, evaluate measures against the images that this script finds to be held out ------------
raw = DIGITS.read_bytes()
size = struct.unpack("<H", raw[8:10])[0]
shape = [int(n) for n in re.search(r"'shape': \(([^)]*)\)", raw[10 : 10 + size].decode()).group(1).split(",") if n.strip()]
pixels = raw[10 + size :]
row = len(pixels) // shape[0]
purposes = re.search(r"enum class purpose[^{]*\{([^}]*)\}", (project / "include/multistage/core/random.hpp").read_text()).group(1)
names = [n.split("=")[0].strip() for n in re.sub(r"//[^\n]*", "", purposes).split(",")]
first = int(re.search(r"=\s*(\d+)", purposes).group(1)) if "=" in purposes else 0
kept = held_out(shape[0], 397, 1, first + names.index("split"))
header = raw[10 : 10 + size].decode().replace(f"({shape[0]},", "(397,").rstrip()
header = header.ljust(size - 1) + "\n"
(scratch / "held.npy").write_bytes(raw[:8] + struct.pack("<H", size) + header.encode() + b"".join(pixels[i * row : (i + 1) * row] for i in kept))
for name in ("edm-multi.seed1", "stages-snr.seed0"):
    seed = int(name[-1])
    model = whole / "cells" / f"{name}.safetensors"
    r = run("generate", model, "--seeds", f"{10**6 * (seed + 1)}-{10**6 * (seed + 1) + 15}", "--num-steps", 3, "--out", f"{name}.npz")
    check(r.returncode == 0, r.stdout, r.stderr)
    r = run("evaluate", "held.npy", f"{name}.npz", "--features", "random", "--reference-largest", 16, "--json")
    check(r.returncode == 0, r.stdout, r.stderr)
    measured = json.loads(r.stdout)
    told = [l for l in lines(whole / "cells" / f"{name}.jsonl") if l["kind"] == "point"][-1]
    # generate rounds pictures to 256 levels, which cells do not.
    check(abs(measured["frechet_distance"] / told["frechet"] - 1) < 0.01, name, measured, told)
    check(measured["precision"] == told["precision"] and abs(measured["recall"] - told["recall"]) <= 0.01, name, measured, told)
    check(told["evaluations"] == 5, told)  # 2 n - 1 of Heun's

# --- The search: each arm's rate and average are those of the least distance among its tries ---------------------------------------------------
tries = {rate: [l for l in lines(whole / "cells" / f"edm-multi.rate{rate}.jsonl") if l["kind"] == "average"] for rate in ("0.001", "0.004")}
best = min(((l["frechet"], float(rate), l["average_std"]) for rate, found in tries.items() for l in found))
for name in ("edm-multi.seed0", "edm-multi.seed1", "stages-snr.seed1"):
    start = lines(whole / "cells" / f"{name}.jsonl")[0]
    check((start["learning_rate"], start["average_std"]) == best[1:], name, start, best)

# --- Intervals and verdicts of the page, from the lines; t of one degree of freedom is 12.7062 -------------------------------------------------
def final(arm, seed):
    return [l for l in lines(whole / "cells" / f"{arm}.seed{seed}.jsonl") if l["kind"] == "point"][-1]["frechet"]


def interval(a, b):
    return (a + b) / 2, 12.706204736 * abs(a - b) / 2


table = [[c.strip() for c in line.split("|")[1:-1]] for line in (whole / "evidence.md").read_text().splitlines() if line.startswith("| multi-decoder")]
for text, arm in (("multi-decoder, SNR", "stages-snr"), ("multi-decoder, timesteps", "stages-timestep"), ("multi-decoder, gradients", "stages-gradient")):
    cells_of_row = next(r for r in table if r[0] == text)
    for shown, (mean, half) in ((cells_of_row[7], interval(final(arm, 0), final(arm, 1))),
                                (cells_of_row[11], interval(*(final(arm, s) - final("edm-multi", s) for s in (0, 1))))):
        numbers = [float(n) for n in re.findall(r"-?\d[\d.]*(?:e[-+]?\d+)?", shown)]
        check(math.isclose(numbers[0], mean, rel_tol=0.006) and math.isclose(numbers[1], half, rel_tol=0.006), text, shown, mean, half)
    verdict = "no difference seen" if half >= abs(mean) else "better" if mean < 0 else "worse"
    check(cells_of_row[11].endswith(": " + verdict), cells_of_row[11], verdict)

# --- An arm that cannot be made is left out, said, and costs the others nothing -----------------------------------------------------------------
broken = json.loads((project / "examples/reproduce.json").read_text())
arm = next(a for a in broken["arms"] if a["name"] == "stages-snr")
del arm["stages_by"]
arm.setdefault("run", {})["stages"] = {"stages": "20,0.5"}  # they do not ascend
(scratch / "broken.json").write_text(json.dumps(broken))
without = scratch / "without"
r = run("reproduce", without, "--experiment", "broken.json", *COMMAND[2:])
check(r.returncode == 2 and "arm 'stages-snr' cannot be made" in r.stderr and "1 arms could not be made" in r.stderr, r.returncode, r.stderr)
left = sorted(path.name for path in (without / "cells").glob("*.jsonl"))
check(left == [name for name in cells if "stages-snr" not in name], left)
for name in left:
    check(without_clocks(without / "cells" / name) == without_clocks(whole / "cells" / name), name, "differs where another arm was left out")
check((without / "report.html").exists())

# --- A table that comes later finds its cells trained, and measures what they lack: as if it had been there from the beginning -----------------
LATER = [*COMMAND[:-1], "reuse"]
alone = scratch / "alone"
for out in (whole, alone):
    r = run("reproduce", out, *LATER)
    check(r.returncode == 0, r.returncode, r.stdout, r.stderr)
for seed in (0, 1):
    drawn, expected = ([l for l in without_clocks(out / "cells" / f"edm-multi.seed{seed}.jsonl") if l["kind"] == "drawing"] for out in (whole, alone))
    check(len(drawn) == 3 and drawn == expected, seed, drawn, expected)

# --- Another experiment does not go on in a folder that holds one ------------------------------------------------------------------------------
r = run("reproduce", whole, *COMMAND, "--hours", 1)
check(r.returncode == 2 and "begun with other settings" in r.stderr, r.returncode, r.stderr)
print(f"{len(cells)} cells, stopped {stops} times, {bad} faults")
sys.exit(bad > 0)
