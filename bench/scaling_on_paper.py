"""How long a training step of the paper's latent ImageNet model would take on 1 to 1,024 GPUs, by formula: scaling_on_paper.py [--tflops F] [--link B].
Nothing is measured. Multiply-accumulates and parameters are those that examples/architectures --network imagenet prints; times are
  compute    6 x images x MACs / F              a forward pass and two of its size backward, two operations each
  exchange   2 (n - 1) / n x bytes / link       a ring or a reduce-scatter and an all-gather of float32 gradients, per GPU
  step       compute + what of the exchange is longer than the backward pass (two thirds of compute), beside which it goes on"""
import argparse

SHARED = 132_960_128
DECODERS = (215_675_268, 117_842_180, 42_987_396)
MACS = (51.711e9, 31.321e9, 22.404e9)  # of an image of each stage, the shared part included
SHARES = (0.442, 0.631 - 0.442, 1 - 0.631)  # of the images: the stages' lengths in t

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("--tflops", type=float, default=100, help="that a GPU keeps up, in 10^12 operations a second")
p.add_argument("--link", type=float, default=50, help="GB/s out of each GPU between machines (400 Gb/s)")
p.add_argument("--inside", type=float, default=300, help="GB/s out of each GPU inside a machine of eight")
p.add_argument("--rows", type=int, default=32, help="images a GPU where the batch grows with their number")
p.add_argument("--batch", type=int, default=1200, help="images where it does not")
a = p.parse_args()
cost = [share * macs for share, macs in zip(SHARES, MACS)]
weights = SHARED + sum(DECODERS)


def ring(processes, parameters):
    return 2 * (processes - 1) / processes * parameters * 4


def step(compute, sent, n):
    exchange = sent / ((a.inside if n <= 8 else a.link) * 1e9)
    return compute + max(0, exchange - compute * 2 / 3)


def data_parallel(n, images):
    sent = ring(n, weights)
    return sent, step(6 * images / n * sum(cost) / (a.tflops * 1e12), sent, n)


def stage_parallel(n, images):
    """GPUs of each stage: one more goes where the step would take longest."""
    if n < len(cost):
        return data_parallel(n, images)
    gpus = [1] * len(cost)
    for _ in range(n - len(cost)):
        gpus[max(range(len(cost)), key=lambda s: cost[s] / gpus[s])] += 1
    compute = max(6 * images * c / g / (a.tflops * 1e12) for c, g in zip(cost, gpus))
    sent = ring(n, SHARED) + max(ring(g, d) for g, d in zip(gpus, DECODERS))
    return sent, step(compute, sent, n)


print(f"{weights / 1e6:.1f} million parameters, {sum(cost) / 1e9:.1f} GMACs an image, {a.tflops:g} TFLOP/s a GPU, {a.link:g} GB/s between machines\n")
print("| GPUs | batch | data parallel: sent | step | of ideal | stage parallel: sent | step | of ideal |\n|---|---|---|---|---|---|---|---|")
for grows in (True, False):
    for n in (1, 8, 16, 64, 256, 1024):
        images = a.rows * n if grows else a.batch
        ideal = 6 * images / n * sum(cost) / (a.tflops * 1e12)
        cells = [f"{sent / 1e9:.2f} GB | {1e3 * time:.0f} ms | {100 * ideal / time:.0f} %" for sent, time in (data_parallel(n, images), stage_parallel(n, images))]
        print(f"| {n} | {images} | {' | '.join(cells)} |")
