"""examples/convert_checkpoint.py against the real classes: small random weights, outputs compared in both directions.
usage: convert_checkpoint_test.py PROJECT RUN_NETWORK. Exits with 77 (skipped) where torch or diffusers are not installed;
tests/convert_checkpoint.sh makes an environment that has them."""
import json, pathlib, pickle, subprocess, sys, tempfile, types

try:
    import torch
    from safetensors.torch import load_file, save_file
    from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel, VQModel
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

ROOT, RUN = pathlib.Path(sys.argv[1]), sys.argv[2]
SCRIPT = ROOT / "examples" / "convert_checkpoint.py"
torch.manual_seed(0)
failures = 0


def convert(*args):
    p = subprocess.run([sys.executable, str(SCRIPT), *map(str, args)], capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    return p


def run(checkpoint, folder, **inputs):
    save_file({k: v.contiguous().float() for k, v in inputs.items()}, str(folder / "in.safetensors"))
    p = subprocess.run([RUN, str(checkpoint), str(folder / "in.safetensors"), str(folder / "out.safetensors")], capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    return load_file(str(folder / "out.safetensors"))


def check(name, got, want, room=2e-4):
    global failures
    error = ((got - want).abs().max() / want.abs().max()).item()
    print(f"{'ok  ' if error < room else 'FAIL'} {name}: {error:.2g}")
    failures += not error < room


def randomize(model):
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape) * (0.7 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.3) + (1 if p.ndim == 1 and p.shape[0] > 1 and p.mean() > 0.5 else 0))
    return model.eval()


def there_and_back(name, model, inputs, call, out="y"):
    with tempfile.TemporaryDirectory() as d:
        d = pathlib.Path(d)
        randomize(model).save_pretrained(d / "theirs")
        convert("to-multistage", d / "theirs", d / "ours.safetensors", *(["--set", f"context_tokens={inputs['context'].shape[1]}"] if "context" in inputs else []))
        got = run(d / "ours.safetensors", d, **inputs)
        with torch.no_grad():
            want = call(model)
        for k, v in want.items():
            check(f"{name}, {k}", got[k], v)
        convert("from-multistage", d / "ours.safetensors", d / "back", "--config", d / "theirs" / "config.json")
        again = type(model).from_pretrained(d / "back").eval()
        same = all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
        check(f"{name}, back again", torch.tensor([float(same)]), torch.tensor([1.0]))


x, t = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 700.0])
for settings in (
    dict(attention_head_dim=16, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")),
    dict(attention_head_dim=8, down_block_types=("AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D"), resnet_time_scale_shift="scale_shift", attn_norm_num_groups=32, layers_per_block=2),
    dict(attention_head_dim=8, down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"), downsample_type="resnet", upsample_type="resnet"),
):
    settings = dict(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=1, norm_eps=1e-5) | settings
    there_and_back(f"UNet2DModel {settings['down_block_types'][0]} {settings.get('downsample_type', 'conv')}", UNet2DModel(**settings), {"x": x, "t": t}, lambda m: {"y": m(x, t).sample})

# DDPM's models as diffusers has them (ddpm-cifar10-32, ddpm-celebahq-256, ...): sine first, frequencies shifted, small epsilon, zeros at the end only.
ddpm = dict(flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6, downsample_padding=0, attention_head_dim=None, sample_size=8, in_channels=3, out_channels=3)
for settings in (
    ddpm | dict(block_out_channels=(32, 64), layers_per_block=2, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")),
    ddpm | dict(block_out_channels=(32, 64, 64), layers_per_block=1, down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D")),
):
    there_and_back(f"UNet2DModel as DDPM has it, {len(settings['block_out_channels'])} levels", UNet2DModel(**settings), {"x": x, "t": t}, lambda m: {"y": m(x, t).sample})
# Each of these settings by itself: none may hide behind another.
for key, value in (("flip_sin_to_cos", False), ("freq_shift", 1), ("norm_eps", 0.3), ("downsample_padding", 0)):
    settings = dict(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=1, norm_eps=1e-5, attention_head_dim=16,
                    down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")) | {key: value}
    there_and_back(f"UNet2DModel {key} = {value}", UNet2DModel(**settings), {"x": x, "t": t}, lambda m: {"y": m(x, t).sample})
given = ROOT.parent / "shared" / "inputs" / "ddpm-celebahq-like" / "config.json"
if given.exists():
    large = torch.randn(2, 3, 64, 64)
    there_and_back("the configuration at hand", UNet2DModel.from_config(json.loads(given.read_text())), {"x": large, "t": t}, lambda m: {"y": m(large, t).sample})

# A pipeline's folder: the schedule comes with it; attention layers have older names; a configuration that says less means diffusers' defaults.
with tempfile.TemporaryDirectory() as d:
    d = pathlib.Path(d)
    model = randomize(UNet2DModel(**ddpm | dict(block_out_channels=(32, 64), layers_per_block=2, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"))))
    model.save_pretrained(d / "pipeline" / "unet")
    file = d / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(str(file))
    for new, name in old.items():
        tensors = {k.replace(f".{new}.", f".{name}."): v for k, v in tensors.items()}
    save_file(tensors, str(file))
    config = json.loads((d / "pipeline" / "unet" / "config.json").read_text())
    for key in ("layers_per_block", "act_fn", "center_input_sample", "mid_block_scale_factor", "add_attention"):
        del config[key]
    (d / "pipeline" / "unet" / "config.json").write_text(json.dumps(config))
    (d / "pipeline" / "scheduler").mkdir()
    scheduler = d / "pipeline" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps({"_class_name": "DDPMScheduler", "beta_start": 0.0002, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "num_train_timesteps": 500}))
    convert("to-multistage", d / "pipeline", d / "ours.safetensors")
    with torch.no_grad():
        check("a pipeline with older names", run(d / "ours.safetensors", d, x=x, t=t)["y"], model(x, t).sample)
    from safetensors import safe_open
    with safe_open(str(d / "ours.safetensors"), "pt") as f:
        stored = json.loads(f.metadata()["config"])
    want = {"beta_start": 0.0002, "beta_end": 0.02, "beta_schedule": "cosine", "prediction_type": "velocity", "num_timesteps": 500, "freq_shift": 1}
    check("its schedule", torch.tensor([float({k: stored.get(k) for k in want} == want)]), torch.ones(1))

    def refused(name, text, *args):
        p = subprocess.run([sys.executable, str(SCRIPT), *map(str, args)], capture_output=True, text=True)
        check(name, torch.tensor([float(p.returncode != 0 and text in p.stderr and "Traceback" not in p.stderr)]), torch.ones(1))

    (d / "other.json").write_text(json.dumps(config | {"flip_sin_to_cos": True}))
    refused("the way back with another configuration", "flip_sin_to_cos", "from-multistage", d / "ours.safetensors", d / "back", "--config", d / "other.json")
    scheduler.write_text(json.dumps({"rescale_betas_zero_snr": True}))
    refused("a schedule without counterpart", "rescale_betas_zero_snr", "to-multistage", d / "pipeline", d / "bad.safetensors")
    for key, value in (("downsample_padding", 2), ("freq_shift", 0.5), ("center_input_sample", True), ("out_channels", 6)):
        (d / "pipeline" / "unet" / "config.json").write_text(json.dumps(config | {key: value}))
        refused(f"{key} = {value}", key, "to-multistage", d / "pipeline", d / "bad.safetensors")
    refused("a folder without a model", "config.json", "to-multistage", d, d / "bad.safetensors")

context = torch.randn(2, 5, 24)
there_and_back(
    "UNet2DConditionModel",
    UNet2DConditionModel(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=1, attention_head_dim=2, cross_attention_dim=24, transformer_layers_per_block=2,
                         down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D")),
    {"x": x, "t": t, "context": context}, lambda m: {"y": m(x, t, context).sample})

picture = torch.randn(2, 3, 16, 16)
there_and_back(
    "AutoencoderKL", AutoencoderKL(in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=1, latent_channels=4, sample_size=16,
                                   down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2),
    {"x": picture}, lambda m: {"z": m.encode(picture).latent_dist.mode(), "decoded": m.decode(m.encode(picture).latent_dist.mode()).sample})
there_and_back(
    "VQModel", VQModel(in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=2, latent_channels=3, sample_size=16, num_vq_embeddings=16, vq_embed_dim=3,
                       down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2),
    {"x": picture}, lambda m: {"decoded": m.decode(m.encode(picture).latents).sample})

# Forms whose classes are not on PyPI: the same tensors as in a golden-like network of the library itself, wrapped as upstream wraps them.
with tempfile.TemporaryDirectory() as d:
    d = pathlib.Path(d)
    model = randomize(UNet2DModel(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32, 64), layers_per_block=1, norm_eps=1e-5, attention_head_dim=16,
                                  down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D")))
    model.save_pretrained(d / "theirs")
    convert("to-multistage", d / "theirs", d / "ours.safetensors")
    ours = load_file(str(d / "ours.safetensors"))
    with torch.no_grad():
        want = model(x, t).sample
    # Lightning checkpoint of latent diffusion, with an average that differs from the weights.
    state = {f"model.diffusion_model.{k}": torch.zeros_like(v) for k, v in ours.items()}
    state |= {"model_ema.diffusion_model" + k.replace(".", ""): v for k, v in ours.items()}
    torch.save({"state_dict": state}, d / "m.ckpt")
    convert("to-multistage", d / "m.ckpt", d / "ldm.safetensors", "--set", "resolution=8", "--set", "num_head_channels=16")
    check("latent diffusion .ckpt", run(d / "ldm.safetensors", d, x=x, t=t)["y"], want)
    p = subprocess.run([sys.executable, str(SCRIPT), "to-multistage", str(d / "m.ckpt"), str(d / "bad.safetensors")], capture_output=True, text=True)
    check("a setting that tensors do not tell is asked for", torch.tensor([float(p.returncode != 0 and "--set resolution" in p.stderr and not (d / "bad.safetensors").exists())]), torch.ones(1))
    # score_sde's form: a list of averaged parameters beside the model.
    config = {"network": "ldm_unet", "resolution": 8, "encoder_channels": 32, "channel_mult": [1, 2], "num_blocks": 1, "attn_downsample": [2], "num_head_channels": 16}
    (d / "config.json").write_text(json.dumps(config))
    names = list(ours)
    torch.save({"model": {"module." + k: torch.zeros_like(ours[k]) for k in names} | {"module.sigmas": torch.ones(3)}, "ema": {"decay": 0.999, "shadow_params": [ours[k] for k in names]}}, d / "m.pth")
    convert("to-multistage", d / "m.pth", d / "sde.safetensors", "--config", d / "config.json")
    check("score_sde .pth", run(d / "sde.safetensors", d, x=x, t=t)["y"], want)
    convert("from-multistage", d / "sde.safetensors", d / "back.pth")
    back = torch.load(d / "back.pth", weights_only=True)
    check("a state_dict again", torch.tensor([float(all(torch.equal(back[k], ours[k]) for k in names))]), torch.ones(1))

# EDM's pickles: objects that torch_utils.persistence wrote. The stand-in writes what it writes; the reader must not run anything else.
with tempfile.TemporaryDirectory() as d:
    d = pathlib.Path(d)
    persistence = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("the pickle's code was run")

    _reconstruct_persistent_obj.__module__, _reconstruct_persistent_obj.__qualname__ = "torch_utils.persistence", "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    sys.modules["torch_utils"], sys.modules["torch_utils.persistence"] = types.ModuleType("torch_utils"), persistence

    class Written:
        def __init__(self, class_name, kwargs, modules=(), parameters=()):
            self.meta = {"type": "class", "version": 6, "module_src": "raise SystemExit('run')", "class_name": class_name,
                         "state": {"_init_args": (), "_init_kwargs": kwargs, "_modules": dict(modules), "_parameters": dict(parameters), "_buffers": {}}}

        def __reduce__(self):
            return _reconstruct_persistent_obj, (self.meta,), None

    golden = ROOT / "tests" / "data" / "golden" / "edm_unet" / "ddpmpp.safetensors"
    from safetensors import safe_open
    with safe_open(str(golden), "pt") as f:
        c = json.loads(f.metadata()["config"])
        T = {k: f.get_tensor(k) for k in f.keys()}
    tree = {}
    for k, v in T.items():
        if k.startswith("param.model."):
            node = tree
            *path, leaf = k[len("param.model."):].split(".")
            for part in path:
                node = node.setdefault(part, {})
            node[leaf] = v

    def module(node):
        leaves = {k: torch.nn.Parameter(v) for k, v in node.items() if isinstance(v, torch.Tensor)}
        return Written("Part", {}, {k: module(v) for k, v in node.items() if isinstance(v, dict)}, leaves)

    arguments = {"model_channels": c["encoder_channels"], "channel_mult": c["channel_mult"], "num_blocks": c["num_blocks"], "attn_resolutions": c["attn_resolutions"]}
    inner = module(tree)
    inner.meta["class_name"], inner.meta["state"]["_init_kwargs"] = "SongUNet", arguments
    net = Written("EDMPrecond", {"img_resolution": c["resolution"], "img_channels": c["channels"]}, {"model": inner})
    with open(d / "net.pkl", "wb") as f:
        pickle.dump({"ema": net}, f)
    convert("to-multistage", d / "net.pkl", d / "edm.safetensors", "--set", f"norm_groups={c['norm_groups']}")
    check("EDM .pkl", run(d / "edm.safetensors", d, x=T["input.x"], sigma=T["input.sigma"])["y"], T["output.denoised"])
    with open(d / "evil.pkl", "wb") as f:
        f.write(b"cos\nsystem\n(S'touch " + str(d / "run").encode() + b"'\ntR.")
    p = subprocess.run([sys.executable, str(SCRIPT), "to-multistage", str(d / "evil.pkl"), str(d / "e.safetensors")], capture_output=True, text=True)
    check("a pickle that asks for more is refused", torch.tensor([float(p.returncode != 0 and not (d / "run").exists())]), torch.ones(1))

# Inception: convolutions with batch norms as torchvision's state_dict has them, folded by the script.
sys.path.insert(0, str(ROOT / "bench"))
from torch_networks import inception  # noqa: E402

with tempfile.TemporaryDirectory() as d:
    d, theirs = pathlib.Path(d), {}

    def layer(name, x, out, size=(1, 1), stride=1, padding=(0, 0)):
        if f"{name}.conv.weight" not in theirs:
            theirs[f"{name}.conv.weight"] = torch.randn(out, x.shape[1], *size) * (2 / (x.shape[1] * size[0] * size[1])) ** 0.5
            theirs.update({f"{name}.bn.weight": 1 + 0.2 * torch.rand(out), f"{name}.bn.bias": 0.1 * torch.randn(out), f"{name}.bn.running_mean": 0.1 * torch.randn(out)})
            theirs.update({f"{name}.bn.running_var": 0.5 + torch.rand(out), f"{name}.bn.num_batches_tracked": torch.tensor(3)})
        y = torch.nn.functional.conv2d(x, theirs[f"{name}.conv.weight"], stride=stride, padding=padding)
        return torch.relu(torch.nn.functional.batch_norm(y, theirs[f"{name}.bn.running_mean"], theirs[f"{name}.bn.running_var"], theirs[f"{name}.bn.weight"], theirs[f"{name}.bn.bias"], eps=1e-3))

    x = torch.rand(2, 3, 40, 33) * 2 - 1
    for pooling, classes in (("fid", 1008), ("torchvision", 1000)):
        with torch.no_grad():
            want = inception(layer, x, pooling)
        theirs |= {"fc.weight": torch.randn(classes, 2048) / 2048**0.5, "fc.bias": torch.zeros(classes), "AuxLogits.conv0.conv.weight": torch.zeros(1)}
        torch.save(theirs, d / "inception.pth")
        convert("inception", d / "inception.pth", d / "inception.safetensors")
        got = run(d / "inception.safetensors", d, x=x)
        check(f"Inception of {pooling}", got["y"].reshape(2, 2048), want)
        check("its classes", got["p"].reshape(2, classes), torch.nn.functional.linear(want, theirs["fc.weight"]).softmax(1))

print(f"{failures} failed")
sys.exit(bool(failures))
