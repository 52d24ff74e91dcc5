#!/usr/bin/env bash
# The quickstart for a few seconds: all files are there and sound, Ctrl-C saves, --resume goes on, bad input gets status 2 and one line.
set -euo pipefail
quickstart=$1 work=$2/quickstart_test
rm -rf "$work" && mkdir -p "$work"
"$quickstart" "$work/out" --seconds 3 --threads 2 2>"$work/progress"
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
assert m["frechet_samples"] < 30, m["frechet_samples"]     # clipped noise is at 47; three seconds are enough to leave it behind
for key in ("command", "configuration", "machine", "compiler", "commit"):
    assert m[key], key
page = open(out + "/report.html").read()
for text in ("--seconds 3 --threads 2", m["commit"], "&quot;song_unet&quot;", "nearest training image"):
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

# Ctrl-C saves, and --resume goes on from there. A background job of a script ignores SIGINT unless it is given its own handling.
python3 - "$quickstart" "$work" <<'P'
import json, signal, struct, subprocess, sys, time
def steps(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        return json.loads(json.loads(f.read(n))["__metadata__"]["training"])["steps"]
quickstart, work = sys.argv[1:]
p = subprocess.Popen([quickstart, work + "/stop", "--seconds", "60"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
time.sleep(4)
p.send_signal(signal.SIGINT)
out, err = p.communicate(timeout=60)
assert p.returncode == 130 and "--resume" in err, (p.returncode, out, err)
before = steps(work + "/stop/model.safetensors")
assert before > 0
subprocess.run([quickstart, work + "/stop", "--seconds", "2", "--resume"], check=True, capture_output=True)
assert steps(work + "/stop/model.safetensors") > before
P
for backend in eigen thrust; do
  "$quickstart" "$work/$backend" --seconds 2 --backend $backend >/dev/null 2>&1
  grep -q "\"backend\": \"$backend" "$work/$backend/metrics.json"
done
echo "quickstart: all good"
