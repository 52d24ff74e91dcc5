"""Runs both sides of the race in turn and compares them (see race.sh): race.py BENCH_BINARIES OUT [--quick]"""
import json, os, pathlib, subprocess, sys

binaries, out, quick = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]), "--quick" in sys.argv
here = pathlib.Path(__file__).resolve().parent
# network, batch, training, repeats of ours and theirs in a turn (the best counts), turns
RACES = [("quickstart", 1, False, 1000, 200, 3), ("quickstart", 64, False, 50, 20, 3), ("quickstart", 64, True, 30, 10, 3), ("edm_cifar10_multistage", 1, False, 10, 3, 2),
         ("edm_cifar10_multistage", 4, False, 4, 2, 2), ("edm_cifar10_multistage", 4, True, 3, 2, 2)]
if not quick:
    RACES += [("edm_cifar10_multistage", 16, False, 2, 1, 2), ("edm_cifar10_multistage", 16, True, 2, 1, 1), ("edm_cifar10_unified", 4, False, 3, 2, 1), ("vp_cifar10_multistage", 4, False, 3, 2, 1),
              ("ldm_celeba256_multistage", 1, False, 3, 2, 1)]


def run(command):
    p = subprocess.run(command, capture_output=True, text=True, cwd=here)
    if p.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{p.stderr}")
    return p.stdout


def lines_of(command):
    return [json.loads(line) for line in run(command).splitlines()]


machine = lines_of([binaries / "machine"])
rows, lines, notes = [], [{"machine": machine}], []


def best(lines, key):
    found = {}
    for l in lines:
        found[l["stage"]] = min([l, found.get(l["stage"], l)], key=lambda x: x[key])
    return found


for network, batch, train, ours_repeats, theirs_repeats, turns in RACES:
    key = "train_step_s" if train else "forward_s"
    common = ["--network", network, "--batch", str(batch)] + (["--train"] if train else [])
    ours, theirs = [], []
    for _ in range(turns):  # in turn, so that a busy minute meets both
        ours += lines_of([binaries / "race_unet", *common, "--repeats", str(ours_repeats)])
        theirs += lines_of([sys.executable, here / "race_torch.py", *common, "--repeats", str(theirs_repeats)])
    lines += [l | {"side": "multistage"} for l in ours] + [l | {"side": "pytorch"} for l in theirs]
    a, b = best(ours, key), best(theirs, key)
    for s in sorted(a):
        rows.append((network, "train" if train else "forward", batch, s, a[s][key], b[s][key], b[s][key] / a[s][key], min(l["peak_bytes"] for l in ours if l["stage"] == s) / 1e6,
                     min(l["peak_bytes"] for l in theirs if l["stage"] == s) / 1e6))
        print("%-26s %-8s batch %-3d stage %d  ours %10.5f s  PyTorch %10.5f s  ratio %5.2f  memory %7.1f / %7.1f MB" % rows[-1], flush=True)

for train in (False, True):
    arguments = [binaries / "race_unet", "--network", "edm_cifar10_multistage", "--batch", "4", "--repeats", "3"] + (["--train"] if train else [])
    key = "train_step_s" if train else "forward_s"
    one, two = [], []
    for _ in range(2):
        one += lines_of(arguments + ["--threads", "1"])
        two += lines_of(arguments)
    one, two = best(one, key), best(two, key)
    notes.append(f"EDM CIFAR-10, batch 4, {'training step' if train else 'forward'}, one thread to {two[0]['threads']}: " +
                 ", ".join(f"stage {s} {one[s][key]:.3f} to {two[s][key]:.3f} s, {one[s][key] / two[s][key]:.2f} times" for s in sorted(one)))
    print(notes[-1], flush=True)
for network in ("quickstart", "edm_cifar10_multistage"):
    for lazy in ([], ["--lazy"]):
        line = lines_of([binaries / "startup", "--network", network, *lazy])[0]
        lines.append(line)
        notes.append(f"start of a process to a model in memory, {network}{', lazily' if lazy else ''}: {line['start_to_model_ms']:.1f} ms; one read of its {line['megabytes']:.0f} MB: {line['one_read_ms']:.1f} ms")
        print(notes[-1], flush=True)
onednn = run([binaries / "race_onednn"]) if (binaries / "race_onednn").exists() else ""
print(onednn, flush=True)

table = ["| network | work | batch | stage | ours, s | PyTorch, s | ratio | ours, MB | PyTorch, MB |", "|---|---|---|---|---|---|---|---|---|"]
table += ["| %s | %s | %d | %d | %.4g | %.4g | %.2f | %.0f | %.0f |" % r for r in rows]
(out / "race.md").write_text(f"machine: {json.dumps(machine)}\n\n" + "\n".join(table) + "\n\n" + "\n".join(f"- {n}" for n in notes) + (f"\n\n```\n{onednn}```\n" if onednn else "\n"))
(out / "race.jsonl").write_text("".join(json.dumps(l) + "\n" for l in lines))
try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 0.3 * len(rows) + 1.2))
    axis.barh(range(len(rows)), [r[6] for r in rows], color=["#30638e" if r[6] >= 1 else "#d1495b" for r in rows])
    for i, r in enumerate(rows):
        axis.text(r[6], i, f" {r[6]:.2f}", va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), [f"{r[0]}, {r[1]}, batch {r[2]}, stage {r[3]}" for r in rows], fontsize=8)
    axis.invert_yaxis()
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xlabel("times as fast as PyTorch (better of eager and channels_last)")
    figure.tight_layout()
    figure.savefig(out / "race.png", dpi=120)
except ImportError:
    pass
print(f"written: {out}/race.md, {out}/race.jsonl, {out}/race.png")
