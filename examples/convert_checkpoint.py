#!/usr/bin/env python3
"""Converts published checkpoints into files that multistage opens, and back.

  convert_checkpoint.py to-multistage SOURCE OUT.safetensors [--config CONFIG.json] [--set KEY=VALUE ...] [--part unet|autoencoder] [--no-ema]
  convert_checkpoint.py from-multistage FILE.safetensors OUT [--config DIFFUSERS_CONFIG.json]
  convert_checkpoint.py inception WEIGHTS OUT.safetensors [--pooling fid|torchvision]
  convert_checkpoint.py perceptual WEIGHTS OUT.safetensors [--lin LPIPS_WEIGHTS]

SOURCE is told apart by what it is:
  *.pkl               EDM's network pickles (song_unet, adm_unet). The pickle's code is not run.
  *.pth, *.pt         score_sde's checkpoints ({'model': ..., 'ema': ...}), or a plain state_dict; --config names the network's settings
  *.ckpt              latent diffusion's Lightning checkpoints (U-Net or, with --part autoencoder, the first stage); what tensors do not tell
                      (resolution, num_head_channels, ...) comes from --set
  a folder            diffusers: UNet2DModel, UNet2DConditionModel, AutoencoderKL, VQModel
CONFIG.json holds the keys that `inspect --json` prints under "configuration". Values of --set are JSON.
Back: OUT ending in .pth or .pt becomes a state_dict under upstream's names; a folder becomes a diffusers model of the class in --config
(the model's own config.json).
inception makes the feature network of `evaluate` from Inception-v3's state_dict as torchvision (inception_v3_google-*.pth) or pytorch-fid
(pt_inception-*.pth) have it; --pooling is found by the number of classes (FID's network has 1008). perceptual makes the network of the
perceptual distance (`train --autoencoder ... --perceptual`) from torchvision's vgg16 or alexnet and LPIPS's own weights. Needs torch and safetensors.
"""
import argparse
import json
import os
import pathlib
import pickle
import re
import sys
import tempfile

try:  # --help works without them
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    missing = None
except ImportError as e:
    missing = e

FORMAT = {False: "multistage-checkpoint-1", True: "multistage-autoencoder-1"}


def fail(text):
    print(f"convert_checkpoint: {text}", file=sys.stderr)
    sys.exit(2)


# --- EDM's pickles -----------------------------------------------------------------------------------------------------------------


class Persistent:
    """What torch_utils.persistence wrote for one module: its class name, arguments and state; its source stays unread."""

    def __init__(self, meta):
        self.class_name = meta["class_name"]
        self.state = meta["state"] if isinstance(meta["state"], dict) else {}

    @property
    def arguments(self):
        return dict(self.state.get("_init_kwargs") or {})

    def tensors(self, prefix=""):
        for group in ("_parameters", "_buffers"):
            for name, value in (self.state.get(group) or {}).items():
                if value is not None:
                    yield prefix + name, value.detach() if hasattr(value, "detach") else torch.as_tensor(value)
        for name, module in (self.state.get("_modules") or {}).items():
            if module is not None:
                yield from tensors_of(module, f"{prefix}{name}.")


def tensors_of(module, prefix=""):
    if isinstance(module, Persistent):
        yield from module.tensors(prefix)
    else:
        for name, value in module.state_dict().items():
            yield prefix + name, value


class EdmUnpickler(pickle.Unpickler):
    """Rebuilds tensors and torch's own containers, nothing else: a pickle may name any function, this one calls only these."""

    ALLOWED = ("torch", "collections", "numpy", "_codecs")

    def find_class(self, module, name):
        if module == "torch_utils.persistence" and name == "_reconstruct_persistent_obj":
            return Persistent
        if module.split(".")[0] == "dnnlib" and name == "EasyDict":
            return dict
        if module == "builtins" and name in ("set", "frozenset", "dict", "list", "tuple", "slice", "complex", "bytearray"):
            return super().find_class(module, name)
        if module.split(".")[0] not in self.ALLOWED or name in ("load", "hub", "system", "exec", "eval"):
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which a network does not need")
        return super().find_class(module, name)


def from_edm(path):
    with open(path, "rb") as f:
        data = EdmUnpickler(f).load()
    net = data.get("ema") if isinstance(data, dict) else data
    if not isinstance(net, Persistent):
        fail(f"{path}: holds no network called 'ema'")
    outer, inner = net.arguments, net.state["_modules"]["model"]
    a = inner.arguments
    kind = inner.class_name
    tensors = {k: v for k, v in net.tensors() if not k.endswith("resample_filter")}
    resolution = int(outer.get("img_resolution", a.get("img_resolution", 0)))
    config = {
        "network": "song_unet" if kind == "SongUNet" else "adm_unet",
        "architecture": "unified",
        "resolution": resolution,
        "channels": int(outer.get("img_channels", a.get("in_channels", 3))),
        "label_dim": int(outer.get("label_dim", a.get("label_dim", 0)) or 0),
        "augment_dim": int(a.get("augment_dim", outer.get("augment_dim", 0)) or 0),
        "preconditioning": net.class_name,
        "norm_groups": 32,
        "dropout": float(a.get("dropout", 0.10)),
        "channel_mult_emb": int(a.get("channel_mult_emb", 4)),
    }
    if kind == "SongUNet":
        config |= {
            "encoder_channels": int(a.get("model_channels", 128)),
            "channel_mult": list(a.get("channel_mult", [1, 2, 2, 2])),
            "num_blocks": int(a.get("num_blocks", 4)),
            "attn_resolutions": list(a.get("attn_resolutions", [16])),
            "embedding": a.get("embedding_type", "positional"),
            "channel_mult_noise": int(a.get("channel_mult_noise", 1)),
            "encoder_type": a.get("encoder_type", "standard"),
            "decoder_type": a.get("decoder_type", "standard"),
            "resample_filter": list(a.get("resample_filter", [1, 1])),
        }
    elif kind == "DhariwalUNet":
        config |= {
            "encoder_channels": int(a.get("model_channels", 192)),
            "channel_mult": list(a.get("channel_mult", [1, 2, 3, 4])),
            "num_blocks": int(a.get("num_blocks", 3)),
            "attn_resolutions": list(a.get("attn_resolutions", [32, 16, 8])),
            "channels_per_head": 64,
        }
    else:
        fail(f"{path}: its network is a {kind}; SongUNet and DhariwalUNet are known")
    if net.class_name == "EDMPrecond":
        config["sigma_data"] = float(outer.get("sigma_data", 0.5))
    return config, tensors


# --- score_sde and plain state dicts -------------------------------------------------------------------------------------------------


def from_score_sde(path, config, ema):
    data = torch.load(path, map_location="cpu", weights_only=True)
    state = data.get("model", data.get("state_dict", data))
    state = {re.sub(r"^module\.", "", k): v for k, v in state.items() if isinstance(v, torch.Tensor)}
    if ema and isinstance(data.get("ema"), dict) and "shadow_params" in data["ema"]:
        shadow = list(data["ema"]["shadow_params"])
        # The average holds the trained parameters in order; the sigmas are a buffer, random frequencies are not trained.
        names = [k for k in state if k != "sigmas" and not (k.endswith(".W") and state[k].ndim == 1)]
        if len(names) != len(shadow):
            fail(f"{path}: its average has {len(shadow)} tensors, the network {len(names)}")
        state |= dict(zip(names, shadow))
    state.pop("sigmas", None)
    if config is None:
        fail(f"{path}: --config CONFIG.json must give the network's settings")
    return config, state


# --- latent diffusion -----------------------------------------------------------------------------------------------------------------


def from_ldm(path, settings, part, ema, trust):
    try:
        data = torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as e:
        fail(f"{path}: holds more than tensors ({e}); give --trust if its code may be run")
    state = data.get("state_dict", data)
    if part == "autoencoder":
        prefix = "first_stage_model." if any(k.startswith("first_stage_model.") for k in state) else ""
        tensors = {k[len(prefix):]: v for k, v in state.items() if k.startswith(prefix)}
        keep = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "quantize.")
        tensors = {k: v for k, v in tensors.items() if k.startswith(keep)}
        return autoencoder_config(tensors, settings), tensors
    prefix = "model.diffusion_model."
    tensors = {k[len(prefix):]: v for k, v in state.items() if k.startswith(prefix)}
    if not tensors:
        fail(f"{path}: has no tensors called {prefix}*")
    if ema:
        flat = {"diffusion_model" + k.replace(".", ""): k for k in tensors}
        for k, v in state.items():
            if k.startswith("model_ema.") and k[len("model_ema."):] in flat:
                tensors[flat[k[len("model_ema."):]]] = v
    classes = state.get("cond_stage_model.embedding.weight")
    if classes is not None:
        tensors["class_embedder.embedding.weight"] = classes
    return ldm_config(tensors, settings), tensors


def ldm_config(t, settings):
    """What the tensors of a latent U-Net tell of its settings."""
    blocks = sorted({int(k.split(".")[1]) for k in t if k.startswith("input_blocks.")})
    width = t["input_blocks.0.0.weight"].shape[0]
    mult, attention, level, per_level = [], [], 0, 0
    widths, updown = [], False
    for i in blocks[1:]:
        down = f"input_blocks.{i}.0.op.weight" in t
        first = f"input_blocks.{i}.0.in_layers.0.weight" in t
        if first and level_ends(t, i, per_level, settings):
            down = updown = True
        if down:
            mult.append(widths[-1] // width)
            level, per_level = level + 1, 0
            continue
        widths.append(t[f"input_blocks.{i}.0.out_layers.0.weight"].shape[0])
        per_level += 1
        if any(k.startswith(f"input_blocks.{i}.1.") for k in t) and 2**level not in attention:
            attention.append(2**level)
    mult.append(widths[-1] // width)
    stages = sorted({int(k.split(".")[1]) for k in t if k.startswith("de_modules.")})
    transformer = any(".transformer_blocks." in k for k in t)
    config = {
        "network": "ldm_unet",
        "architecture": "multi_decoder" if stages else "unified",
        "channels": t["input_blocks.0.0.weight"].shape[1],
        "encoder_channels": width,
        "channel_mult": mult,
        "num_blocks": len(widths) // len(mult),
        "attn_downsample": attention,
        "norm_groups": 32,
        "spatial_transformer": transformer,
        "scale_shift_norm": t["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * t["input_blocks.1.0.out_layers.0.weight"].shape[0],
        "resblock_updown": updown,
    }
    if transformer:
        attn2 = next(k for k in sorted(t) if k.endswith("attn2.to_k.weight"))
        config["context_dim"] = t[attn2].shape[1]
        config["transformer_depth"] = 1 + max(int(m[1]) for m in (re.search(r"transformer_blocks\.(\d+)\.", k) for k in t) if m)
    if "class_embedder.embedding.weight" in t:
        config |= {"label_dim": t["class_embedder.embedding.weight"].shape[0], "class_context": True}
    elif "label_emb.weight" in t:
        config["label_dim"] = t["label_emb.weight"].shape[0]
    if stages:
        config["decoder_channels"] = [t[f"outs.{s}.0.weight"].shape[0] // mult[0] for s in stages]
        config["decoder_attention"] = [
            ["attn" if any(re.match(rf"de_modules\.{s}\.{i}\.1\.(norm|proj_in)\.", k) for k in t) else "-" for i in sorted({int(k.split(".")[2]) for k in t if k.startswith(f"de_modules.{s}.")})]
            for s in stages
        ]
    return finish_config(config, settings, ["resolution", "num_head_channels" if "num_heads" not in settings else "num_heads"])


def level_ends(t, i, per_level, settings):
    """Whether a residual block only resamples (resblock_updown): --set num_blocks tells."""
    return bool(settings.get("resblock_updown")) and per_level == int(settings.get("num_blocks", 2))


def autoencoder_config(t, settings):
    levels = sorted({int(k.split(".")[2]) for k in t if k.startswith("encoder.down.")})
    width = t["encoder.conv_in.weight"].shape[0]
    vq = "quantize.embedding.weight" in t
    embed = t["quant_conv.weight"].shape[0] // (1 if vq else 2)
    config = {
        "network": "autoencoder",
        "kind": "vq" if vq else "kl",
        "channels": t["encoder.conv_in.weight"].shape[1],
        "encoder_channels": width,
        "channel_mult": [t[f"encoder.down.{l}.block.0.conv1.weight"].shape[0] // width for l in levels],
        "num_blocks": 1 + max(int(k.split(".")[4]) for k in t if k.startswith("encoder.down.0.block.")),
        "z_channels": t["encoder.conv_out.weight"].shape[0] // (1 if vq else 2),
        "embed_dim": embed,
        "n_embed": t["quantize.embedding.weight"].shape[0] if vq else 0,
        "norm_groups": 32,
    }
    config = finish_config(config, settings, ["resolution"])
    attending = [l for l in levels if f"encoder.down.{l}.attn.0.norm.weight" in t]
    config["attn_resolutions"] = [config["resolution"] >> l for l in attending]
    return config


def finish_config(config, settings, needed):
    config |= settings
    missing = [k for k in needed if k not in config]
    if missing:
        fail(f"the tensors do not tell {', '.join(missing)}; give --set {missing[0]}=...")
    return config


# --- diffusers -------------------------------------------------------------------------------------------------------------------------


def res_names(ours, theirs, autoencoder=False):
    if autoencoder:
        pairs = [("norm1", "norm1"), ("conv1", "conv1"), ("norm2", "norm2"), ("conv2", "conv2"), ("nin_shortcut", "conv_shortcut")]
    else:
        pairs = [("in_layers.0", "norm1"), ("in_layers.2", "conv1"), ("emb_layers.1", "time_emb_proj"), ("out_layers.0", "norm2"), ("out_layers.3", "conv2"), ("skip_connection", "conv_shortcut")]
    return [(f"{ours}.{a}", f"{theirs}.{b}") for a, b in pairs]


def resamples_in_block(kind, setting):
    """Whether a diffusers block resamples inside a residual block; plain blocks ignore downsample_type."""
    return kind.startswith("Resnet") or ("Attn" in kind and "Cross" not in kind and setting == "resnet")


class Names:
    """Pairs of layers; a layer's kind says how its tensors change: same, transformer (a whole subtree keeps its names), attention."""

    def __init__(self):
        self.same, self.trees, self.attention, self.square = [], [], [], []


def unet_names(c):
    """(our layer, diffusers' layer) for UNet2DModel and UNet2DConditionModel."""
    n = Names()
    n.same += [("time_embed.0", "time_embedding.linear_1"), ("time_embed.2", "time_embedding.linear_2"), ("input_blocks.0.0", "conv_in"), ("out.0", "conv_norm_out"), ("out.2", "conv_out")]
    levels, blocks = len(c["block_out_channels"]), c["layers_per_block"]

    def attend(ours, theirs, kind):
        if "CrossAttn" in kind:
            n.trees.append((ours, theirs))
        elif "Attn" in kind:
            n.attention.append((ours, theirs))

    i = 1
    for l, kind in enumerate(c["down_block_types"]):
        for j in range(blocks):
            n.same += res_names(f"input_blocks.{i}.0", f"down_blocks.{l}.resnets.{j}")
            attend(f"input_blocks.{i}.1", f"down_blocks.{l}.attentions.{j}", kind)
            i += 1
        if l < levels - 1:
            if resamples_in_block(kind, c.get("downsample_type")):
                n.same += res_names(f"input_blocks.{i}.0", f"down_blocks.{l}.downsamplers.0")
            else:
                n.same.append((f"input_blocks.{i}.0.op", f"down_blocks.{l}.downsamplers.0.conv"))
            i += 1
    n.same += res_names("middle_block.0", "mid_block.resnets.0") + res_names("middle_block.2", "mid_block.resnets.1")
    attend("middle_block.1", "mid_block.attentions.0", "CrossAttn" if c["_class_name"] == "UNet2DConditionModel" else "Attn")
    i = 0
    for l, kind in enumerate(c["up_block_types"]):
        for j in range(blocks + 1):
            n.same += res_names(f"output_blocks.{i}.0", f"up_blocks.{l}.resnets.{j}")
            attend(f"output_blocks.{i}.1", f"up_blocks.{l}.attentions.{j}", kind)
            if j == blocks and l < levels - 1:
                part = 2 if "Attn" in kind else 1
                if resamples_in_block(kind, c.get("upsample_type")):
                    n.same += res_names(f"output_blocks.{i}.{part}", f"up_blocks.{l}.upsamplers.0")
                else:
                    n.same.append((f"output_blocks.{i}.{part}.conv", f"up_blocks.{l}.upsamplers.0.conv"))
            i += 1
    return n


def autoencoder_names(c):
    n = Names()
    levels, blocks = len(c["block_out_channels"]), c["layers_per_block"]
    n.same += [("quant_conv", "quant_conv"), ("post_quant_conv", "post_quant_conv"), ("quantize.embedding", "quantize.embedding")]
    for side in ("encoder", "decoder"):
        n.same += [(f"{side}.conv_in", f"{side}.conv_in"), (f"{side}.norm_out", f"{side}.conv_norm_out"), (f"{side}.conv_out", f"{side}.conv_out")]
        n.same += res_names(f"{side}.mid.block_1", f"{side}.mid_block.resnets.0", True) + res_names(f"{side}.mid.block_2", f"{side}.mid_block.resnets.1", True)
        n.square.append((f"{side}.mid.attn_1", f"{side}.mid_block.attentions.0"))
    for l in range(levels):
        for j in range(blocks):
            n.same += res_names(f"encoder.down.{l}.block.{j}", f"encoder.down_blocks.{l}.resnets.{j}", True)
            n.square.append((f"encoder.down.{l}.attn.{j}", f"encoder.down_blocks.{l}.attentions.{j}"))
        n.same.append((f"encoder.down.{l}.downsample.conv", f"encoder.down_blocks.{l}.downsamplers.0.conv"))
        up = levels - 1 - l
        for j in range(blocks + 1):
            n.same += res_names(f"decoder.up.{up}.block.{j}", f"decoder.up_blocks.{l}.resnets.{j}", True)
            n.square.append((f"decoder.up.{up}.attn.{j}", f"decoder.up_blocks.{l}.attentions.{j}"))
        n.same.append((f"decoder.up.{up}.upsample.conv", f"decoder.up_blocks.{l}.upsamplers.0.conv"))
    return n


# What diffusers' classes take for a setting that an (older) config.json does not name.
UNET_DEFAULTS = {"center_input_sample": False, "flip_sin_to_cos": True, "freq_shift": 0, "downsample_padding": 1, "mid_block_scale_factor": 1, "norm_eps": 1e-5, "layers_per_block": 2, "act_fn": "silu"}
CLASS_DEFAULTS = {
    "UNet2DModel": UNET_DEFAULTS | {"attention_head_dim": 8, "in_channels": 3, "out_channels": 3},
    "UNet2DConditionModel": UNET_DEFAULTS | {"attention_head_dim": 8, "in_channels": 4, "out_channels": 4, "cross_attention_dim": 1280},
    "AutoencoderKL": {"layers_per_block": 1, "latent_channels": 4, "in_channels": 3, "out_channels": 3},
    "VQModel": {"layers_per_block": 1, "latent_channels": 3, "num_vq_embeddings": 256, "in_channels": 3, "out_channels": 3},
}
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # names before diffusers 0.16


def diffusers_class(path):
    """A diffusers config.json with the class's defaults filled in."""
    c = json.loads(pathlib.Path(path).read_text())
    kind = c.get("_class_name")
    if kind not in CLASS_DEFAULTS:
        fail(f"{path}: is of class {kind!r}; {', '.join(CLASS_DEFAULTS)} are known")
    return CLASS_DEFAULTS[kind] | c


def renamed_attention(name):
    return re.sub(r"(\.attentions\.\d+)\.(query|key|value|proj_attn)\.", lambda m: f"{m[1]}.{OLD_ATTENTION[m[2]]}.", name)


def scheduler_settings(folder):
    """The noise schedule that a pipeline's scheduler_config.json names, in this library's words; without such a file none."""
    for path in (folder / "scheduler_config.json", folder / "scheduler" / "scheduler_config.json", folder.parent / "scheduler" / "scheduler_config.json"):
        if path.exists():
            break
    else:
        print(f"{folder}: no scheduler_config.json says how noise was added in training; latent diffusion's schedule is assumed "
              "(--set beta_schedule=linear beta_start=1e-4 beta_end=0.02 is DDPM's)", file=sys.stderr)
        return {}
    c = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000, "prediction_type": "epsilon"} | json.loads(path.read_text())
    schedules = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
    predictions = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "velocity"}
    refuse(c, {"beta_schedule": list(schedules), "prediction_type": list(predictions), "trained_betas": [None], "rescale_betas_zero_snr": [False]})
    return {"beta_schedule": schedules[c["beta_schedule"]], "beta_start": c["beta_start"], "beta_end": c["beta_end"],
            "num_timesteps": c["num_train_timesteps"], "prediction_type": predictions[c["prediction_type"]]}


def heads_of(channels, c):
    """Channels of a head in an attention of that width."""
    if c["_class_name"] == "UNet2DConditionModel":
        return channels // (c.get("num_attention_heads") or c["attention_head_dim"])
    return c["attention_head_dim"] or channels


def to_ours(t, n, c):
    out = {}
    for ours, theirs in n.same:
        for kind in ("weight", "bias"):
            if f"{theirs}.{kind}" in t:
                out[f"{ours}.{kind}"] = t[f"{theirs}.{kind}"]
    for ours, theirs in n.trees:
        for k in t:
            if k.startswith(theirs + "."):
                out[ours + k[len(theirs):]] = t[k]
    for ours, theirs in n.attention:  # three matrices become one, head by head
        channels = t[f"{theirs}.to_q.weight"].shape[0]
        d = heads_of(channels, c)
        stack = lambda kind: torch.stack([t[f"{theirs}.to_{p}.{kind}"].reshape(channels // d, d, *t[f"{theirs}.to_{p}.{kind}"].shape[1:]) for p in "qkv"], 1).flatten(0, 2)
        out[f"{ours}.qkv.weight"], out[f"{ours}.qkv.bias"] = stack("weight")[..., None], stack("bias")
        out[f"{ours}.norm.weight"], out[f"{ours}.norm.bias"] = t[f"{theirs}.group_norm.weight"], t[f"{theirs}.group_norm.bias"]
        out[f"{ours}.proj_out.weight"], out[f"{ours}.proj_out.bias"] = t[f"{theirs}.to_out.0.weight"][..., None], t[f"{theirs}.to_out.0.bias"]
    for ours, theirs in n.square:  # 1x1 convolutions are matrices there
        if f"{theirs}.to_q.weight" not in t:
            continue
        out[f"{ours}.norm.weight"], out[f"{ours}.norm.bias"] = t[f"{theirs}.group_norm.weight"], t[f"{theirs}.group_norm.bias"]
        for a, b in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
            out[f"{ours}.{a}.weight"], out[f"{ours}.{a}.bias"] = t[f"{theirs}.{b}.weight"][:, :, None, None], t[f"{theirs}.{b}.bias"]
    return out


def to_theirs(t, n, c):
    out = {}
    for ours, theirs in n.same:
        for kind in ("weight", "bias"):
            if f"{ours}.{kind}" in t:
                out[f"{theirs}.{kind}"] = t[f"{ours}.{kind}"]
    for ours, theirs in n.trees:
        for k in t:
            if k.startswith(ours + "."):
                out[theirs + k[len(ours):]] = t[k]
    for ours, theirs in n.attention:
        channels = t[f"{ours}.proj_out.weight"].shape[0]
        d = heads_of(channels, c)
        for kind in ("weight", "bias"):
            q = t[f"{ours}.qkv.{kind}"]
            q = q[..., 0] if kind == "weight" else q
            for p, part in zip("qkv", q.reshape(channels // d, 3, d, *q.shape[1:]).unbind(1)):
                out[f"{theirs}.to_{p}.{kind}"] = part.flatten(0, 1)
            out[f"{theirs}.group_norm.{kind}"] = t[f"{ours}.norm.{kind}"]
        out[f"{theirs}.to_out.0.weight"], out[f"{theirs}.to_out.0.bias"] = t[f"{ours}.proj_out.weight"][..., 0], t[f"{ours}.proj_out.bias"]
    for ours, theirs in n.square:
        if f"{ours}.q.weight" not in t:
            continue
        for kind in ("weight", "bias"):
            out[f"{theirs}.group_norm.{kind}"] = t[f"{ours}.norm.{kind}"]
            for a, b in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")):
                v = t[f"{ours}.{a}.{kind}"]
                out[f"{theirs}.{b}.{kind}"] = v[:, :, 0, 0] if kind == "weight" else v
    return out


def refuse(c, wanted):
    for key, allowed in wanted.items():
        if key in c and c[key] not in allowed:
            fail(f"diffusers setting {key} = {c[key]!r} has no counterpart here; known: {', '.join(map(repr, allowed))}")


def diffusers_config(c, settings):
    kind = c["_class_name"]
    width = list(c["block_out_channels"])
    if any(w % width[0] for w in width):
        fail(f"block_out_channels {width} are not multiples of the first")
    config = {"channels": c["in_channels"], "encoder_channels": width[0], "channel_mult": [w // width[0] for w in width], "num_blocks": c["layers_per_block"], "norm_groups": c.get("norm_num_groups", 32)}
    refuse(c, {"act_fn": ["silu", "swish"]})
    if kind in ("AutoencoderKL", "VQModel"):
        refuse(c, {"mid_block_add_attention": [True, None], "norm_type": ["group"], "lookup_from_codebook": [False]})
        vq = kind == "VQModel"
        config |= {"network": "autoencoder", "kind": "vq" if vq else "kl", "resolution": c.get("sample_size", 256), "z_channels": c["latent_channels"]}
        config["embed_dim"] = (c.get("vq_embed_dim") or c["latent_channels"]) if vq else c["latent_channels"]
        config["n_embed"] = c["num_vq_embeddings"] if vq else 0
        config["attn_resolutions"] = [config["resolution"] >> l for l, b in enumerate(c["down_block_types"]) if "Attn" in b]
    else:
        refuse(c, {"center_input_sample": [False], "flip_sin_to_cos": [True, False], "freq_shift": [0, 1], "downsample_padding": [1, 0], "mid_block_scale_factor": [1],
                   "time_embedding_type": ["positional"], "class_embed_type": [None], "num_class_embeds": [None], "use_linear_projection": [False], "dual_cross_attention": [False],
                   "only_cross_attention": [False], "add_attention": [True], "attn_norm_num_groups": [None, config["norm_groups"]]})
        if c.get("resnet_time_scale_shift") == "scale_shift" and c.get("attn_norm_num_groups") is None:
            fail("with resnet_time_scale_shift and no attn_norm_num_groups the middle attention has no norm; networks here have one")
        cross = kind == "UNet2DConditionModel"
        inside = [resamples_in_block(b, c.get("downsample_type")) for b in c["down_block_types"][:-1]] + [resamples_in_block(b, c.get("upsample_type")) for b in c["up_block_types"][:-1]]
        if len(set(inside)) > 1:
            fail("some blocks resample inside residual blocks, others do not")
        if c["in_channels"] != c["out_channels"]:
            fail(f"in_channels {c['in_channels']} and out_channels {c['out_channels']} differ; networks here give back what they take")
        size = c["sample_size"] if isinstance(c.get("sample_size"), list) else [c.get("sample_size")] * 2
        if None in size and "resolution" not in settings:
            fail("config.json names no sample_size; give --set resolution=...")
        config |= {"resolution": size[0]} | ({"columns": size[1]} if size[0] != size[1] else {})
        config |= {"flip_sin_to_cos": c["flip_sin_to_cos"], "freq_shift": int(c["freq_shift"]), "norm_eps": c["norm_eps"], "downsample_padding": c["downsample_padding"]}
        config |= {"network": "ldm_unet", "architecture": "unified", "spatial_transformer": cross,
                   "attn_downsample": [2**l for l, b in enumerate(c["down_block_types"]) if "Attn" in b],
                   "scale_shift_norm": c.get("resnet_time_scale_shift") == "scale_shift",
                   "resblock_updown": bool(inside and inside[0]), "dropout": c.get("dropout", 0.0)}
        up = [2 ** (len(width) - 1 - l) for l, b in enumerate(c["up_block_types"]) if "Attn" in b]
        if sorted(up) != sorted(config["attn_downsample"]):
            fail("encoder and decoder attend at different levels")
        if cross:
            heads = c.get("num_attention_heads") or c["attention_head_dim"]
            depth = c.get("transformer_layers_per_block", 1)
            if not isinstance(heads, int) or not isinstance(depth, int):
                fail("attention_head_dim and transformer_layers_per_block must be the same at all levels")
            config |= {"num_head_channels": 0, "num_heads": heads, "context_dim": c["cross_attention_dim"], "transformer_depth": depth}
        else:
            config |= {"num_head_channels": c["attention_head_dim"] or 0, "num_heads": 1}
    return config | settings


def from_diffusers(folder, settings):
    folder = pathlib.Path(folder)
    if not (folder / "config.json").exists() and (folder / "unet" / "config.json").exists():
        folder = folder / "unet"  # a whole pipeline
    if not (folder / "config.json").exists():
        fail(f"{folder}: holds no config.json; a folder that diffusers' save_pretrained wrote is expected")
    c = diffusers_class(folder / "config.json")
    files = sorted(folder.glob("diffusion_pytorch_model*.safetensors"))
    if files:
        t = {k: v for f in files for k, v in load_file(f).items()}
    elif (folder / "diffusion_pytorch_model.bin").exists():
        t = torch.load(folder / "diffusion_pytorch_model.bin", map_location="cpu", weights_only=True)
    else:
        fail(f"{folder}: holds no diffusion_pytorch_model")
    t = {renamed_attention(k): v for k, v in t.items()}
    config = diffusers_config(c, settings)
    if config["network"] != "autoencoder":
        config = scheduler_settings(folder) | config
    names = autoencoder_names(c) if config["network"] == "autoencoder" else unet_names(c)
    ours = to_ours(t, names, c)
    left = set(t) - set(to_theirs(ours, names, c))
    if left:
        fail(f"{folder}: {len(left)} tensors have no counterpart here, {sorted(left)[0]} among them")
    return config, ours


# --- the two directions ----------------------------------------------------------------------------------------------------------------


def write(path, tensors, metadata):
    """Under a temporary name first: an interrupted conversion leaves no half file."""
    handle, temporary = tempfile.mkstemp(".partial", pathlib.Path(path).name[:200] + ".", pathlib.Path(path).parent)
    os.fchmod(handle, 0o644)
    os.close(handle)
    try:
        save_file({k: v.to(torch.float32).contiguous() if v.is_floating_point() else v.contiguous() for k, v in tensors.items()}, temporary, metadata)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def to_multistage(a):
    settings = {}
    for s in a.set:
        key, _, value = s.partition("=")
        try:
            settings[key] = json.loads(value)
        except json.JSONDecodeError:
            settings[key] = value
    given = json.loads(pathlib.Path(a.config).read_text()) if a.config else None
    source = pathlib.Path(a.source)
    if source.is_dir():
        config, tensors = from_diffusers(source, settings)
    elif source.suffix == ".pkl":
        config, tensors = from_edm(source)
    elif source.suffix == ".ckpt":
        config, tensors = from_ldm(source, settings, a.part, not a.no_ema, a.trust)
    elif source.suffix in (".pth", ".pt"):
        config, tensors = from_score_sde(source, given, not a.no_ema)
    else:
        fail(f"{source}: is neither a folder nor a .pkl, .pth, .pt or .ckpt file")
    config = config | (given or {}) | settings
    write(a.out, tensors, {"format": FORMAT[config.get("network") == "autoencoder"], "config": json.dumps(config)})
    print(f"{a.out}: {len(tensors)} tensors, {sum(v.numel() for v in tensors.values()) / 1e6:.2f} M values, {config['network']}")


def inception(a):
    source = pathlib.Path(a.source)
    t = load_file(source) if source.suffix == ".safetensors" else torch.load(source, map_location="cpu", weights_only=True)
    layers = sorted(k.removesuffix(".conv.weight") for k in t if k.endswith(".conv.weight") and not k.startswith("AuxLogits"))
    if len(layers) != 94:
        fail(f"{source}: has {len(layers)} convolutions, Inception-v3 has 94; give the state_dict of torchvision's inception_v3 or of pytorch-fid")
    out = {}
    for name in layers:
        bn = {k: t[f"{name}.bn.{k}"].double() for k in ("weight", "bias", "running_mean", "running_var")}
        gain = bn["weight"] / (bn["running_var"] + 1e-3).sqrt()
        out[f"{name}.weight"] = t[f"{name}.conv.weight"].double() * gain[:, None, None, None]
        out[f"{name}.bias"] = bn["bias"] - bn["running_mean"] * gain
    for k in ("fc.weight", "fc.bias"):
        if k in t:
            out[k] = t[k]
    pooling = a.pooling or ("torchvision" if "fc.bias" in t and len(t["fc.bias"]) == 1000 else "fid")
    write(a.out, out, {"format": "multistage-inception-1", "pooling": pooling})
    print(f"{a.out}: Inception-v3, {sum(v.numel() for v in out.values()) / 1e6:.2f} M values, {pooling} pooling")


def perceptual(a):
    """torchvision's vgg16 or alexnet, and LPIPS's weights of their channels (lin0.model.1.weight ...; without: all alike)."""
    load = lambda path: load_file(path) if pathlib.Path(path).suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    t = load(a.source)
    out = {k: v for k, v in t.items() if k.startswith("features.")}
    widths = [v.shape[0] for k, v in out.items() if k.endswith(".weight")]
    kinds = {"vgg16": [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512], "alexnet": [64, 192, 384, 256, 256]}
    kind = next((k for k, v in kinds.items() if v == widths), None) or fail(f"{a.source}: its features are those of neither vgg16 nor alexnet; give torchvision's state_dict")
    channels = [64, 128, 256, 512, 512] if kind == "vgg16" else widths
    lin = load(a.lin) if a.lin else {}
    for i, n in enumerate(channels):
        own = [v for k, v in lin.items() if k.startswith(f"lin{i}.") and k.endswith("weight")]
        if a.lin and (len(own) != 1 or own[0].numel() != n):
            fail(f"{a.lin}: has no lin{i} of {n} channels; give LPIPS's file for {kind}")
        out[f"lin{i}.weight"] = own[0].reshape(n) if own else torch.full((n,), 1 / n)
    write(a.out, out, {"format": "multistage-perceptual-1", "network": kind})
    print(f"{a.out}: {kind}, {sum(v.numel() for v in out.values()) / 1e6:.2f} M values, {'weights of LPIPS' if a.lin else 'all channels alike'}")


def fits(source, path, stored, asked):
    """The way back keeps no more than the diffusers configuration can say: what the checkpoint has otherwise is refused."""
    free = ("resolution", "columns", "attn_resolutions", "dropout", "context_tokens")  # of the pictures or of training, not of the weights
    listed = lambda v: sorted(v) if isinstance(v, list) else v
    for key in sorted(set(asked) & set(stored) - set(free)):
        ours, theirs = (v if key == "channel_mult" else listed(v) for v in (stored[key], asked[key]))
        if ours != theirs:
            fail(f"{path}: asks for {key} = {theirs!r}, {source} has {ours!r}")


def from_multistage(a):
    with safe_open(a.source, "pt") as f:
        stored = json.loads((f.metadata() or {}).get("config", "{}"))
        tensors = {k: f.get_tensor(k) for k in f.keys() if not k.startswith("training.")}
    out = pathlib.Path(a.out)
    if out.suffix in (".pth", ".pt"):
        torch.save(tensors, out)
    else:
        if not a.config:
            fail("a diffusers folder needs --config DIFFUSERS_CONFIG.json, the model's own config.json")
        c = diffusers_class(a.config)
        fits(a.source, a.config, stored, diffusers_config(c, {"resolution": stored.get("resolution", 0)}))
        names = autoencoder_names(c) if c["_class_name"] in ("AutoencoderKL", "VQModel") else unet_names(c)
        out.mkdir(parents=True, exist_ok=True)
        write(str(out / "diffusion_pytorch_model.safetensors"), to_theirs(tensors, names, c), {"format": "pt"})
        (out / "config.json").write_text(pathlib.Path(a.config).read_text())
    print(f"{out}: written")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(required=True)
    q = sub.add_parser("to-multistage")
    q.add_argument("source")
    q.add_argument("out")
    q.add_argument("--config")
    q.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    q.add_argument("--part", choices=["unet", "autoencoder"], default="unet")
    q.add_argument("--no-ema", action="store_true", help="take the trained weights instead of their average")
    q.add_argument("--trust", action="store_true", help="run the code of a .ckpt's pickle (training frameworks store objects of theirs)")
    q.set_defaults(run=to_multistage)
    q = sub.add_parser("from-multistage")
    q.add_argument("source")
    q.add_argument("out")
    q.add_argument("--config")
    q.set_defaults(run=from_multistage)
    q = sub.add_parser("inception")
    q.add_argument("source")
    q.add_argument("out")
    q.add_argument("--pooling", choices=["fid", "torchvision"])
    q.set_defaults(run=inception)
    q = sub.add_parser("perceptual")
    q.add_argument("source")
    q.add_argument("out")
    q.add_argument("--lin", help="LPIPS's weights of the channels (vgg.pth, alex.pth)")
    q.set_defaults(run=perceptual)
    a = p.parse_args()
    if missing:
        fail(f"torch and safetensors are needed (pip install torch safetensors): {missing}")
    try:
        a.run(a)
    except (OSError, ValueError, KeyError) as e:  # unreadable files, broken JSON, settings that are not there
        fail(f"{a.source}: {type(e).__name__}: {e}")


if __name__ == "__main__":
    main()
