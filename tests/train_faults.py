"""train, struck at random moments: train_faults.py TRAIN DIGITS.npy SCRATCH COUNT [SEED]
Killed, told to end by SIGTERM, or on a disk that takes no more, COUNT times; then gone on with to the end. With parts of batches, augmentation,
power functions' averages, the weights, moments and averages are those of a run that nobody struck, bit by bit. CI strikes a few
times; by hand: python3 tests/train_faults.py build/native/examples/train examples/data/digits.npy /tmp/faults 100"""
import json, os, pathlib, random, resource, shutil, signal, struct, subprocess, sys, time

train, digits, scratch, count = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4])
numbers = random.Random(int(sys.argv[5]) if len(sys.argv) > 5 else 1)
shutil.rmtree(scratch, ignore_errors=True)
scratch.mkdir(parents=True)
OPTIONS = ["--data", digits, "--largest", "16", "--cache", str(scratch / "cache")] + (
    "--preset quickstart --encoder-channels 8 --decoder-channels 12,8,8 --norm-groups 4 --batch 48 --micro-batch 16 --augment edm --average-stds 0.05,0.1 "
    "--lr-decay inverse_square_root --lr-decay-kimg 2 --draws 256 --nodes 9 --stage-images 300 --snapshot-seeds 0-3 --frechet-images 16 --snapshot-steps 4 "
    "--snapshot 2 --hours 0 --threads 1 --save-minutes 0.005 --animation false"
).split()


def state(path):
    """Weights, moments, averages and counters; what the run was told aside."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"].pop("run")
    return header, data[8 + size :]


def images_seen(path):
    return json.loads(state(path)[0]["__metadata__"]["training"])["images_seen"]


def started(out, *options, limit=None):
    command = [train, "--out", str(out)] + (["--resume"] if out.exists() else OPTIONS) + list(options)
    full_disk = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=full_disk)


struck, whole = scratch / "struck", scratch / "whole"
model = struck / "model.safetensors"
bad, by = 0, {"kill": 0, "term": 0, "disk": 0}
first = started(struck, "--kimg", "1000000", "--steps", "2")  # a folder to go on with
first.communicate(timeout=120)
for strike in range(count):
    kind = list(by)[strike % len(by)]
    by[kind] += 1
    limit = numbers.randrange(1, model.stat().st_size) if kind == "disk" else None
    p = started(struck, "--kimg", "1000000", "--steps", "0", limit=limit)
    if numbers.random() < 0.75:  # else perhaps before the first step
        p.stderr.readline()  # it trains
    time.sleep(numbers.uniform(0.02, 1.2))
    p.send_signal(signal.SIGKILL if kind == "kill" else signal.SIGTERM)
    said = p.communicate(timeout=120)[1]
    expected = {"kill": (-signal.SIGKILL,), "term": (128 + signal.SIGTERM, -signal.SIGTERM), "disk": (2, 128 + signal.SIGTERM, -signal.SIGTERM)}[kind]
    try:
        images_seen(model)
        sound = p.returncode in expected
    except Exception as e:  # whatever is wrong with the file
        sound, said = False, f"{e}\n{said}"
    if not sound:
        bad += 1
        print(f"FAIL strike {strike}, {kind}, limit {limit}: status {p.returncode}\n{said[-2000:]}")
seen = images_seen(model)
target = str(int(seen // 1000 + 1))
for out in (struck, whole):
    p = started(out, "--kimg", target, "--steps", "0")
    said = p.communicate(timeout=600)[1]
    if p.returncode != 0:
        bad += 1
        print(f"FAIL {out.name}: status {p.returncode}\n{said[-2000:]}")
same = state(model) == state(whole / "model.safetensors")
print(f"struck {count} times ({by}) in {seen:.0f} images: {'the same bits as' if same else 'NOT the same as'} a run to {target} kimg that nobody struck")
sys.exit(bool(bad or not same))
