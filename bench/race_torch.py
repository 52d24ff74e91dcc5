"""PyTorch's side of the race (bench/race.sh): the networks of bench/torch_networks.py, eager and in channels_last, the better of the two.
usage: race_torch.py --network NAME --batch N [--train] [--threads N] [--repeats N] [--device cuda [--tf32]]; JSON lines as race_unet prints them, with "mode" beside.
A training step is forward, backward, Adam and the moving average of the weights. Each stage and mode runs in a process of its own, so that none finds memory
that another has left."""
import argparse
import json
import os
import subprocess
import sys
import time

import torch

from torch_networks import Parameters, ldm_unet, ncsnpp, song_unet

SONG = {"network": "song_unet", "embedding": "positional", "channel_mult_noise": 1, "encoder_type": "standard", "decoder_type": "standard", "resample_filter": [1, 1], "channels": 3,
        "resolution": 32, "encoder_channels": 128, "channel_mult": [2, 2, 2], "num_blocks": 4, "attn_resolutions": [16], "norm_groups": 16, "decoder_channels": [192, 128, 16]}
NETWORKS = {
    "edm_cifar10_multistage": (song_unet, SONG),
    "edm_cifar10_unified": (song_unet, SONG | {"decoder_channels": None}),
    "vp_cifar10_multistage": (ncsnpp, {"embedding": "positional", "resample_filter": [1, 3, 3, 1], "fir": True, "progressive": "none", "progressive_input": "residual", "skip_rescale": True,
                                       "resblock_type": "biggan", "scale_by_sigma": False, "channels": 3, "resolution": 32, "encoder_channels": 128, "channel_mult": [1, 2, 2, 2], "num_blocks": 8,
                                       "attn_resolutions": [16], "norm_groups": 16, "decoder_channels": [192, 128, 16]}),
    "ldm_celeba256_multistage": (ldm_unet, {"channels": 3, "resolution": 64, "encoder_channels": 224, "channel_mult": [1, 2, 3, 4], "num_blocks": 2, "attn_downsample": [8, 4, 2],
                                            "num_head_channels": 32, "norm_groups": 32, "spatial_transformer": False, "scale_shift_norm": False, "resblock_updown": False,
                                            "decoder_channels": [256, 192, 128]}),
    "quickstart": (song_unet, SONG | {"resolution": 8, "channels": 1, "encoder_channels": 32, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4], "norm_groups": 32,
                                      "decoder_channels": [48, 32, 16]}),
}


def status_bytes(line):
    for text in open("/proc/self/status"):
        if text.startswith(line):
            return int(text.split()[1]) * 1024
    return 0


def forget_peak():
    try:
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")
    except OSError:
        pass


def best_of(repeats, f):
    f()
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        f()
        best = min(best, time.perf_counter() - begin)
    return best


def median_on_gpu(repeats, f):
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        f()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--network", required=True, choices=NETWORKS)
    a.add_argument("--batch", type=int, default=4)
    a.add_argument("--train", action="store_true")
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--repeats", type=int, default=5)
    a.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    a.add_argument("--tf32", action="store_true", help="products of 11 significant bits on a GPU")
    a.add_argument("--only", nargs=2, metavar=("STAGE", "MODE"), help="one stage in one mode, in this process")
    a = a.parse_args()
    if a.only:
        return print(json.dumps(measure(a, int(a.only[0]), a.only[1])))
    for s in range(3 if NETWORKS[a.network][1]["decoder_channels"] else 1):
        results = []
        for mode in ("eager", "channels_last"):
            p = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--only", str(s), mode], capture_output=True, text=True)
            if p.returncode:
                sys.exit(p.stderr)
            results.append(json.loads(p.stdout))
        best = min(results, key=lambda r: r["seconds"])
        print(json.dumps({"network": a.network, "stage": s, "batch": a.batch, "threads": a.threads, "train_step_s" if a.train else "forward_s": best["seconds"],
                          "peak_bytes": min(r["peak_bytes"] for r in results), "mode": best["mode"]}), flush=True)


def measure(a, s, mode):
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = a.tf32
    torch.backends.cudnn.benchmark = True
    network, c = NETWORKS[a.network]
    before = status_bytes("VmRSS")
    stage = s if c["decoder_channels"] else None
    label = torch.full((a.batch,), 0.4)
    x = torch.randn(a.batch, c["channels"], c["resolution"], c["resolution"])
    P = Parameters(1)
    with torch.no_grad():
        network(P, c, x[:1], label[:1], stage)  # parameters come into being
    if a.device == "cuda":
        label = label.cuda()
        x = x.cuda()
        torch.set_default_device("cuda")
        for k, v in P.items():
            P[k] = v.detach().cuda().requires_grad_()
    if mode == "channels_last":
        x = x.to(memory_format=torch.channels_last)
        for k, v in P.items():
            if v.ndim == 4:
                P[k] = v.detach().to(memory_format=torch.channels_last).requires_grad_()
    weights = sum(v.numel() for v in P.values()) * 4
    if a.train:
        adam = torch.optim.Adam(P.values(), lr=1e-4)
        average = {k: v.detach().clone() for k, v in P.items()}

        def step():
            adam.zero_grad(set_to_none=True)
            ((network(P, c, x, label, stage) - x) ** 2).mean().backward()
            adam.step()
            with torch.no_grad():
                torch._foreach_lerp_(list(average.values()), list(P.values()), 0.001)
    else:

        def step():
            with torch.no_grad():
                network(P, c, x, label, stage)

    if a.device == "cuda":
        step()
        step()
        seconds = median_on_gpu(a.repeats, step)
        return {"seconds": seconds, "peak_bytes": max(torch.cuda.max_memory_allocated() - weights * (5 if a.train else 1), 0), "mode": mode}
    forget_peak()
    seconds = best_of(a.repeats, step)
    return {"seconds": seconds, "peak_bytes": max(status_bytes("VmHWM") - before - weights * (5 if a.train else 1), 0), "mode": mode}


if __name__ == "__main__":
    main()
