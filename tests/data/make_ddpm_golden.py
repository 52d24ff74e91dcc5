"""Makes tests/data/golden/ldm_unet/ddpm.safetensors: diffusers' UNet2DModel with DDPM's settings (sine first, frequencies shifted, epsilon 1e-6, zeros at
the end only), its output, loss and gradients under our names. Needs torch, diffusers and safetensors; run from the repository's root."""
import json
import pathlib
import sys

import torch
from diffusers import UNet2DModel
from safetensors.torch import save_file

sys.path.insert(0, "examples")
import convert_checkpoint as convert  # noqa: E402

torch.manual_seed(22)
settings = dict(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, norm_eps=1e-6, attention_head_dim=None,
                flip_sin_to_cos=False, freq_shift=1, downsample_padding=0, down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"))
model = UNet2DModel(**settings)
with torch.no_grad():
    for p in model.parameters():
        p.copy_(torch.randn(p.shape) * (0.7 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.3) + (1 if p.ndim == 1 and p.mean() > 0.5 else 0))
x, noise, t = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), torch.tensor([17.0, 803.0])
y = model(x, t).sample
loss = ((y - noise) ** 2).mean()
loss.backward()
c = convert.CLASS_DEFAULTS["UNet2DModel"] | {"_class_name": "UNet2DModel"} | {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
names = convert.unet_names(c)
weights = convert.to_ours({k: v.detach() for k, v in model.named_parameters()}, names, c)
gradients = convert.to_ours({k: v.grad for k, v in model.named_parameters()}, names, c)
config = convert.diffusers_config(c, {}) | {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_timesteps": 1000}
tensors = {f"param.{k}": v for k, v in weights.items()} | {f"grad.{k}": v for k, v in gradients.items()}
tensors |= {"input.x_t": x, "input.noise": noise, "input.timesteps": t, "output.raw": y.detach(), "output.loss": loss.detach()}
checks = [{"output": "output.raw", "rtol": 2e-4, "atol": 2e-4}, {"output": "output.loss", "rtol": 2e-4, "atol": 1e-5}, {"output": "grad.*", "rtol": 2e-3, "atol": 2e-3}]
save_file({k: v.contiguous() for k, v in tensors.items()}, pathlib.Path("tests/data/golden/ldm_unet/ddpm.safetensors"),
          {"format": "multistage-golden-1", "family": "ldm_unet", "case": "ddpm", "source": "diffusers UNet2DModel", "config": json.dumps(config), "checks": json.dumps(checks)})
