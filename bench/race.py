"""Runs both sides of the race in turn and compares them (see race.sh): race.py BENCH_BINARIES OUT [--quick]"""
import json, os, pathlib, subprocess, sys

binaries, out, quick = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), "--quick" in sys.argv
here = pathlib.Path(__file__).resolve().parent
RACES = [("quickstart", 1, False), ("quickstart", 64, False), ("quickstart", 64, True), ("edm_cifar10_multistage", 4, False), ("edm_cifar10_multistage", 4, True)]
if not quick:
    RACES += [("edm_cifar10_multistage", 1, False), ("edm_cifar10_multistage", 16, False), ("edm_cifar10_multistage", 16, True), ("edm_cifar10_unified", 4, False), ("vp_cifar10_multistage", 4, False),
              ("ldm_celeba256_multistage", 1, False)]


def run(command):
    p = subprocess.run(command, capture_output=True, text=True, cwd=here)
    if p.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{p.stderr}")
    return [json.loads(line) for line in p.stdout.splitlines()]


machine = run([binaries / "machine"])
rows, lines = [], [{"machine": machine}]
for network, batch, train in RACES:
    heavy = network != "quickstart"
    arguments = ["--network", network, "--batch", str(batch), "--repeats", "2" if heavy else "20"] + (["--train"] if train else [])
    key = "train_step_s" if train else "forward_s"
    ours, theirs = {}, {}
    for _ in range(2):  # in turn, so that a busy minute meets both
        for line in run([binaries / "race_unet", *arguments]):
            lines.append(line | {"side": "multistage"})
            ours[line["stage"]] = min([line, ours.get(line["stage"], line)], key=lambda l: l[key])
        for line in run([sys.executable, here / "race_torch.py", *arguments]):
            lines.append(line | {"side": "pytorch"})
            theirs[line["stage"]] = min([line, theirs.get(line["stage"], line)], key=lambda l: l[key])
    for s in sorted(ours):
        rows.append((network, "train" if train else "forward", batch, s, ours[s][key], theirs[s][key], theirs[s][key] / ours[s][key], ours[s]["peak_bytes"] / 1e6, theirs[s]["peak_bytes"] / 1e6))
        print("%-26s %-8s batch %-3d stage %d  ours %10.4f s  PyTorch %10.4f s  ratio %5.2f  memory %7.1f / %7.1f MB" % rows[-1], flush=True)
table = ["| network | work | batch | stage | ours, s | PyTorch, s | ratio | ours, MB | PyTorch, MB |", "|---|---|---|---|---|---|---|---|---|"]
table += ["| %s | %s | %d | %d | %.4g | %.4g | %.2f | %.0f | %.0f |" % r for r in rows]
(out / "race.md").write_text(f"machine: {json.dumps(machine)}\n\n" + "\n".join(table) + "\n")
(out / "race.jsonl").write_text("".join(json.dumps(l) + "\n" for l in lines))
try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 0.34 * len(rows) + 1.2))
    axis.barh(range(len(rows)), [r[6] for r in rows], color=["#30638e" if r[6] >= 1 else "#d1495b" for r in rows])
    axis.set_yticks(range(len(rows)), [f"{r[0]}, {r[1]}, batch {r[2]}, stage {r[3]}" for r in rows], fontsize=8)
    axis.invert_yaxis()
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xlabel("times as fast as PyTorch (better of eager and channels_last)")
    figure.tight_layout()
    figure.savefig(out / "race.png", dpi=120)
except ImportError:
    pass
print(f"written: {out}/race.md, {out}/race.jsonl, {out}/race.png")
