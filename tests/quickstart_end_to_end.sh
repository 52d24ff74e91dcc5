#!/usr/bin/env bash
# The quickstart for a few seconds: all files are there and sound, signals save, --resume goes on, bad input gets status 2 and one line.
set -euo pipefail
quickstart=$1 work=$2/quickstart_test
rm -rf "$work" && mkdir -p "$work"
"$quickstart" "$work/out" --seconds 6 --threads 2 2>"$work/progress"
for f in samples.png nearest.png similarity.png loss.png denoising.png model.safetensors log.jsonl metrics.json report.html; do
  [ -s "$work/out/$f" ] || { echo "$f is missing"; exit 1; }
done
python3 - "$work/out" <<'P'
import json, sys
out = sys.argv[1]
m = json.load(open(out + "/metrics.json"))
for key in ("frechet_samples", "frechet_train", "seconds", "images_per_second", "stage_boundaries", "parameters", "seed"):
    assert key in m, key
assert m["parameters"] == 2074499 and len(m["stage_boundaries"]) == 2 and 0 < m["stage_boundaries"][0] < m["stage_boundaries"][1] < 80
assert 0.3 < m["frechet_train"] < 1.0, m["frechet_train"]  # a fact of the data and the split
assert m["frechet_samples"] < 42, m["frechet_samples"]     # clipped noise is at 47; six seconds leave it behind on a slow machine too (36 after three)
for key in ("command", "configuration", "machine", "compiler", "commit"):
    assert m[key], key
page = open(out + "/report.html").read()
for text in ("--seconds 6 --threads 2", m["commit"], "&quot;song_unet&quot;", "nearest training image"):
    assert text in page, text
assert "None of these digits exists" not in page
# Real digits that were kept from training: a fact of the data and the split, between the nearest neighbour's 0.15 and 0.35.
assert 0.15 < m["nearest_held_out"] < 0.35, m["nearest_held_out"]
assert 0 < m["nearest_samples"] and 0 <= m["copies"] <= 397
lines = [json.loads(l) for l in open(out + "/log.jsonl")]
assert len(lines) >= 3 and all(len(l["loss"]) == 3 for l in lines)
P
grep -q 'images/s  loss' "$work/progress"

fails() {  # expected text, arguments
  local want=$1 status=0
  shift
  "$quickstart" "$@" >"$work/log" 2>&1 || status=$?
  [ "$status" -eq 2 ] && grep -qF -- "$want" "$work/log" && [ "$(wc -l <"$work/log")" -le 3 ] || { echo "expected status 2 and '$want', got status $status:"; cat "$work/log"; exit 1; }
}
touch "$work/file"
fails 'cannot be made a directory' "$work/file" --seconds 1
fails 'cannot be opened' "$work/x" --data "$work/missing.npy"
fails 'not a sound npy file' "$work/x" --data "$work/file"
fails '--backend' "$work/x" --backend gpu
fails '--seconds' "$work/x" --seconds 0
fails '--seconds' "$work/x" --seconds -1
python3 - "$work" <<'P'
import struct, sys
def npy(path, shape, values):
    h = "{'descr': '|u1', 'fortran_order': False, 'shape': %s, }\n" % (shape,)
    open(path, "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(h)) + h.encode() + bytes(values))
npy(sys.argv[1] + "/constant.npy", (20, 8, 8), [3] * 1280)
npy(sys.argv[1] + "/wide.npy", (20, 4, 8), [i % 17 for i in range(640)])
P
fails 'are equal' "$work/x" --data "$work/constant.npy" --seconds 1
fails 'the model takes' "$work/x" --data "$work/wide.npy" --seconds 1
head -c 5000 "$work/out/model.safetensors" >"$work/cut"
mkdir -p "$work/broken" && cp "$work/cut" "$work/broken/model.safetensors"
fails 'not a sound safetensors file' "$work/broken" --resume --seconds 1
cmp "$work/cut" "$work/broken/model.safetensors"

# Ctrl-C and a scheduler's SIGTERM save, and --resume goes on from there; a second run in the same directory is refused meanwhile. A background job
# of a script ignores SIGINT unless it is given its own handling.
python3 - "$quickstart" "$work" <<'P'
import json, os, signal, struct, subprocess, sys, time
def steps(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        return json.loads(json.loads(f.read(n))["__metadata__"]["training"])["steps"]
quickstart, work = sys.argv[1:]
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    out = work + "/stop" + str(int(number))
    p = subprocess.Popen([quickstart, out, "--seconds", "60"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while not os.path.exists(out + "/log.jsonl") or os.path.getsize(out + "/log.jsonl") == 0:
        time.sleep(0.1)
    second = subprocess.run([quickstart, out, "--seconds", "1"], capture_output=True, text=True)
    assert second.returncode == 2 and f"another run is at work there: process {p.pid} on" in second.stderr, second
    p.send_signal(number)
    stdout, stderr = p.communicate(timeout=60)
    assert p.returncode == 128 + number and "--resume" in stderr, (p.returncode, stdout, stderr)
    before = steps(out + "/model.safetensors")
    assert before > 0
    with open(out + "/log.jsonl", "a") as f:
        f.write('{"step": 5, "im')  # as a crash would leave it
    # Without stderr: progress lines must not land in the log.
    subprocess.run(["bash", "-c", 'exec "$0" "$@" 2>&-', quickstart, out, "--seconds", "2", "--resume"], check=True, stdout=subprocess.DEVNULL)
    assert steps(out + "/model.safetensors") > before
    for line in open(out + "/log.jsonl"):
        assert "loss" in json.loads(line), line
    assert not [name for name in os.listdir(out) if name.startswith(".")], os.listdir(out)
# Other images than those of the run are refused, unless they are meant. Noise of eight kinds, that has stages.
def npy(path, values):
    h = "{'descr': '|u1', 'fortran_order': False, 'shape': (40, 8, 8), }\n"
    open(path, "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(h)) + h.encode() + bytes(values))
values = [(i * i * 7 + i // 64 * 5) % 17 for i in range(2560)]
npy(work + "/a.npy", values)
npy(work + "/b.npy", [(v + 1) % 17 if i % 64 == 0 else v for i, v in enumerate(values)])
def run(*more):
    command = [quickstart, work + "/images", "--seconds", "0.5", *more]
    return subprocess.run(command, capture_output=True, text=True)
first = run("--data", work + "/a.npy")
assert first.returncode == 0, first
other = run("--data", work + "/b.npy", "--resume")
assert other.returncode == 2 and "other images" in other.stderr, other
seeded = run("--data", work + "/a.npy", "--resume", "--seed", "2")
assert seeded.returncode == 2 and "seed" in seeded.stderr, seeded
meant = run("--data", work + "/b.npy", "--resume", "--other-data")
assert meant.returncode == 0, meant
P
offered=$("$quickstart" --help)
for backend in eigen thrust; do
  grep -q "[{,]$backend[,}]" <<<"$offered" || continue
  "$quickstart" "$work/$backend" --seconds 2 --backend $backend >/dev/null 2>&1
  grep -q "\"backend\": \"$backend" "$work/$backend/metrics.json"
done
echo "quickstart: all good"
