"""Makes tests/data/golden: small network cases in the format of the golden data, computed with PyTorch (bench/torch_networks.py, written from the
specification), so that the tests stand alone. usage: make_golden.py [OUT]; needs torch and safetensors. The files are in the repository."""
import json, pathlib, sys

import numpy as np
import torch
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
from torch_networks import Parameters, autoencoder, inception, ldm_unet, ncsnpp, song_unet

OUT = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "data" / "golden"
torch.manual_seed(1)
GRADIENTS = 200  # elements of the largest tensor whose gradient is kept


def write(family, case, config, parameters, tensors, losses, checks):
    for prefix, loss in losses.items():
        names = [k for k, v in parameters.items()]
        for k, g in zip(names, torch.autograd.grad(loss, [parameters[k] for k in names], allow_unused=True)):
            if g is not None and g.numel() <= GRADIENTS:
                tensors[f"grad.{prefix}{k}"] = g
    checks.append({"output": "grad.*", "rtol": 2e-3, "atol": 2e-3})
    for k, v in parameters.items():
        tensors[("buffer." if k.endswith("freqs") else "param.") + k] = v.detach()
    folder = OUT / family
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "multistage-golden-1", "family": family, "case": case, "config": json.dumps(config), "source": "bench/torch_networks.py", "checks": json.dumps(checks)}
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, str(folder / f"{case}.safetensors"), metadata)


def stages(c):
    return [(None, "")] if c["architecture"] == "unified" else [(s, f"stage{s}.") for s in range(len(c["decoder_channels"]))]


def output_checks(prefix, *names):
    return [{"output": f"output.{prefix}{n}", "rtol": 2e-4, "atol": 1e-5 if n == "loss" else 2e-4} for n in names]


def edm(case, config):
    c = {"network": "song_unet", "architecture": "unified", "resolution": 8, "channels": 2, "encoder_channels": 4, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4],
         "norm_groups": 2, "embedding": "positional", "channel_mult_noise": 1, "encoder_type": "standard", "decoder_type": "standard", "resample_filter": [1, 1],
         "preconditioning": "EDMPrecond"} | config
    P, tensors, losses, checks = Parameters(2), {}, {}, []
    for s, q in stages(c):
        sigma = torch.tensor([0.05, 0.4] if not s else [2.0, 9.0] if s == 1 else [30.0, 60.0]).double()
        target = torch.rand(2, c["channels"], 8, 8) * 2 - 1
        x = target + torch.randn(target.shape) * sigma.reshape(-1, 1, 1, 1).float()
        f32 = sigma.float().reshape(-1, 1, 1, 1)
        skip, out, cin = 0.25 / (f32**2 + 0.25), f32 * 0.5 / (f32**2 + 0.25).sqrt(), 1 / (0.25 + f32**2).sqrt()
        raw = song_unet(P, c, cin * x, sigma.float().log() / 4, s)
        d = skip * x + out * raw
        losses[q] = (((f32**2 + 0.25) / (0.5 * f32) ** 2) * (d - target) ** 2).sum() / 2
        tensors |= {f"input.{q}x": x, f"input.{q}sigma": sigma.float(), f"input.{q}target": target, f"output.{q}raw": raw, f"output.{q}denoised": d, f"output.{q}loss": losses[q]}
        checks += output_checks(q, "raw", "denoised", "loss")
    write("edm_unet", case, c, P, tensors, losses, checks)


def score(case, config):
    c = {"network": "ncsnpp", "architecture": "unified", "encoder_channels": 4, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4], "resolution": 8, "channels": 1,
         "embedding": "positional", "resample_filter": [1, 3, 3, 1], "fir": True, "progressive": "none", "progressive_input": "residual", "progressive_combine": "sum", "skip_rescale": True,
         "resblock_type": "biggan", "resample_with_conv": True, "norm_groups": 2, "scale_by_sigma": False, "schedule": "vp", "sigma_min": 0.01, "sigma_max": 50.0, "beta_min": 0.1,
         "beta_max": 20.0, "label_scale": 999} | config
    P, tensors, losses, checks = Parameters(3), {}, {}, []
    ve = c["schedule"] == "ve"
    for s, q in stages(c):
        t = torch.tensor([0.2, 0.4]) + 0.2 * (s or 0)
        std = c["sigma_min"] * (c["sigma_max"] / c["sigma_min"]) ** t if ve else (1 - (-(t**2) * 19.9 / 2 - 0.1 * t).exp()).sqrt()
        labels = std if ve else 999 * t
        x, z = torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
        raw = ncsnpp(P, c, x, labels, s)
        std = std.reshape(-1, 1, 1, 1)
        losses[q] = (((raw if ve else -raw / std) * std + z) ** 2).mean()
        tensors |= {f"input.{q}x_t": x, f"input.{q}t": t, f"input.{q}labels": labels, f"input.{q}noise": z, f"output.{q}raw": raw, f"output.{q}loss": losses[q]}
        checks += output_checks(q, "raw", "loss")
    write("ncsnpp", case, c, P, tensors, losses, checks)


def latent(case, config, tokens=0):
    c = {"network": "ldm_unet", "architecture": "unified", "encoder_channels": 4, "channel_mult": [1, 2], "num_blocks": 1, "attn_downsample": [2], "num_head_channels": 2, "resolution": 8,
         "channels": 3, "norm_groups": 2, "spatial_transformer": False, "context_dim": 0, "transformer_depth": 0, "scale_shift_norm": False, "resblock_updown": False, "beta_start": 0.0015,
         "beta_end": 0.0195, "num_timesteps": 1000} | config
    P, tensors, losses, checks = Parameters(4), {}, {}, []
    for s, q in stages(c):
        t, x, z = torch.tensor([10.0, 300.0]) + 250 * (s or 0), torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
        context = torch.randn(2, tokens, c["context_dim"]) if tokens else None
        raw = ldm_unet(P, c, x, t, s, context)
        losses[q] = ((raw - z) ** 2).mean()
        tensors |= {f"input.{q}x_t": x, f"input.{q}timesteps": t, f"input.{q}noise": z, f"output.{q}raw": raw, f"output.{q}loss": losses[q]}
        if tokens:
            tensors[f"input.{q}context"] = context
        checks += output_checks(q, "raw", "loss")
    write("ldm_unet", case, c, P, tensors, losses, checks)


def coder(case, config):
    c = {"network": "autoencoder", "kind": "vq", "resolution": 8, "z_channels": 3, "embed_dim": 2, "n_embed": 16, "channels": 1, "encoder_channels": 4, "channel_mult": [1, 2], "num_blocks": 1,
         "attn_resolutions": [4], "commitment_beta": 0.25, "kl_weight": 0.01, "norm_groups": 2} | config
    P, x, noise = Parameters(5), torch.randn(2, 1, 8, 8), torch.randn(2, c["embed_dim"], 4, 4)
    out = autoencoder(P, c, x, noise)
    tensors = {"input.x": x, "input.noise": noise} | {f"output.{k}": v for k, v in out.items()}
    write("autoencoder", case, c, P, tensors, {"": out["loss"]}, output_checks("", *out))


def features():
    """Inception with weights that a formula gives, so that they need not be stored: a hash of the element's and the tensor's number, scaled as He has it."""
    count = 0

    def numbers(shape, scale):
        nonlocal count
        n = torch.tensor(shape).prod().item()
        h = (np.arange(n, dtype=np.uint32) * np.uint32(2654435761)) ^ np.uint32(count * 40503 + 12345)
        for shift, factor in ((15, 2246822519), (13, 3266489917)):
            h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
        h ^= h >> np.uint32(16)
        count += 1
        return torch.from_numpy(((h.astype(np.float64) / 2**32 - 0.5) * scale).astype(np.float32).reshape(shape))

    held = {}

    def conv(name, x, out, size=(1, 1), stride=1, padding=(0, 0)):
        if name not in held:
            held[name] = numbers([out, x.shape[1], *size], (24 / (x.shape[1] * size[0] * size[1])) ** 0.5), numbers([out], 0.2)
        return torch.relu(torch.nn.functional.conv2d(x, *held[name], stride=stride, padding=padding))

    i = torch.arange(2 * 19 * 23 * 3, dtype=torch.float64)
    x = (i * i * 0.001 + i * 0.7).sin().float().reshape(2, 19, 23, 3)  # [n, h, w, c]
    out = {pooling: inception(conv, x.permute(0, 3, 1, 2), pooling) for pooling in ("fid", "torchvision")}
    weight, bias = numbers([10, 2048], (12 / 2048) ** 0.5), numbers([10], 0.2)
    tensors = {"images": x, "order": torch.tensor(list("\n".join(held).encode()), dtype=torch.uint8)} | out
    tensors["probabilities"] = (torch.nn.functional.linear(out["fid"], weight, bias)).softmax(1)
    save_file({k: v.contiguous() for k, v in tensors.items()}, str(OUT.parent / "inception.safetensors"), {"source": "bench/torch_networks.py"})


features()
edm("ddpmpp", {})
edm("ncsnpp_multi", {"architecture": "multi_decoder", "decoder_channels": [8, 4, 4], "stage_boundaries": [1.0, 20.0], "embedding": "fourier", "encoder_type": "residual", "decoder_type": "skip",
                     "resample_filter": [1, 3, 3, 1]})
score("multi", {"architecture": "multi_decoder", "decoder_channels": [8, 4, 4]})
score("ve_skips", {"schedule": "ve", "embedding": "fourier", "progressive": "output_skip", "progressive_input": "input_skip", "scale_by_sigma": True})
score("ddpm", {"fir": False, "progressive_input": "none", "skip_rescale": False, "resblock_type": "ddpm"})
latent("multi", {"architecture": "multi_decoder", "decoder_channels": [8, 4, 4], "decoder_attention": [["attn", "attn", "-", "-"], ["-", "-", "-", "-"], ["attn", "-", "attn", "-"]]})
latent("context", {"spatial_transformer": True, "context_dim": 6, "transformer_depth": 2}, tokens=3)
latent("updown", {"scale_shift_norm": True, "resblock_updown": True, "attn_downsample": [1]})
coder("vq", {})
coder("kl", {"kind": "kl", "attn_resolutions": []})
print(f"{sum(f.stat().st_size for f in OUT.rglob('*.safetensors')) / 2**20:.2f} MiB in {OUT}")
