"""train: a run from data to pictures, ended by SIGTERM and a limit, gone on with, refused to a second process: train_end_to_end.py TRAIN GENERATE
DIGITS.npy SCRATCH. What it must keep is compared with a run that nobody interrupted; what is wrong ends with status 2 and one line."""
import json, os, pathlib, re, resource, shutil, signal, struct, subprocess, sys

train, generate, digits, scratch = sys.argv[1:5]
scratch = pathlib.Path(scratch)
shutil.rmtree(scratch, ignore_errors=True)
scratch.mkdir(parents=True)
bad = 0
MODEL = "--preset quickstart --encoder-channels 8 --decoder-channels 12,8,8 --norm-groups 4 --batch 32 --threads 2".split()
FEW = "--draws 256 --nodes 9 --stage-images 300 --snapshot-seeds 0-3 --frechet-images 16 --snapshot-steps 4 --hours 0".split()
DATA = ["--data", digits, "--largest", "16", "--cache", str(scratch / "cache")]


def check(condition, *what):
    global bad
    if not condition:
        bad += 1
        print("FAIL", *what)


def run(*options):
    r = subprocess.run([train, *map(str, options)], capture_output=True, text=True, timeout=120)
    return r.returncode, r.stdout, r.stderr


def refused(text, *options):
    status, out, err = run(*options)
    errors = [l for l in err.splitlines() if l.startswith("error: ")]
    check(status == 2 and len(errors) == 1 and text in errors[0], "expected", text, "got", status, out, err)


def header(path):
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size])


def state(path):
    """Weights, moments and counters; what the run was told aside."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    h = json.loads(data[8 : 8 + size])
    h["__metadata__"].pop("run")
    return h, data[8 + size :]


# A run to its end: everything is there, and its configuration says where values came from.
whole = scratch / "whole"
status, out, err = run(*MODEL, *FEW, *DATA, "--out", whole, "--kimg", 3, "--snapshot", 1)
check(status == 0 and "finished after 3" in out, status, out, err)
for name in ("config.json", "stages.json", "log.jsonl", "model.safetensors", "report.html"):
    check((whole / name).is_file() and (whole / name).stat().st_size > 0, name, "is missing")
config = json.loads((whole / "config.json").read_text())
check(config["origins"]["model.encoder_channels"] == "command line" and config["origins"]["model.resolution"] == "data", config["origins"])
check(config["model"]["decoder_channels"] == [12, 8, 8] and config["model"]["resolution"] == 8 and config["model"]["channels"] == 1, config["model"])
check(abs(config["model"]["sigma_data"] - 0.752) < 0.001, config["model"]["sigma_data"])  # a fact of the digits
check(json.loads(header(whole / "model.safetensors")["__metadata__"]["run"])["training"]["batch_size"] == 32, "the checkpoint holds no configuration")
grids = sorted((whole / "snapshots").glob("*.png"))
check([int(g.stem) for g in grids] == [1024, 2016, 3008] and all(g.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for g in grids), grids)
lines = [json.loads(l) for l in (whole / "log.jsonl").read_text().splitlines()]
losses = [l for l in lines if "loss" in l]
check(losses[-1]["images"] == 3008 and all(len(l["loss"]) == 3 and l["peak_memory"] > 1e6 for l in losses), losses[-1])
distances = [l for l in lines if "frechet_distance" in l]
check(distances and all(l["n"] == 16 and "hash" in l["features"] and l["frechet_distance"] > 0 for l in distances), distances)
page = (whole / "report.html").read_text()
for text in ("Loss of each stage", "How alike the optimal denoisers", "training.batch_size", "preset quickstart", "hash"):
    check(text in page, text, "is not on the page")
r = subprocess.run([generate, str(whole), "--seeds", "0-3", "--out", str(scratch / "samples.png")], capture_output=True, text=True)  # the run's newest
check(r.returncode == 0, r.stderr)
r = subprocess.run([generate, str(whole / "snapshots"), "--out", str(scratch / "none.png")], capture_output=True, text=True)
check(r.returncode == 2 and "a folder without model.safetensors" in r.stderr, r.returncode, r.stderr)

# The stages are known the next time; the same run, stopped in the middle by a limit and by signals, ends with the same weights.
parts = scratch / "parts"
status, out, err = run(*MODEL, *FEW, *DATA, "--out", parts, "--kimg", 3, "--steps", 20, "--snapshot", 1, "--animation", "false")
check(status == 0 and "known from before" in out and "--resume --out" in out, status, out, err)
with subprocess.Popen([train, "--resume", "--out", str(parts), "--steps", "0", "--kimg", "1000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as p:
    p.stderr.readline()  # it trains
    refused("another run is at work there", "--resume", "--out", parts)
    p.send_signal(signal.SIGTERM)
    out = p.stdout.read()
    check(p.wait(timeout=60) == 128 + signal.SIGTERM and "stopped by signal 15" in out and "--resume --out" in out, p.returncode, out)
# Killed, and on a disk that takes no checkpoint: the last good one stays.
with subprocess.Popen([train, "--resume", "--out", str(parts), "--kimg", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as p:
    p.stderr.readline()
    p.kill()
before = (parts / "model.safetensors").read_bytes()
limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, len(before) // 2))
full = subprocess.run([train, "--resume", "--out", str(parts), "--kimg", "1000", "--steps", "20"], capture_output=True, text=True, timeout=120, preexec_fn=limit)
check(full.returncode == 2 and "writing failed" in full.stderr and "is unchanged" in full.stderr, full.returncode, full.stderr)
check((parts / "model.safetensors").read_bytes() == before, "a full disk harmed the checkpoint")
seen = json.loads(header(parts / "model.safetensors")["__metadata__"]["training"])["images_seen"]
target = max(3, int(seen // 1000 + 1))
for run_of in (whole, parts):
    status, out, err = run("--resume", "--out", run_of, "--kimg", target, "--steps", 0)
    check(status == 0, status, out, err)
check(state(whole / "model.safetensors") == state(parts / "model.safetensors"), "stopped and resumed, the weights differ")
kept = sorted(p.name for p in parts.glob("model*.safetensors"))
check(len(kept) == 2 and re.fullmatch(r"model-\d{8}\.safetensors", kept[0]), kept)

# What is wrong is said, and where.
refused("holds a run already", *MODEL, *FEW, *DATA, "--out", whole, "--kimg", 1)
refused("--stages has no effect", "--resume", "--out", whole, "--stages", 2, "--kimg", 1000)
refused("--encoder-channels has no effect", "--resume", "--out", whole, "--encoder-channels", 16, "--kimg", 1000)
refused("--preset small-64 has no effect", "--resume", "--out", whole, "--preset", "small-64", "--kimg", 1000)
status, out, err = run(*MODEL, *FEW, *DATA, "--out", parts, "--kimg", 1, "--resume")  # the command that began it
check(status == 0 and "has seen its" in out, "the same command with --resume", status, out, err)
refused("holds no run to go on with", "--resume", "--out", scratch / "nothing")
refused("would never end", *MODEL, *DATA, "--out", scratch / "endless", "--hours", 0)
refused("no data are named", "--out", scratch / "none", "--kimg", 1)
refused("nobody.npy", "--data", scratch / "nobody.npy", "--out", scratch / "none", "--kimg", 1)
refused("--num-heads is no option", *MODEL, *DATA, "--num-heads", 2, "--out", scratch / "none", "--kimg", 1)
refused("--learning-rate", *MODEL, *DATA, "--learning-rate", "fast", "--out", scratch / "none", "--kimg", 1)
refused("--p-mean has no effect without --levels log_normal", *MODEL, *DATA, "--levels", "time_uniform", "--p-mean", 1, "--out", scratch / "none", "--kimg", 1)
refused("has no effect without --augment edm", *MODEL, *DATA, "--rotate-int", 1, "--out", scratch / "none", "--kimg", 1)
refused("quickstart, small-32", "--preset", "mine", "--print-config")
broken = scratch / "broken.json"
for text, words in (
    ('{"training": {"lerning_rate": 1}}', "training: 'lerning_rate'"),
    ('{\n "training": {"learning_rate": 1,}}', "line 2"),
    ('{"training": {"learning_rate": -1}}', "learning_rate = -1"),
    ('{"optimiser": {}}', "'optimiser' is no section"),
    ('{"model": {"num_blocks": "many"}}', "model: configuration: 'num_blocks'"),
    ("[]", "not a JSON object"),
):
    broken.write_text(text)
    refused(words, "--config", broken, "--print-config")
check(not (scratch / "none").exists() and not (scratch / "endless").exists(), "folders of runs that never began")

# One picture has no three stages, which ends a run before its first checkpoint; it can be begun anew.
head = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 8, 8), }".ljust(117) + "\n"
npy = lambda values: b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + bytes(values)
one, flat = scratch / "one.npy", scratch / "flat.npy"
one.write_bytes(npy(range(64)))
flat.write_bytes(npy([7] * 64))
SMALL = (*MODEL, *FEW, "--cache", "none", "--features", "none", "--steps", 2, "--out", scratch / "once")
refused("--stages 3, the best three", *SMALL, "--data", one)
refused("nothing to learn", *SMALL, "--data", flat)
status, out, err = run(*SMALL, "--data", one, "--stages", "1")
check(status == 0 and "one for all noise levels" in json.loads((scratch / "once/stages.json").read_text())["how"], status, out, err)

# A checkpoint that was cut off is told with the one before it, from which the run goes on.
cut, newest = scratch / "cut", parts / "model.safetensors"
shutil.copytree(parts, cut)
(cut / "model.safetensors").write_bytes(newest.read_bytes()[:-100])
refused(str(cut / kept[0]), "--resume", "--out", cut, "--kimg", target + 1)
(cut / "model.safetensors").unlink()
refused(str(cut / kept[0]), "--resume", "--out", cut, "--kimg", target + 1)
refused(str(cut / kept[0]), *MODEL, *FEW, *DATA, "--out", cut, "--kimg", 1)
shutil.copy(cut / kept[0], cut / "model.safetensors")
status, out, err = run("--resume", "--out", cut, "--kimg", target)
check(status == 0 and state(newest) == state(cut / "model.safetensors"), "gone on with from the one before", status, out, err)

# A run keeps to its memory, with all its snapshots, their animation and the search for stages; what is too little is said, with what is enough.
WIDE = (*MODEL, *DATA[:-2], "--cache", "none", "--draws", 256, "--nodes", 9, "--stage-images", 300, "--snapshot-seeds", "0-399", "--frechet-images", 4096, "--snapshot-steps", 2, "--snapshot", 0.2, "--kimg", 1, "--hours", 0)
status, out, err = run(*WIDE, "--out", scratch / "little", "--memory", "1M")
check(status == 2 and "are needed to find the stages" in err, status, out, err)
status, out, err = run(*WIDE, "--out", scratch / "less", "--stages", "0.5,20", "--memory", "1M")
least = re.search(r"the least is (\d+)", err)
check(status == 2 and least, status, out, err)
given = int(least[1]) + (2 << 20) if least else 0  # processes do not begin alike
with subprocess.Popen([train, *map(str, WIDE), "--out", str(scratch / "little"), "--memory", str(given)], stdout=subprocess.DEVNULL) as p:
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
check(p.returncode == 0 and given / 2 < usage.ru_maxrss * 1024 <= given, "memory", given, usage.ru_maxrss * 1024, p.returncode)

# A configuration that was printed is one that can be given, for every preset.
status, out, err = run("--list-presets")
names = [line.split()[0] for line in out.splitlines()]
check(status == 0 and len(names) == 7, out)
for name in names:
    for form in ("", "-unified", "-separate"):
        status, out, err = run("--print-config", "--json", "--preset", name + form)
        check(status == 0, name + form, err)
        (scratch / "printed.json").write_text(out)
        status, again, err = run("--print-config", "--json", "--preset", name + form, "--config", scratch / "printed.json")
        check(status == 0 and json.loads(again) == json.loads(out), name + form, err)
status, table, err = run("--print-config", "--preset", "quickstart", "--kimg", 5)
check(re.search(r"^  kimg +5\.0 +command line$", table, re.M) and re.search(r"^  batch_size +128 +preset quickstart$", table, re.M), table)

# The page on training names every option.
page = (pathlib.Path(__file__).parent.parent / "docs/training.md").read_text()
status, out, err = run("--help")
flags = {flag for line in out.splitlines() if re.match(" +-", line) for flag in re.findall(r"--[\w.-]+", line.split("  ")[1])}
check(status == 0 and len(flags) > 150, "options in --help", len(flags))
unnamed = sorted(flag for flag in flags if not re.search(re.escape(flag) + r"(?![\w.-])", page))
check(not unnamed, "docs/training.md does not name", unnamed)
named = set(re.findall(r"`(--[\w.-]+)", page))
check(named <= flags | {"--std"}, "docs/training.md names what there is not", sorted(named - flags))
print("bad:", bad)
sys.exit(bool(bad))
