"""Programs under mpirun give what they give by themselves: distributed_programs.py FOLDER_OF_PROGRAMS TRAIN_PROBE DIGITS SCRATCH MPIRUN...
Pictures to the bit, metrics to the last digit, boundaries of stages; errors once; other command lines and starts without MPI refused."""
import json, os, pathlib, re, shutil, subprocess, sys

programs, probe, digits, scratch, *mpirun = sys.argv[1:]
scratch = pathlib.Path(scratch)
shutil.rmtree(scratch, ignore_errors=True)
scratch.mkdir(parents=True)
bad = 0


def check(holds, *what):
    global bad
    if not holds:
        bad += 1
        print("FAIL", *[str(w)[:1500] for w in what])


def run(processes, program, *options, env={}):
    start = [*mpirun, str(processes)] if processes else []
    r = subprocess.run([*start, f"{programs}/{program}", *map(str, options), "--threads", "1"], cwd=scratch, capture_output=True, text=True, timeout=120,
                       env={**os.environ, **env})
    return r.returncode, r.stdout, r.stderr


subprocess.run([probe, "model.safetensors", "3"], cwd=scratch, check=True, capture_output=True)
model = "model.safetensors"

# pictures: a grid, an archive, a folder that is gone on with, fewer pictures than processes
for seeds in ("0-6", "5"):
    draw = ("--seeds", seeds, "--num-steps", 3, "--s-churn", 5, "--batch", 2)
    made = {}
    for n in (0, 3):
        for out in ("grid.png", "all.npz", "folder"):
            status, said, problem = run(n, "generate", model, *draw, "--out", f"{n}-{seeds}-{out}")
            check(status == 0 and said.count("written") == 1, "generate", n, out, status, said, problem)
        made[n] = [(scratch / f"{n}-{seeds}-{out}").read_bytes() for out in ("grid.png", "all.npz")]
        made[n] += [(p.name, p.read_bytes()) for p in sorted((scratch / f"{n}-{seeds}-folder").glob("*.png"))]
    check(made[0] == made[3], "pictures differ under mpirun", seeds)
(scratch / "3-0-6-folder" / "000004.png").unlink()
status, said, problem = run(2, "generate", model, "--seeds", "0-7", "--num-steps", 3, "--s-churn", 5, "--out", "3-0-6-folder")
check(status == 0 and "6 of 8 pictures are there already" in said, "a folder is gone on with", status, said, problem)
check((scratch / "3-0-6-folder" / "000004.png").read_bytes() == (scratch / "0-0-6-folder" / "000004.png").read_bytes(), "the picture drawn anew differs")

# a picture that one process cannot write
(scratch / "blocked" / "000006.png" / "x").mkdir(parents=True)
status, said, problem = run(3, "generate", model, "--seeds", "0-6", "--num-steps", 3, "--out", "blocked")
check(status not in (0, None) and problem.count("000006.png") == 1 and "rank 2 (" in problem and (scratch / "blocked" / "000000.png").exists(), "a failing rank", status, said, problem)

# metrics and curves
figures = [run(n, "evaluate", digits, "0-0-6-folder", "--features", "random", "--kid-size", 5, "--json") for n in (0, 2, 4)]
check(all(f[0] == 0 and f[1] == figures[0][1] and "frechet" in f[1] for f in figures), "evaluate", figures)
curves = [run(n, "evaluate", digits, model, "--steps", "2,3", "--seeds", "0-8", "--json", "--out", f"curve{n}.png") for n in (0, 3)]
check(all(c[0] == 0 and c[1] == curves[0][1] and "curve" in c[1] for c in curves), "evaluate --steps", curves)

# stages
few = ("--limit", 60, "--draws", 128, "--nodes", 5, "--replicates", 20, "--alpha", 0.8)
found = []
for n in (0, 3):
    status, said, problem = run(n, "cluster", digits, *few, "--out", f"stages{n}")
    check(status == 0 and said.count("written") == 3, "cluster", n, status, said, problem)
    found.append(json.loads((scratch / f"stages{n}" / "clustering.json").read_text()))
check(found[0]["boundaries_t"] == found[1]["boundaries_t"] and found[0]["images"] == found[1]["images"] == 60, "stages differ", found)

# training: one run by each number of processes, and one that goes on with another
def state(folder):
    """Weights, moments and counters; what the run was told aside."""
    data = (scratch / folder / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"].pop("run")
    counters = json.loads(header["__metadata__"].pop("training"))
    counters.pop("options")
    return header, counters, data[8 + size :]


small = "--preset quickstart --encoder-channels 8 --decoder-channels 12,8,8 --norm-groups 4 --batch 64 --draws 256 --nodes 9 --stage-images 300".split()
few = "--snapshot-seeds 0-3 --frechet-images 16 --snapshot-steps 4 --hours 0 --snapshot 1".split()
data = ("--data", digits, "--largest", 16, "--cache", "cache")
for n, folder, *options in ((0, "one", "--kimg", 2), (3, "three", "--kimg", 2), (2, "parts", "--kimg", 1, "--shard-state", "true")):
    status, said, problem = run(n, "train", *small, *few, *data, "--out", folder, *options)
    check(status == 0 and said.count("finished") == 1, "train", n, status, said, problem)
status, said, problem = run(3, "train", "--resume", "--out", "parts", "--kimg", 2, "--stage-begins", "1,2")
check(status == 0 and said.count("finished") == 1, "train --resume", status, said, problem)
check(state("one") == state("three") and state("one") == state("parts"), "training differs under mpirun")
check([p.read_bytes() for p in sorted((scratch / "one/snapshots").glob("*.png"))] == [p.read_bytes() for p in sorted((scratch / "three/snapshots").glob("*.png"))], "snapshots differ")
line = json.loads((scratch / "three/log.jsonl").read_text().splitlines()[0])
check(line["bytes_sent"] > 0 and line["seconds_exchanging"] >= line["seconds_hidden"] >= 0 and line["step_seconds"] > 0, "what was sent is in the log", line)

# what is wrong is said once; nothing hangs
for program, options, words in (("generate", ("nothing.safetensors",), "nothing.safetensors"), ("generate", (model, "--num-steps", "x"), "num-steps"),
                                ("evaluate", (digits, "nowhere"), "nowhere"), ("cluster", (digits, "--stages", 4), "Algorithm 1"),
                                ("generate", (model, "--no-such-option"), "no-such-option"), ("train", ("--resume", "--out", "nothing"), "holds no run"),
                                ("train", (*["16" if word == "64" else word for word in small], *few, *data, "--out", "little", "--kimg", 1), "more shards"),
                                ("train", (*small, *few, *data, "--out", "odd", "--kimg", 1, "--micro-batch", 5), "no multiple")):
    status, said, problem = run(3, program, *options)
    lines = [line for line in (said + problem).splitlines() if words in line and "mpirun" not in line]
    check(status == 2 and len(lines) == 1, program, *options, "ends with", status, said, problem)
r = subprocess.run([*mpirun, "1", f"{programs}/generate", model, "--seeds", "0", ":", *mpirun[-1:], "1", f"{programs}/generate", model, "--seeds", "1"],
                   cwd=scratch, capture_output=True, text=True, timeout=60)
check(r.returncode != 0 and "argument 3 is 1" in r.stderr and "argument 3 is 0" in r.stderr, "other options on rank 1", r.returncode, r.stderr)
status, said, problem = run(0, "generate", model, env={"RANK": "0", "WORLD_SIZE": "2"})
check(status == 2 and "mpirun -n 2" in problem and not said, "torchrun's variables", status, said, problem)
status, said, problem = run(0, "generate", model, env={"PMI_RANK": "0", "PMI_SIZE": "2"})
check(status == 2 and "another MPI" in problem and not said, "the mpirun of another MPI", status, said, problem)
print("programs under mpirun:", "wrong" if bad else "as by themselves")
sys.exit(bool(bad))
