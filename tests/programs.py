"""Programs and their options: programs.py FOLDER_OF_PROGRAMS TRAIN_PROBE SCRATCH. Every sampler draws with generate; options that are
unknown, out of range, without effect or of another sampler end with status 2 and say so; nothing is written then."""
import json, os, pathlib, re, shutil, struct, subprocess, sys, zipfile

programs, probe, scratch = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2], pathlib.Path(sys.argv[3]).resolve()
scratch.mkdir(parents=True, exist_ok=True)
model = scratch / "programs.safetensors"
model.unlink(missing_ok=True)
subprocess.run([probe, str(model), "3"], check=True)
bad = 0


def run(program, *options):
    r = subprocess.run([str(programs / program), *map(str, options)], capture_output=True, text=True, timeout=300, cwd=scratch)
    return r.returncode, r.stdout + r.stderr


def check(condition, *what):
    global bad
    if not condition:
        bad += 1
        print("FAIL", *what)


def pictures(path):
    with zipfile.ZipFile(path) as z:
        return z.read(z.namelist()[0])


def draw(*options, out="x.npz"):
    (scratch / out).unlink(missing_ok=True)
    status, text = run("generate", model, "--seeds", "0-3", "--out", out, *options)
    check(status == 0, "generate", *options, status, text)
    return pictures(scratch / out) if status == 0 else b""


# Every sampler that is listed draws, with its defaults and with each of its options at its default.
status, listed = run("generate", "--list-samplers")
check(status == 0, listed)
samplers, at = {}, None
for line in listed.splitlines():
    if not line.startswith(" "):
        at = samplers.setdefault(line, [])
    else:
        at.append(line.split()[:2])
check(len(samplers) == 18, "samplers", list(samplers))
for name, options in samplers.items():
    few = ["--num-steps", 25 if name == "score_sde" else 4] if ["--num-steps"] in [o[:1] for o in options] else []
    one = draw("--sampler", name, *few)
    check(len(set(one[-256:])) > 20, name, "draws one colour")  # 4 pictures of 8 x 8
    check(draw("--sampler", name, *few, "--batch", 3) == one or name in ("probability_flow",), name, "depends on the batch")
    check("--num-steps" in [o[0] for o in options] or name == "probability_flow", name, "has no num_steps")

# Backends draw the same pictures; bytes may round the other way.
offered = re.search(r"--backend [^{]*\{([^}]*)\}", run("generate", "--help")[1]).group(1).split(",")
others = [backend for backend in offered if backend != "cpu"]
for options in ((), ("--sampler", "unipc", "--encoder-every", 2), ("--guidance", 2, "--weak-model", model)):
    drawn = [draw(*options, "--backend", backend) for backend in ("cpu", *others)]
    check(drawn[0] == draw(*options), "--backend cpu is not the default")
    for other in drawn[1:]:
        check(len(other) == len(drawn[0]) and max(abs(a - b) for a, b in zip(other, drawn[0])) <= 1, "backends differ", options)

# Old spellings stay; levels take the place of steps.
check(draw("--steps", 5) == draw("--num-steps", 5), "--steps")
check(draw("--sampler", "ddim", "--levels", "80,9,1,0.1,0") == draw("--sampler", "ddim", "--levels", "80", "9", "1", "0.1", "0"), "--levels")
check(draw("--sampler", "ddpm") == draw("--sampler", "ddim", "--eta", 1), "ddpm")
check(draw("--sampler", "unipc", "--boundary", "align") != draw("--sampler", "unipc"), "--boundary")
for scale in ("1 2 3", "1,2,3"):
    draw("--guidance-by-stage", *scale.split())

refused = [
    ("--sampler", "foo"), ("--sampler", "ddim", "--spacing", "foo"), ("--spacing", "karras"), ("--sampler", "ddim", "--s-churn", 3),
    ("--sampler", "pfgm", "--augmented", 0), ("--order", 2), ("--eta", 0.5), ("--bogus",), ("--num-steps", 0), ("--num-steps", 1.5),
    ("--num-steps", "1e3"), ("--rho", "inf"), ("--rho", "1e-3"), ("--rho", "nan"), ("--sigma-min", 80), ("--sigma-min", "nan"), ("--sigma-max", -1),
    ("--s-churn", "inf"), ("--s-min", 1), ("--s-churn", 1, "--s-min", "nan"), ("--guidance", "nan"), ("--guidance-by-stage", 1, 2),
    ("--guidance-by-stage", "1,2,3,4"), ("--guidance-low", -1), ("--seeds=-1",), ("--seeds", "3-1"), ("--seeds", ""), ("--batch", 0), ("--threads", -1),
    ("--clip", "maybe"), ("--label", 0), ("--label", -2), ("--encoder-every", 0), ("--columns", -1), ("--zoom", 0), ("--out", "x.jpg"), ("--out", "x.jpeg"),
    ("--out", ""), ("--sampler", "gddim", "--lambda", 1, "--order", 2), ("--sampler", "score_sde", "--num-steps", 10), ("--sampler", "score_sde", "--snr", 0.1),
    ("--sampler", "score_sde", "--schedule", "cosine"), ("--sampler", "ddim", "--levels", "3,2,1", "--num-steps", 4), ("--sampler", "ddim", "--levels", "1,2"),
    ("--sampler", "ddim", "--schedule", "vp"), ("--sampler", "dpm_solver", "--atol", 0.1), ("--sampler", "restart", "--s-churn", 1),
    ("--sampler", "restart", "--low", 2, "--high", 1), ("--sampler", "unipc", "--boundary", "somewhere"), ("--sampler", "dpm_solver++", "--method", "heun"),
    ("--sampler", "edm_ablation", "--num-steps", 1), ("--sampler", "ddim", "--heun", "true"), ("--sampler", "flow_ode"),
    ("--guidance-low", 1), ("--guidance-high", 1), ("--guidance", 2, "--guidance-low", 3, "--guidance-high", 2), ("--weak-model", "programs.safetensors"),
    ("--guidance", 2, "--guidance-by-stage", "1,2,3"), ("--encoder-low", 1), ("--encoder-high", 1),
    ("--backend", "cuda"), ("--context", "nothing.npy"), ("--context", "programs.safetensors"), ("--weak-context", "nothing.npy"),
    ("--encoder-every", 2, "--encoder-low", 3, "--encoder-high", 2), ("--s-churn", 1, "--s-min", 2, "--s-max", 1), ("--columns", 2), ("--zoom", 2),
    ("--sigma-max", "1e30"), ("--sampler", "ddim", "--levels", "1e30,1"), ("--preview", "seen.jpg")]
for options in refused:
    before = sorted(p.name for p in scratch.iterdir())
    with_out = [] if "--out" in options else ["--out", "refused.npz"]
    status, text = run("generate", model, *with_out, *options)
    check(status == 2, "generate", *options, "ended with", status, text)
    check(len(text.strip()) > 10 and "terminate" not in text, "generate", *options, "says", text)
    check(sorted(p.name for p in scratch.iterdir()) == before, "generate", *options, "left files behind")
status, text = run("generate", scratch / "nothing.safetensors")
check(status == 2 and "nothing.safetensors" in text, "no model", status, text)

# Steps by stage: the evaluations are the stages' own (a sampler of one evaluation a step).
status, text = run("generate", model, "--seeds", "0-3", "--sampler", "ddim", "--steps", "5,3,2", "--out", "x.npz")
check(status == 0 and "evaluations by stage: 5 3 2" in text, "steps by stage", status, text)
# What stands beside an archive draws it again, and names the model as inspect does.
first, record = pictures(scratch / "x.npz"), json.loads((scratch / "x.npz.json").read_text())
check("--num-steps" not in record and record["--levels"].count(",") == 10, "levels of steps by stage", record)
check(draw("--sampler", "ddim", "--levels", record["--levels"]) == first, "levels of a record", record)
if (programs / "inspect").exists():
    status, text = run("inspect", model, "--json")
    check(status == 0 and json.loads(text)["fingerprint"] == record["model"], "fingerprint of a record", status, record)
for options in (("--steps", "5,3"), ("--steps", "5,0,2"), ("--steps", "5,1.5,2"), ("--sampler", "score_sde", "--steps", "5,3,2"), ("--steps", "1,1,1", "--levels", "80,1,0")):
    status, text = run("generate", model, *options, "--out", "refused.npz")
    check(status == 2 and len(text) > 10 and not (scratch / "refused.npz").exists(), "generate", *options, status, text)


def texts(path):
    """The tEXt chunks of a PNG."""
    data, at, found = path.read_bytes(), 8, {}
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        if kind == b"tEXt":
            key, value = data[at + 8:at + 8 + size].split(b"\0", 1)
            found[key.decode("ascii")] = value.decode("ascii")
        at += 12 + size
    return found


# A label for each picture; what was drawn stands in the PNG, and beside an archive.
labelled = scratch / "labelled.safetensors"
labelled.unlink(missing_ok=True)
subprocess.run([probe, str(labelled), "60", "--classes", "3"], check=True)
few = ("--sampler", "ddim", "--steps", 3, "--guidance", 40)  # so that labels show in bytes


def labels(*options, out="labels.npz", model_file=labelled):
    status, text = run("generate", model_file, *few, "--out", out, *options)
    check(status == 0, "generate", *options, status, text)
    return pictures(scratch / out) if status == 0 and out.endswith(".npz") else b""


size = 64  # bytes of a picture, which end the archive's array
cycled = labels("--seeds", "0-4", "--labels", "0-2", "--batch", 2)
for seed in range(5):
    alone = labels("--seeds", seed, "--label", seed % 3)
    check(alone[-size:] == cycled[len(cycled) - (5 - seed) * size:][:size], "label of seed", seed)
check(labels("--seeds", "0-9", "--labels", "random") == labels("--seeds", "0-9", "--labels", "random", "--batch", 3), "random labels")
grid = labels("--seeds", "0-1", "--label-grid")
rows = b"".join(labels("--seeds", "0-1", "--label", label)[-2 * size:] for label in range(3))
check(grid[-6 * size:] == rows and rows[:size] != rows[2 * size:3 * size], "label grid")
record = json.loads((scratch / "labels.npz.json").read_text())
check(record["sampler"] == "ddim" and record["--num-steps"] == "3" and record["software"].startswith("multistage ") and record["--label"] == "2", "record", record)
check(labels("--seeds", 0, "--label", 1, "--negative-label", 2) != labels("--seeds", 0, "--label", 1), "negative label")
labels("--seeds", "0-1", "--labels", "2,none", out="named/")
check(sorted(p.name for p in (scratch / "named").glob("*.png")) == ["000000-2.png", "000001-none.png"], "names with labels")
said = texts(scratch / "named" / "000000-2.png")
of_picture = json.loads(said["multistage"])
check(said["Software"] == "multistage " + record["software"].split()[1] and of_picture["seed"] == 0 and of_picture["label"] == 2 and of_picture["model"] == record["model"], "texts", said)
labels("--seeds", "0-8", "--preview", "preview.png", out="grid.png")
check("multistage" in texts(scratch / "grid.png") and texts(scratch / "preview.png") == {}, "grid and preview")
shutil.rmtree(scratch / "named")
for options in (("--labels", "0-3"), ("--labels", "cat"), ("--labels", "1,"), ("--label-grid", "--labels", "random"), ("--preview", "no/folder/x.png")):
    status, text = run("generate", labelled, *few, *options, "--out", "refused.npz")
    check(status == 2 and len(text) > 10 and not (scratch / "refused.npz").exists(), "generate", *options, status, text)

# A folder is gone on with only as it was begun, and what is no PNG is drawn.
folder = scratch / "folder"
shutil.rmtree(folder, ignore_errors=True)
into = lambda *options: run("generate", model, "--out", "folder", "--sampler", "ddim", *options)
status, text = into("--seeds", "0-3", "--num-steps", 4)
check(status == 0 and len(list(folder.glob("*.png"))) == 4, "folder", status, text)
whole = (folder / "000001.png").read_bytes()
(folder / "000001.png").write_bytes(b"")
(folder / "000002.png").write_bytes(b"text")
status, text = into("--seeds", "0-4", "--num-steps", 4, "--batch", 2)
check(status == 0 and "2 of 5 pictures" in text and (folder / "000001.png").read_bytes() == whole, "folder gone on with", status, text)
for other in (("--num-steps", 5), ("--num-steps", 4, "--clip", "pictures"), ("--num-steps", 4, "--eta", 1)):
    status, text = into("--seeds", "0-5", *other)
    check(status == 2 and "drawn otherwise" in text and not (folder / "000005.png").exists(), "folder of others", *other, status, text)
(folder / ".generate.json").unlink()
status, text = into("--seeds", "0-5", "--num-steps", 4)
check(status == 2 and "no record" in text, "folder without a record", status, text)

# What is odd is warned of, once, with the remedy.
status, text = run("generate", model, "--seeds", "0-3", "--batch", 1, "--guidance", 2, "--out", "x.npz")
check(status == 0 and text.count("warning:") == 1 and "twice as much" in text, "guidance without labels", text)

# Quality by evaluations: a curve of a checkpoint's pictures.
if (programs / "evaluate").exists():
    reference = scratch / "reference"
    shutil.rmtree(reference, ignore_errors=True)
    run("generate", model, "--seeds", "100-119", "--out", reference)
    status, text = run("evaluate", reference, model, "--steps", "2,4,18", "--seeds", "0-19", "--out", "curve.png", "--json")
    check(status == 0, "curve", status, text)
    if status == 0:
        curve = json.JSONDecoder().raw_decode(text[text.index("{"):])[0]["curve"]
        check([c["evaluations"] for c in curve] == [3, 7, 35] and curve[0]["frechet_distance"] > curve[2]["frechet_distance"], "curve", curve)
        check((scratch / "curve.png").read_bytes()[:4] == b"\x89PNG", "curve.png")
        by_label = [run("evaluate", reference, labelled, "--steps", 3, "--sampler", "ddim", "--seeds", "0-19", "--out", "curve.png", "--json", *more)
                    for more in (("--labels", 1), ("--labels", 1, "--backend", others[0]), ("--labels", 2, "--guidance", 3), ())]
        check(all(status == 0 for status, _ in by_label), "curves by label", by_label)
        if all(status == 0 for status, _ in by_label):
            found = [json.JSONDecoder().raw_decode(text[text.index("{"):])[0] for _, text in by_label]
            distances = [f["curve"][0]["frechet_distance"] for f in found]
            check(abs(distances[0] - distances[1]) < 1e-2 * distances[0] and len({distances[0], *distances[2:]}) == 3, "curves by label", distances)
            check([f["sampler"]["--label"] for f in found] == ["1", "1", "2", "random"], "curves by label", [f["sampler"] for f in found])
    for options in (("--labels", 1), ("--backend", others[0]), ("--autoencoder", "x.safetensors"), ("--steps", "5", "--labels", 1), ("--steps", "5", "--autoencoder", model),
                    ("--steps", "0"), ("--steps", "5", "--sampler", "nothing"), ("--steps", "5", "--sampler", "probability_flow"), ("--seeds", "0-3"), ("--sampler", "ddim")):
        status, text = run("evaluate", reference, model, *options)
        check(status == 2 and len(text) > 10, "evaluate", *options, status, text)

# Every program ends with 2 for bad options and with 0 for --help.
for program in ("generate", "cluster", "evaluate", "inspect", "architectures", "quickstart", "schedules"):
    if not (programs / program).exists():
        continue
    check(run(program, "--help")[0] == 0, program, "--help")
    for options in (("--bogus",), ("--threads", "x") if program not in ("inspect", "architectures", "schedules") else ("--bogus=3",)):
        status, text = run(program, *options)
        check(status == 2 and text.strip(), program, *options, "ended with", status, text)
for options in (("--stages", 9), ("--alpha", "nan"), ("--alpha", 2), ("--draws", 1), ("--nodes", 1), ("--seed=-1",), ("--threads", -1), ("--method", "x"), ("--sigma-min", "nan"),
                ("--sigma-min", 90), ("--threshold", 0), ("--sigma-max", "inf")):
    if (programs / "cluster").exists():
        data = scratch / "data.npy"
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (40, 4, 4), }"
        header += b" " * (117 - len(header)) + b"\n"
        data.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes((37 * i * i) % 251 for i in range(640)))
        status, text = run("cluster", data, "--draws", 64, "--nodes", 3, "--out", "clustering", *options) if "--draws" not in options and "--nodes" not in options else run("cluster", data, "--out", "clustering", *options)
        check(status == 2 and text.strip() and len(text) < 2000, "cluster", *options, "ended with", status, text)
if (programs / "cluster").exists():
    few = ("--draws", 64, "--nodes", 5, "--out", "clustering")
    status, text = run("cluster", data, "--method", "snr", "--schedule", "flow", *few)
    check(status == 0 and "stage" in text, "cluster by snr along flow", status, text)
    status, text = run("cluster", data, "--limit", 1, *few)
    check(status == 2 and "2 or more" in text, "cluster --limit 1", status, text)
    status, text = run("cluster", "nowhere.npy", "--out", "of_nothing")
    check(status == 2 and "nowhere.npy" in text and not (scratch / "of_nothing").exists(), "cluster of nothing", status, text)
    dark = scratch / "dark.npy"
    dark.write_bytes(data.read_bytes()[:128] + bytes(i * i % 97 % 17 for i in range(640)))
    status, text = run("cluster", dark, "--method", "timestep", *few)
    check(status == 0 and text.count("warning:") == 1 and "--largest 16" in text, "integers that go to 16", status, text)
    status, text = run("cluster", dark, "--method", "timestep", "--largest", 16, *few)
    check(status == 0 and "warning:" not in text, "integers that go to 16, said aloud", status, text)
# An autoencoder is trained and goes on; its latents are a data set for a diffusion model, whose samples it decodes.
if (programs / "train").exists() and (programs / "encode").exists():
    small = "{'descr': '|u1', 'fortran_order': False, 'shape': (20, 16, 16, 3), }".ljust(117) + "\n"
    (scratch / "small.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(small).to_bytes(2, "little") + small.encode() + bytes((i * i // 7 + 13 * (i // 768)) % 251 for i in range(20 * 768)))
    for folder in ("codes", "codes_too", "latents", "latents_too", "latent_model", "latent_model_too", "context_model"):
        shutil.rmtree(scratch / folder, ignore_errors=True)
    few = ("--batch", 4, "--snapshot", 0)
    sizes = ("--encoder-channels", 8, "--norm-groups", 4, "--num-blocks", 1, "--discriminator-kimg", 0.004, "--discriminator-width", 4, "--discriminator-layers", 1)
    status, text = run("train", "--autoencoder", "kl-f4", "--data", "small.npy", "--out", "codes_too", "--p-mean", 1, "--steps", 1)
    check(status == 2 and "--p-mean is no option of an autoencoder" in text, "train --autoencoder --p-mean", status, text)
    status, text = run("train", "--autoencoder", "kl-f8", "--data", "small.npy", "--out", "codes_too", "--print-config", "--steps", 1, *sizes)
    for line in ("encoder_channels +8 +command line", "channel_mult +.* +kl-f8", "resolution +16 +data", "dropout +0.0 +default"):
        check(re.search(f"^  {line}$", text, re.M), "train --autoencoder --print-config", line, status, text)
    status, text = run("train", "--autoencoder", "kl-f4", "--data", "nowhere.npy", "--out", "codes_too", "--steps", 1)
    check(status == 2 and not (scratch / "codes_too").exists(), "an autoencoder of nothing", status, text)
    status, text = run("train", "--autoencoder", "kl-f4", "--data", "small.npy", "--out", "codes", "--steps", 3, *few, *sizes)
    check(status == 0 and "random convolutions" in text, "train --autoencoder", status, text)
    status, text = run("train", "--resume", "--out", "codes", "--steps", 2, "--encoder-channels", 16)
    check(status == 2 and "--encoder-channels has no effect on codes" in text and len(text) < 300, "another network", status, text)
    for other, words in ((("--seed", 5), "seed"), (("--autoencoder", "vq-f4"), "began otherwise"), (("--n-embed", 5), "has no effect")):
        status, text = run("train", "--resume", "--out", "codes", "--steps", 2, *other)
        check(status == 2 and words in text, "a run that began otherwise", other, status, text)
    status, text = run("inspect", "codes/config.json")
    check(status == 0 and "z_channels" in text, "inspect of an autoencoder's config.json", status, text)
    status, text = run("inspect", "codes")
    check(status == 0 and "z_channels" in text and "--tensors lists them" in text, "inspect of an autoencoder", status, text)
    status, text = run("train", "--resume", "--out", "codes", "--steps", 2)
    check(status == 0 and "after 0.02 thousand images" in text, "train --resume of an autoencoder", status, text)
    page = (scratch / "codes/report.html").read_text()
    check(all(word in page for word in ("pictures, and below each", "Terms of the autoencoder", "says of decoded pictures", "training.perceptual_weight", "random convolutions", "finished", "0.02")), "an autoencoder's report")
    seconds = [json.loads(line)["seconds"] for line in (scratch / "codes/log.jsonl").read_text().splitlines()]
    check(len(seconds) == 2 and seconds[1] > seconds[0], "seconds over all runs", seconds)
    status, text = run("train", "--autoencoder", "vq-f4", "--data", "small.npy", "--out", "codes_too", "--steps", 1, "--n-embed", 16, "--backend", others[0], *few, *sizes)
    check(status == 0 and others[0] in (scratch / "codes_too/report.html").read_text() and "Perplexity" in (scratch / "codes_too/report.html").read_text(), "train --autoencoder --backend", status, text)
    status, text = run("encode", "small.npy", "codes/model.safetensors", "latents")
    index = json.loads((scratch / "latents/index.json").read_text()) if status == 0 else {}
    check([index.get(k) for k in ("values", "images", "height", "channels")] == ["moments", 20, 4, 6], "encode", status, text, index)
    status, text = run("encode", "small.npy", "codes/model.safetensors", "latents")
    check(status == 2 and "holds a data set already" in text, "encode twice", status, text)
    status, text = run("train", "--preset", "quickstart", "--data", "latents", "--out", "latent_model", "--stages", "0.5,5", "--steps", 2, "--features", "none", *few)
    check(status == 0 and "is of other latents" not in text, "train on latents", status, text)
    grid = lambda folder: next((scratch / folder / "snapshots").iterdir()).read_bytes()
    (scratch / "latents/autoencoder.safetensors").rename(scratch / "away.safetensors")
    run("train", "--preset", "quickstart", "--data", "latents", "--out", "latent_model_too", "--stages", "0.5,5", "--steps", 2, "--features", "none", *few)
    (scratch / "away.safetensors").rename(scratch / "latents/autoencoder.safetensors")
    weights = [(scratch / f / "model.safetensors").read_bytes()[-4000:] for f in ("latent_model", "latent_model_too")]
    check(weights[0] == weights[1] and grid("latent_model") != grid("latent_model_too"), "snapshots of latents are decoded")
    status, text = run("generate", "latent_model/model.safetensors", "--autoencoder", "latents/autoencoder.safetensors", "--seeds", "0-3", "--num-steps", 4, "--out", "latents.png")
    check(status == 0 and (scratch / "latents.png").read_bytes()[1:4] == b"PNG" and "warning" not in text, "generate --autoencoder", status, text)
    # Which autoencoder's latents a model learned, it knows; codes/model.safetensors has another scale_factor.
    status, text = run("generate", "latent_model", "--autoencoder", "codes", "--seeds", "0-3", "--num-steps", 4, "--out", "latents.png")
    check(status == 0 and "is another autoencoder than the one" in text, "generate with another autoencoder", status, text)
    status, text = run("generate", "latent_model", "--seeds", "0-3", "--num-steps", 4, "--out", "latents.png")
    check(status == 0 and "draws latents" in text, "generate without an autoencoder", status, text)
    status, text = run("generate", "latent_model", "--autoencoder", "codes_too", "--seeds", "0-3", "--num-steps", 4, "--out", "latents.png")
    check(status == 0 and "is another autoencoder than the one" in text, "generate with an autoencoder of another kind", status, text)
    shutil.rmtree(scratch / "pixel_model", ignore_errors=True)
    run("train", "--preset", "quickstart", "--data", "small.npy", "--out", "pixel_model", "--stages", "0.5,5", "--steps", 1, "--features", "none", *few)
    status, text = run("generate", "pixel_model", "--autoencoder", "codes", "--seeds", "0-3", "--out", "latents.png")
    check(status == 2 and "learned pictures" in text, "generate --autoencoder of pictures", status, text)
    status, text = run("train", "--preset", "ldm_celeba256", "--data", "small.npy", "--out", "no_model", "--steps", 1)
    check(status == 2 and "`encode`" in text and not (scratch / "no_model").exists(), "a preset of latents on pictures", status, text)
    status, text = run("evaluate", "small.npy", "latent_model", "--steps", "2", "--out", "curve.jpg")
    check(status == 2 and "curve.jpg: is written as a PNG" in text, "evaluate --out curve.jpg", status, text)
    status, text = run("evaluate", "small.npy", "latent_model/model.safetensors", "--autoencoder", "latents/autoencoder.safetensors", "--steps", "2,3", "--seeds", "0-9", "--backend", others[0], "--out", "curve.png")
    check(status == 0 and "5 evaluations" in text, "evaluate --autoencoder", status, text)
    status, text = run("evaluate", "small.npy", "latent_model/model.safetensors", "--steps", "2", "--seeds", "0-9", "--out", "curve.png")
    check(status == 2 and "--autoencoder" in text, "evaluate of latents", status, text)

    # Embeddings of one's own: a network learns them, is told of none by another, and is guided.
    def array(path, extents, values):
        head = ("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "".join(f"{e}, " for e in extents) + "), }").ljust(117) + "\n"
        (scratch / path).write_bytes(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + struct.pack(f"<{len(values)}f", *values))

    array("latents/context.npy", (20, 2, 4), [((i * i) % 13 - 6) / 4 for i in range(160)])
    array("latents/null_context.npy", (2, 4), [2.0] * 8)
    context = ("--preset", "ldm_imagenet256_class", "--encoder-channels", 32, "--channel-mult", 1, "--num-blocks", 1, "--attn-downsample", 1, "--decoder-channels", "32", "--stages", "1")
    status, text = run("train", "--data", "latents", "--out", "context_model", *context, "--learning-rate", 0.03, "--lr-rampup-kimg", 0, "--ema-halflife-kimg", 0.001, "--steps", 16, "--features", "none", *few)
    model_of = json.loads((scratch / "context_model/config.json").read_text()) if status == 0 else {"model": {}, "training": {}}
    check(status == 0 and (model_of["model"].get("context_dim"), model_of["model"].get("context_tokens"), model_of["training"].get("label_dropout")) == (4, 2, 0.1), "train with embeddings", status, text, model_of)
    told = lambda *options: run("generate", "context_model/model.safetensors", "--num-steps", 3, "--out", "told.npz", *options) + (pictures(scratch / "told.npz"),)
    array("two.npy", (2, 8), [1.0] * 8 + [-1.0] * 8)
    array("second.npy", (8,), [-1.0] * 8)
    size = 4 * 4 * 3
    both, alone = told("--seeds", "0-3", "--context", "two.npy", "--batch", 3), told("--seeds", "3", "--context", "second.npy")
    check(both[0] == 0 and alone[0] == 0 and both[2][-size:] == alone[2][-size:], "embeddings, one picture after the other", both[:2], alone[:2])
    check(both[2] != told("--seeds", "0-3")[2], "embeddings have no effect")
    array("wide.npy", (4, 2, 6), [0.5] * 48)  # as many numbers as six embeddings have
    status, text, _ = told("--seeds", "0-3", "--context", "wide.npy")
    check(status == 2 and "embeddings [4, 2, 6] do not fit the model, which takes 8 numbers" in text, "embeddings of another width", status, text)
    guided = [told("--seeds", "0-3", "--context", "two.npy", "--guidance", 3, *weak)[2] for weak in ((), ("--weak-context", "latents/null_context.npy"))]
    check(guided[0] != guided[1] and both[2] not in guided, "guidance away from the null context")
    status, text = run("encode", "small.npy", "codes/model.safetensors", "latents_too")
    check(status == 0 and not (scratch / "latents_too/context.npy").exists(), "encode without embeddings", status, text)
# Names of a file reach the terminal without their control characters.
if (programs / "inspect").exists():
    header = ('{"a\\u001b[31m\\u0007\\u009b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"__metadata__":{"k\\u001b":"v\\r\\u007f"}}').encode()
    (scratch / "odd.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"x")
    status, text = run("inspect", "odd.safetensors")
    check(status == 0 and r"a\x1b[31m\x07\x9b " in text, "inspect, names", status, text)
    status, whole = run("inspect", "programs.safetensors")
    status_too, listed = run("inspect", "programs.safetensors", "--tensors")
    check((status, status_too) == (0, 0) and "stages in sigma" in whole and len(whole.splitlines()) < 60, "inspect", whole)
    check(len(listed.splitlines()) > len(whole.splitlines()) + 20 and "map_layer0.weight" in listed and "map_layer0" not in whole, "inspect --tensors", listed)
    check(r"k\x1b" in text and r"v\x0d\x7f" in text and not any(ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160 for c in text), "inspect", text)
print(f"{len(samplers)} samplers, {len(refused)} refused lines, {bad} problems")
sys.exit(bad > 0)
