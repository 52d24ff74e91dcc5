"""The library's networks in PyTorch, for races and for golden data: each written from its specification, with upstream's tensor names. Parameters
come into being when a network is first run, so that a network is one function that reads like its figure."""
import math

import torch
import torch.nn.functional as F


class Parameters(dict):
    """Tensors by name; a missing one is drawn when it is first asked for, so that values neither vanish nor explode."""

    def __init__(self, seed=0):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def tensor(self, name, *shape):
        if name not in self:
            v = torch.randn(shape, generator=self.generator)
            if len(shape) > 1:
                v = v / math.prod(shape[1:]) ** 0.5
            elif name.endswith("weight"):
                v = 1 + 0.1 * v
            elif name.endswith("bias") or name.endswith(".b"):
                v = 0.1 * v
            self[name] = v.requires_grad_()
        return self[name]

    def conv(self, name, x, out, k=3, bias=True, **kw):
        kw.setdefault("padding", k // 2)
        return F.conv2d(x, self.tensor(f"{name}.weight", out, x.shape[1], k, k), self.tensor(f"{name}.bias", out) if bias else None, **kw)

    def linear(self, name, x, out, bias=True):
        return F.linear(x, self.tensor(f"{name}.weight", out, x.shape[-1]), self.tensor(f"{name}.bias", out) if bias else None)

    def nin(self, name, x, out):
        w = self.tensor(f"{name}.W", x.shape[1], out)
        return F.conv2d(x, w.t()[:, :, None, None], self.tensor(f"{name}.b", out))

    def norm(self, name, x, groups, eps):
        c = x.shape[1]
        return F.group_norm(x, groups, self.tensor(f"{name}.weight", c), self.tensor(f"{name}.bias", c), eps)

    def layer_norm(self, name, x):
        c = x.shape[-1]
        return F.layer_norm(x, (c,), self.tensor(f"{name}.weight", c), self.tensor(f"{name}.bias", c), 1e-5)


def attend(q, k, v):
    """[rows, heads, tokens, dim]"""
    return F.scaled_dot_product_attention(q, k, v)


def kernel(taps, like):
    f = torch.tensor(taps, dtype=like.dtype)
    f = f[:, None] * f
    return (f / f.sum()).to(memory_format=torch.contiguous_format)


def depthwise(x, f, **kw):
    c = x.shape[1]
    return F.conv2d(x, f[None, None].expand(c, 1, *f.shape), groups=c, **kw)


def move(x, taps, up):
    """Resampling by two with a separable filter; [1, 1] is the mean and the nearest neighbour."""
    if list(taps) == [1, 1]:
        return F.interpolate(x, scale_factor=2, mode="nearest") if up else F.avg_pool2d(x, 2)
    f, pad, c = kernel(taps, x), (len(taps) - 1) // 2, x.shape[1]
    return F.conv_transpose2d(x, (4 * f)[None, None].expand(c, 1, *f.shape), stride=2, padding=pad, groups=c) if up else depthwise(x, f, stride=2, padding=pad)


def angles(t, n, endpoint):
    return t[:, None].float() * 10000 ** (-torch.arange(n // 2) / (n // 2 - (1 if endpoint else 0)))


def song_unet(P, c, x, noise, stage=None, labels=None):
    """EDM's SongUNet; c: the configuration of a golden case; stage: None for one decoder."""
    groups = lambda h: min(c["norm_groups"], h.shape[1] // 4)
    n, filt, r2 = c["encoder_channels"] * c.get("channel_mult_noise", 1), c["resample_filter"], math.sqrt(0.5)
    a = angles(noise, n, True) if c["embedding"] == "positional" else 2 * math.pi * noise[:, None] * P.tensor("model.map_noise.freqs", n // 2).detach()
    e = torch.cat([a.sin(), a.cos()], 1)
    if labels is not None:
        e = e + P.linear("model.map_label", labels * math.sqrt(labels.shape[1]), n)
    wide = 4 * c["encoder_channels"]
    e = F.silu(P.linear("model.map_layer1", F.silu(P.linear("model.map_layer0", e, wide)), wide))

    def block(name, x, out, attention=False, way=None):
        name = "model." + name
        moved = (lambda v: v) if way is None else (lambda v: move(v, filt, way == "up"))
        h = P.conv(name + ".conv0", moved(F.silu(P.norm(name + ".norm0", x, groups(x), 1e-6))), out)
        h = h + P.linear(name + ".affine", e, out)[:, :, None, None]
        h = P.conv(name + ".conv1", F.silu(P.norm(name + ".norm1", h, groups(h), 1e-6)), out)
        x = (h + (P.conv(name + ".skip", moved(x), out, 1) if way or x.shape[1] != out else x)) * r2
        if attention:
            b, ch, hh, ww = x.shape
            q, k, v = P.conv(name + ".qkv", P.norm(name + ".norm2", x, groups(x), 1e-6), 3 * ch, 1).reshape(b, 1, ch, 3, hh * ww).permute(3, 0, 1, 4, 2)
            x = (P.conv(name + ".proj", attend(q, k, v).transpose(2, 3).reshape(b, ch, hh, ww), ch, 1) + x) * r2
        return x

    skips, levels, aux = [], len(c["channel_mult"]), x
    size = lambda l: f"{c['resolution'] >> l}x{c['resolution'] >> l}"
    attends = lambda l: (c["resolution"] >> l) in c["attn_resolutions"]
    for l in range(levels):
        if l == 0:
            x = P.conv(f"model.enc.{size(l)}_conv", x, c["encoder_channels"])
        else:
            x = block(f"enc.{size(l)}_down", x, x.shape[1], way="down")
            if c["encoder_type"] == "skip":
                aux = move(aux, filt, False)
                x = x + P.conv(f"model.enc.{size(l)}_aux_skip", aux, x.shape[1], 1)
            elif c["encoder_type"] == "residual":
                f = kernel(filt, x)
                aux = P.conv(f"model.enc.{size(l)}_aux_residual", aux, x.shape[1], padding=1 + (len(filt) - 1) // 2, bias=False)
                aux = depthwise(aux, f, stride=2) + P.tensor(f"model.enc.{size(l)}_aux_residual.bias", x.shape[1])[:, None, None]
                x = aux = (x + aux) * r2
        skips.append(x)
        for i in range(c["num_blocks"]):
            x = block(f"enc.{size(l)}_block{i}", x, c["encoder_channels"] * c["channel_mult"][l], attends(l))
            skips.append(x)
    dec, width, out = ("dec", c["encoder_channels"], None) if stage is None else (f"decs.{stage}", c["decoder_channels"][stage], None)
    for l in reversed(range(levels)):
        if l == levels - 1:
            x = block(f"{dec}.{size(l)}_in0", x, x.shape[1], True)
            x = block(f"{dec}.{size(l)}_in1", x, x.shape[1])
        else:
            x = block(f"{dec}.{size(l)}_up", x, x.shape[1], way="up")
        for i in range(c["num_blocks"] + 1):
            x = block(f"{dec}.{size(l)}_block{i}", torch.cat([x, skips.pop()], 1), width * c["channel_mult"][l], i == c["num_blocks"] and attends(l))
        if l == 0 or c["decoder_type"] == "skip":
            name = f"model.{dec}.{size(l)}_aux"
            h = P.conv(name + "_conv", F.silu(P.norm(name + "_norm", x, groups(x), 1e-6)), c["channels"])
            out = h if out is None else move(out, filt, True) + h
    return out


def ncsnpp(P, c, x, label, stage=None):
    """score_sde's NCSN++ and DDPM++ (biggan blocks, or ddpm blocks without FIR)."""
    groups = lambda h: min(h.shape[1] // 4, c["norm_groups"])
    r2, taps, ddpm = math.sqrt(0.5) if c["skip_rescale"] else 1.0, c["resample_filter"], c["resblock_type"] == "ddpm"
    prefix, number = ("all_modules", 0) if stage is None else ("en_modules", 0)

    def name():
        nonlocal number
        number += 1
        return f"{prefix}.{number - 1}"

    moved = lambda v, up: move(v, taps if c["fir"] else [1, 1], up)
    width = c["encoder_channels"]
    if c["embedding"] == "fourier":
        a = 2 * math.pi * label.log()[:, None] * P.tensor(name() + ".W", width).detach()
    else:
        a = angles(label, width, True)
    e = P.linear(name(), torch.cat([a.sin(), a.cos()], 1), 4 * width)
    e = F.silu(P.linear(name(), F.silu(e), 4 * width))

    def block(x, out, way=None):
        m = name()
        h = F.silu(P.norm(m + ".GroupNorm_0", x, groups(x), 1e-6))
        if way:
            h, x = moved(h, way == "up"), moved(x, way == "up")
        h = P.conv(m + ".Conv_0", h, out) + P.linear(m + ".Dense_0", e, out)[:, :, None, None]
        h = P.conv(m + ".Conv_1", F.silu(P.norm(m + ".GroupNorm_1", h, groups(h), 1e-6)), out)
        if way or x.shape[1] != out:
            x = P.nin(m + ".NIN_0", x, out) if ddpm else P.conv(m + ".Conv_2", x, out, 1)
        return (x + h) * r2

    def attention(x):
        m = name()
        b, ch, hh, ww = x.shape
        h = P.norm(m + ".GroupNorm_0", x, groups(x), 1e-6)
        q, k, v = (P.nin(f"{m}.NIN_{i}", h, ch).reshape(b, 1, ch, hh * ww).transpose(2, 3) for i in range(3))
        return (x + P.nin(m + ".NIN_3", attend(q, k, v).transpose(2, 3).reshape(b, ch, hh, ww), ch)) * r2

    def resampled(x, way):
        if not ddpm:
            return block(x, x.shape[1], way)
        if way == "up":
            return P.conv(name() + ".Conv_0", moved(x, True), x.shape[1])
        return P.conv(name() + ".Conv_0", F.pad(x, (0, 1, 0, 1)), x.shape[1], stride=2, padding=0)

    levels, pyramid = len(c["channel_mult"]), x
    h = P.conv(name(), x, width)
    skips = [h]
    for l in range(levels):
        for _ in range(c["num_blocks"]):
            h = block(h, width * c["channel_mult"][l])
            if h.shape[-1] in c["attn_resolutions"]:
                h = attention(h)
            skips.append(h)
        if l == levels - 1:
            break
        h = resampled(h, "down")
        if c["progressive_input"] == "input_skip":
            pyramid = moved(pyramid, False)
            h = P.conv(name() + ".Conv_0", pyramid, h.shape[1], 1) + h
        elif c["progressive_input"] == "residual":
            if c["fir"]:
                pyramid = P.conv(name() + ".Conv2d_0", depthwise(pyramid, kernel(taps, x), padding=2), h.shape[1], stride=2, padding=0)
            else:
                pyramid = P.conv(name() + ".Conv_0", F.pad(pyramid, (0, 1, 0, 1)), h.shape[1], stride=2, padding=0)
            h = pyramid = (pyramid + h) * r2
        skips.append(h)
    h = block(h, h.shape[1])
    h = attention(h)
    h = block(h, h.shape[1])
    if stage is not None:
        prefix, number, width = f"de_modules.{stage}", 0, c["decoder_channels"][stage]
    def head(h):
        h = F.silu(P.norm(name(), h, groups(h), 1e-6))
        return P.conv(name(), h, c["channels"])

    out = None
    for l in reversed(range(levels)):
        for _ in range(c["num_blocks"] + 1):
            h = block(torch.cat([h, skips.pop()], 1), width * c["channel_mult"][l])
        if h.shape[-1] in c["attn_resolutions"]:
            h = attention(h)
        if c["progressive"] == "output_skip":
            picture = head(h)
            out = picture if out is None else moved(out, True) + picture
        if l:
            h = resampled(h, "up")
    out = head(h) if out is None else out
    return out / label.reshape(-1, 1, 1, 1) if c["scale_by_sigma"] else out


def ldm_unet(P, c, x, t, stage=None, context=None):
    """Latent diffusion's U-Net."""
    g, width, r = c["norm_groups"], c["encoder_channels"], c["num_head_channels"]
    a = angles(t, width, False)
    e = P.linear("time_embed.2", F.silu(P.linear("time_embed.0", torch.cat([a.cos(), a.sin()], 1), 4 * width)), 4 * width)
    e = F.silu(e)

    def block(m, x, out, way=None):
        h = F.silu(P.norm(m + ".in_layers.0", x, g, 1e-5))
        if way:
            h, x = move(h, [1, 1], way == "up"), move(x, [1, 1], way == "up")
        h = P.conv(m + ".in_layers.2", h, out)
        row = P.linear(m + ".emb_layers.1", e, 2 * out if c["scale_shift_norm"] else out)[:, :, None, None]
        if c["scale_shift_norm"]:
            scale, shift = row.chunk(2, 1)
            h = P.norm(m + ".out_layers.0", h, g, 1e-5) * (1 + scale) + shift
        else:
            h = P.norm(m + ".out_layers.0", h + row, g, 1e-5)
        h = P.conv(m + ".out_layers.3", F.silu(h), out)
        return h + (P.conv(m + ".skip_connection", x, out, 1) if x.shape[1] != out else x)

    def tokens_attention(m, x, to):
        split = lambda v: v.reshape(v.shape[0], v.shape[1], -1, r).transpose(1, 2)
        ch = x.shape[-1]
        q, k, v = P.linear(m + ".to_q", x, ch, False), P.linear(m + ".to_k", to, ch, False), P.linear(m + ".to_v", to, ch, False)
        return P.linear(m + ".to_out.0", attend(split(q), split(k), split(v)).transpose(1, 2).flatten(2), ch)

    def attention(m, x):
        b, ch, hh, ww = x.shape
        if not c["spatial_transformer"]:
            h = P.norm(m + ".norm", x, g, 1e-5).reshape(b, ch, -1)
            qkv = F.conv1d(h, P.tensor(m + ".qkv.weight", 3 * ch, ch, 1), P.tensor(m + ".qkv.bias", 3 * ch)).reshape(b, ch // r, 3, r, hh * ww)
            q, k, v = qkv.permute(2, 0, 1, 4, 3)
            h = attend(q, k, v).transpose(2, 3).reshape(b, ch, -1)
            return x + F.conv1d(h, P.tensor(m + ".proj_out.weight", ch, ch, 1), P.tensor(m + ".proj_out.bias", ch)).reshape(x.shape)
        h = P.conv(m + ".proj_in", P.norm(m + ".norm", x, g, 1e-6), ch, 1).flatten(2).transpose(1, 2)
        for i in range(c["transformer_depth"]):
            n = f"{m}.transformer_blocks.{i}"
            h1 = P.layer_norm(n + ".norm1", h)
            h = tokens_attention(n + ".attn1", h1, h1) + h
            h2 = P.layer_norm(n + ".norm2", h)
            h = tokens_attention(n + ".attn2", h2, h2 if context is None else context) + h
            u, gate = P.linear(n + ".ff.net.0.proj", P.layer_norm(n + ".norm3", h), 8 * ch).chunk(2, -1)
            h = P.linear(n + ".ff.net.2", u * F.gelu(gate), ch) + h
        return P.conv(m + ".proj_out", h.transpose(1, 2).reshape(x.shape), ch, 1) + x

    levels, number, skips = len(c["channel_mult"]), 1, []
    x = P.conv("input_blocks.0.0", x, width)
    skips.append(x)
    for l in range(levels):
        for _ in range(c["num_blocks"]):
            x = block(f"input_blocks.{number}.0", x, width * c["channel_mult"][l])
            if 2**l in c["attn_downsample"]:
                x = attention(f"input_blocks.{number}.1", x)
            skips.append(x)
            number += 1
        if l < levels - 1:
            m = f"input_blocks.{number}.0"
            x = block(m, x, x.shape[1], "down") if c["resblock_updown"] else P.conv(m + ".op", x, x.shape[1], stride=2)
            skips.append(x)
            number += 1
    x = block("middle_block.0", x, x.shape[1])
    x = attention("middle_block.1", x)
    x = block("middle_block.2", x, x.shape[1])
    dec, out, number = ("output_blocks", "out", 0) if stage is None else (f"de_modules.{stage}", f"outs.{stage}", 0)
    width = width if stage is None else c["decoder_channels"][stage]
    for l in reversed(range(levels)):
        for i in range(c["num_blocks"] + 1):
            m, part = f"{dec}.{number}", 1
            x = block(m + ".0", torch.cat([x, skips.pop()], 1), width * c["channel_mult"][l])
            attends = 2**l in c["attn_downsample"] if stage is None or "decoder_attention" not in c else c["decoder_attention"][stage][number] == "attn"
            if attends:
                x, part = attention(m + ".1", x), 2
            if l and i == c["num_blocks"]:
                n = f"{m}.{part}"
                x = block(n, x, x.shape[1], "up") if c["resblock_updown"] else P.conv(n + ".conv", move(x, [1, 1], True), x.shape[1])
            number += 1
    return P.conv(out + ".2", F.silu(P.norm(out + ".0", x, g, 1e-5)), c["channels"])


def autoencoder(P, c, x, noise=None):
    """Encoder, quantisation or sample, decoder; returns the golden outputs and the loss."""
    g = c.get("norm_groups", 32)

    def block(m, x, out):
        h = P.conv(m + ".conv1", F.silu(P.norm(m + ".norm1", x, g, 1e-6)), out)
        h = P.conv(m + ".conv2", F.silu(P.norm(m + ".norm2", h, g, 1e-6)), out)
        return h + (P.conv(m + ".nin_shortcut", x, out, 1) if x.shape[1] != out else x)

    def attention(m, x):
        b, ch, hh, ww = x.shape
        h = P.norm(m + ".norm", x, g, 1e-6)
        q, k, v = (P.conv(f"{m}.{s}", h, ch, 1).reshape(b, 1, ch, -1).transpose(2, 3) for s in "qkv")
        return x + P.conv(m + ".proj_out", attend(q, k, v).transpose(2, 3).reshape(x.shape), ch, 1)

    def middle(m, x):
        return block(m + ".block_2", attention(m + ".attn_1", block(m + ".block_1", x, x.shape[1])), x.shape[1])

    levels, width, picture, vq = len(c["channel_mult"]), c["encoder_channels"], x, c["kind"] == "vq"
    attends = lambda l: (c["resolution"] >> l) in c["attn_resolutions"]
    h = P.conv("encoder.conv_in", x, width)
    for l in range(levels):
        for i in range(c["num_blocks"]):
            h = block(f"encoder.down.{l}.block.{i}", h, width * c["channel_mult"][l])
            if attends(l):
                h = attention(f"encoder.down.{l}.attn.{i}", h)
        if l < levels - 1:
            h = P.conv(f"encoder.down.{l}.downsample.conv", F.pad(h, (0, 1, 0, 1)), h.shape[1], stride=2, padding=0)
    moments = 1 if vq else 2
    h = P.conv("encoder.conv_out", F.silu(P.norm("encoder.norm_out", middle("encoder.mid", h), g, 1e-6)), moments * c["z_channels"])
    h = P.conv("quant_conv", h, moments * c["embed_dim"], 1)
    if vq:
        codes = P.tensor("quantize.embedding.weight", c["n_embed"], c["embed_dim"])
        index = torch.cdist(h.detach().permute(0, 2, 3, 1).flatten(0, 2).double(), codes.detach().double()).argmin(1).reshape(h.shape[0], *h.shape[2:])
        q = codes[index].permute(0, 3, 1, 2)
        extra = c["commitment_beta"] * ((q.detach() - h) ** 2).mean() + ((q - h.detach()) ** 2).mean()
        z, out = h + (q - h).detach(), {"latent": h, "indices": index, "quantized": q, "quantization_loss": extra}
    else:
        mean, logvar = h.chunk(2, 1)
        logvar = logvar.clamp(-30, 20)
        z = mean + (logvar / 2).exp() * noise
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum((1, 2, 3))
        extra, out = c["kl_weight"] * kl.mean(), {"mean": mean, "logvar": logvar, "kl": kl, "latent": z}
    h = P.conv("decoder.conv_in", P.conv("post_quant_conv", z, c["z_channels"], 1), width * c["channel_mult"][-1])
    h = middle("decoder.mid", h)
    for l in reversed(range(levels)):
        for i in range(c["num_blocks"] + 1):
            h = block(f"decoder.up.{l}.block.{i}", h, width * c["channel_mult"][l])
            if attends(l):
                h = attention(f"decoder.up.{l}.attn.{i}", h)
        if l:
            h = P.conv(f"decoder.up.{l}.upsample.conv", move(h, [1, 1], True), h.shape[1])
    decoded = P.conv("decoder.conv_out", F.silu(P.norm("decoder.norm_out", h, g, 1e-6)), c["channels"])
    return out | {"decoded": decoded, "loss": ((decoded - picture) ** 2).mean() + extra}


def inception(conv, x, pooling="fid"):
    """Features [n, 2048] of Inception-v3 before its classifier (arXiv 1512.00567), as the Frechet Inception distance takes them. `conv(name, x, out, size, stride, padding)` is a
    convolution with batch norm and ReLU; x in [-1, 1], any size; pooling "fid" leaves borders out of means and ends with a maximum, "torchvision" does not."""
    fid = pooling == "fid"
    x = F.interpolate(x.expand(-1, 3, -1, -1), (299, 299), mode="bilinear", align_corners=False)
    mean = lambda v: F.avg_pool2d(v, 3, 1, 1, count_include_pad=not fid)

    def a(b, v, pool):
        far = conv(f"{b}.branch3x3dbl_3", conv(f"{b}.branch3x3dbl_2", conv(f"{b}.branch3x3dbl_1", v, 64), 96, (3, 3), 1, (1, 1)), 96, (3, 3), 1, (1, 1))
        return torch.cat([conv(f"{b}.branch1x1", v, 64), conv(f"{b}.branch5x5_2", conv(f"{b}.branch5x5_1", v, 48), 64, (5, 5), 1, (2, 2)), far, conv(f"{b}.branch_pool", mean(v), pool)], 1)

    def c(b, v, n):
        wide, tall = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
        near = conv(f"{b}.branch7x7_3", conv(f"{b}.branch7x7_2", conv(f"{b}.branch7x7_1", v, n), n, *wide), 192, *tall)
        far = conv(f"{b}.branch7x7dbl_3", conv(f"{b}.branch7x7dbl_2", conv(f"{b}.branch7x7dbl_1", v, n), n, *tall), n, *wide)
        far = conv(f"{b}.branch7x7dbl_5", conv(f"{b}.branch7x7dbl_4", far, n, *tall), 192, *wide)
        return torch.cat([conv(f"{b}.branch1x1", v, 192), near, far, conv(f"{b}.branch_pool", mean(v), 192)], 1)

    def e(b, v, maximum):
        cross = lambda n, w: [conv(f"{b}.{n}a", w, 384, (1, 3), 1, (0, 1)), conv(f"{b}.{n}b", w, 384, (3, 1), 1, (1, 0))]
        near = cross("branch3x3_2", conv(f"{b}.branch3x3_1", v, 384))
        far = cross("branch3x3dbl_3", conv(f"{b}.branch3x3dbl_2", conv(f"{b}.branch3x3dbl_1", v, 448), 384, (3, 3), 1, (1, 1)))
        pooled = F.max_pool2d(v, 3, 1, 1) if maximum else mean(v)
        return torch.cat([conv(f"{b}.branch1x1", v, 320), *near, *far, conv(f"{b}.branch_pool", pooled, 192)], 1)

    down = ((3, 3), 2, (0, 0))
    x = conv("Conv2d_2b_3x3", conv("Conv2d_2a_3x3", conv("Conv2d_1a_3x3", x, 32, *down), 32, (3, 3), 1, (0, 0)), 64, (3, 3), 1, (1, 1))
    x = conv("Conv2d_4a_3x3", conv("Conv2d_3b_1x1", F.max_pool2d(x, 3, 2), 80), 192, (3, 3), 1, (0, 0))
    x = a("Mixed_5d", a("Mixed_5c", a("Mixed_5b", F.max_pool2d(x, 3, 2), 32), 64), 64)
    far = conv("Mixed_6a.branch3x3dbl_2", conv("Mixed_6a.branch3x3dbl_1", x, 64), 96, (3, 3), 1, (1, 1))
    x = torch.cat([conv("Mixed_6a.branch3x3", x, 384, *down), conv("Mixed_6a.branch3x3dbl_3", far, 96, *down), F.max_pool2d(x, 3, 2)], 1)
    for b, n in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        x = c(b, x, n)
    far = conv("Mixed_7a.branch7x7x3_2", conv("Mixed_7a.branch7x7x3_1", x, 192), 192, (1, 7), 1, (0, 3))
    far = conv("Mixed_7a.branch7x7x3_4", conv("Mixed_7a.branch7x7x3_3", far, 192, (7, 1), 1, (3, 0)), 192, *down)
    x = torch.cat([conv("Mixed_7a.branch3x3_2", conv("Mixed_7a.branch3x3_1", x, 192), 320, *down), far, F.max_pool2d(x, 3, 2)], 1)
    return e("Mixed_7c", e("Mixed_7b", x, False), fid).mean((2, 3))
