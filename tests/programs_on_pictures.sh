#!/usr/bin/env bash
# The programs on pictures as people have them: grey models draw grey pictures that compare with their data, and work that would fail at its end fails
# at its start: programs_on_pictures.sh BUILD/examples WORK
set -euo pipefail
examples=$1 work=$2/programs_on_pictures
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$work" && mkdir -p "$work"
cd "$work"
digits=$here/../examples/data/digits.npy

fails() {  # seconds it may take, expected text, command
  local seconds=$1 want=$2 status=0
  shift 2
  timeout "$seconds" "$@" >log 2>&1 || status=$?
  [ "$status" -eq 2 ] && grep -qF -- "$want" log || { echo "expected status 2 and '$want' within $seconds s, got status $status: $*"; cat log; exit 1; }
}

# A grey model's pictures: what docs/samplers.md says to type, on a model of a few seconds.
"$examples/quickstart" model --seconds 1 >log 2>&1 || { cat log; exit 1; }
"$examples/generate" model/model.safetensors --seeds 0-19 --sampler dpm_solver++ --steps 4 --out pictures/ >log 2>&1 || { cat log; exit 1; }
python3 - <<'P'
import pathlib
pictures = sorted(pathlib.Path("pictures").glob("*.png"))
assert len(pictures) == 20
for p in pictures:
    head = p.read_bytes()[:26]
    assert head[24] == 8 and head[25] == 0, (p, head)  # eight bits, grey
P
"$examples/evaluate" "$digits" pictures/ --reference-largest 16 --json >evaluated.json 2>log || { cat log; exit 1; }
# The same digits, from 0 to 16 on both sides, have no distance; each side has its own white.
"$examples/evaluate" "$digits" "$digits" --reference-largest 16 --generated-largest 16 --json >same.json 2>log || { cat log; exit 1; }
# Grey pictures that a file has in colours compare with grey ones; real colours do not.
python3 - <<'P'
import json, pathlib, struct, zlib
def png(path, channels, value):
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = b"".join(b"\0" + bytes(value(x, y, c) for x in range(8) for c in range(channels)) for y in range(8))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2 if channels == 3 else 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
for folder, channels, tint in (("grey", 1, 0), ("greyish", 3, 0), ("coloured", 3, 1)):
    pathlib.Path(folder).mkdir()
    for i in range(6):
        png(pathlib.Path(folder) / f"{i}.png", channels, lambda x, y, c: (x * 31 + y * 17 * i + i * i + tint * c) % 256)
evaluated, same = json.load(open("evaluated.json")), json.load(open("same.json"))
assert evaluated["generated"]["n"] == 20 and evaluated["frechet_distance"] > 0, evaluated
assert same["frechet_distance"] == 0 and same["precision"] == 1 and same["recall"] == 1 and same["coverage"] == 1, same
assert abs(same["density"] - 0.9968465961788165) < 1e-12, same  # NumPy's: digits of 17 levels have neighbours at equal distances, which are not inside
P
"$examples/evaluate" grey greyish --json >greyish.json 2>log || { cat log; exit 1; }
python3 -c 'import json; e = json.load(open("greyish.json")); assert e["frechet_distance"] == 0 and e["features"]["dimension"] == 64, e'
fails 20 'has colours and cannot be read as grey' "$examples/evaluate" grey coloured
"$examples/evaluate" grey coloured --reference-channels 3 --json >coloured.json 2>log || { cat log; exit 1; }
python3 -c 'import json; e = json.load(open("coloured.json")); assert e["frechet_distance"] > 0 and e["features"]["dimension"] == 192, e'

# A data set that prepare makes of them is what they are; labels, sizes and what is there already.
"$examples/prepare" --grey coloured set >log 2>&1 || { cat log; exit 1; }
grep -qF '6 images of 8 x 8 x 1' log || { cat log; exit 1; }
"$examples/prepare" coloured set --overwrite >log 2>&1 || { cat log; exit 1; }
"$examples/evaluate" coloured set --json >prepared.json 2>log || { cat log; exit 1; }
python3 -c 'import json; e = json.load(open("prepared.json")); assert e["frechet_distance"] == 0 and e["generated"]["n"] == 6, e'
fails 20 'is there already' "$examples/prepare" coloured set
fails 20 'width x height' "$examples/prepare" coloured new --size big
printf '0.png,x\n1.png\n' >labels.csv
fails 20 'labels.csv: line 2' "$examples/prepare" --labels csv labels.csv coloured new
printf 'file,label\n0.png,x\n1.png,y\n' >labels.csv
"$examples/prepare" --labels csv labels.csv --size 4x6 coloured new >log 2>&1 || { cat log; exit 1; }
grep -qF '2 images of 4 x 6 x 3, 2 classes' log && grep -qF '5.png: has no label' log || { cat log; exit 1; }

# What would fail at the end fails at the start.
generate=("$examples/generate" model/model.safetensors --steps 1000)
fails 20 'more than the 32767 pixels a side' "${generate[@]}" --seeds 0-40000 --columns 1
mkdir folder.png
fails 20 'folder.png: is a folder' "${generate[@]}" --seeds 0-40000 --out folder.png
fails 20 'nowhere/x.png: cannot be written' "${generate[@]}" --seeds 0-40000 --out nowhere/x.png
fails 20 'nowhere/x.npz: cannot be written' "${generate[@]}" --seeds 0-40000 --out nowhere/x.npz
fails 20 '6 pictures in grey; with --k 6 at least 7' "$examples/evaluate" grey grey --k 6
fails 20 'the model' "$examples/evaluate" greyish greyish --likelihood model/model.safetensors
cluster=("$examples/cluster" "$digits" --largest 16 --draws 1000000)
fails 20 'three stages' "${cluster[@]}" --stages 4
fails 20 '8 stages of 5 nodes' "${cluster[@]}" --method n_stage --stages 8 --nodes 5
fails 20 'weigh is of --method n_stage' "${cluster[@]}" --weigh one
mkdir -p taken/curves.png
fails 20 'taken/curves.png: is a folder' "${cluster[@]}" --out taken
fails 20 'b.png: is 9 x 8' "$examples/cluster" "$here/data/sizes"
python3 - <<'P'
import struct
for n in (1, 2, 3):
    head = "{'descr': '|u1', 'fortran_order': False, 'shape': (%d, 8, 8), }\n" % n
    open(f"{n}.npy", "wb").write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + bytes(i % 17 for i in range(64 * n)))
P
for n in 1 2 3; do fails 20 "has $n images" "$examples/quickstart" q --data $n.npy --seconds 600; done
# A path may be any bytes, also where it stands in JSON.
odd=$(printf 'odd \377 path.npy')
cp "$digits" "$odd"
"$examples/cluster" "$odd" --largest 16 --draws 64 --nodes 5 --replicates 20 --limit 200 --out clustering >log 2>&1 || { cat log; exit 1; }
python3 -c 'import json; assert json.load(open("clustering/clustering.json", encoding="utf-8"))["data"] == "odd \ufffd path.npy"'
"$examples/evaluate" "$odd" "$odd" --reference-largest 16 --generated-largest 16 --json >odd.json 2>log || { cat log; exit 1; }
python3 -c 'import json; assert json.load(open("odd.json", encoding="utf-8"))["frechet_distance"] == 0'
# The quickstart's JSON and page, too.
out=$(printf 'odd \377 out')
"$examples/quickstart" "$out" --seconds 1 >log 2>&1 || { cat log; exit 1; }
python3 - <<'P'
import json
folder = b"odd \xff out/"
assert "odd \ufffd out" in json.load(open(folder + b"metrics.json", encoding="utf-8"))["command"]
assert "odd \ufffd out" in open(folder + b"report.html", encoding="utf-8").read()
P
"$examples/inspect" "$out/model.safetensors" --json >inspected.json 2>log || { cat log; exit 1; }
python3 -c 'import json; assert "\ufffd" in json.load(open("inspected.json", encoding="utf-8"))["file"]'
echo "programs on pictures: all good"
