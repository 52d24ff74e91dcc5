"""Races the clusterings against NumPy and PyTorch on the same work, in one run: race_clustering.py CLUSTERING_BINARY [--threads N]
PyTorch and NumPy do what a user of them would write: differences, squares, softmax, product for one posterior mean; the same by matrix products for many;
dynamic programmes with prefix sums in loops of Python."""
import itertools, json, os, subprocess, sys, time

threads = sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv else str(os.cpu_count())
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = threads
import numpy as np
import torch

torch.set_num_threads(int(threads))
N, D, SIGMA = 10_000, 3_072, 5.0
rng = np.random.default_rng(0)
images, queries = rng.standard_normal((N, D), dtype=np.float32), rng.standard_normal((64, D), dtype=np.float32)


def numpy_one():
    d = ((queries[0] - images) ** 2).sum(1) / (2 * SIGMA**2)
    w = np.exp(d.min() - d)
    return (w / w.sum()) @ images


def torch_one(x, y):
    return torch.softmax(-((x - y) ** 2).sum(1) / (2 * SIGMA**2), 0) @ y


def torch_many(x, y):
    return torch.softmax((x @ y.T - 0.5 * (y * y).sum(1)) / SIGMA**2, 1) @ y


def interval_programme(u, k, weight=1.0):
    n = len(u)
    lo, hi = n // (2 * k), -(-3 * n // (2 * k))
    sums = np.concatenate([[0], np.cumsum(u)])

    def cost(a, b):
        c = a + (b - a) // 2
        return weight * (u[c] * (c - a) - (sums[c] - sums[a]) + (sums[b] - sums[c]) - u[c] * (b - c))

    best = [cost(0, b) if b else 0.0 for b in range(n + 1)]
    for m in range(1, k):
        now = [float("inf")] * (n + 1)
        for b in range(1, n + 1):
            for a in range(max(1 + m * lo, b - hi), b - lo + 1):
                now[b] = min(now[b], best[a] + cost(a, b))
        best = now
    return best[n]


def partition(matrix, stages):
    n = len(matrix)
    mean = lambda i, j: matrix[i:j, i:j].mean()
    return max(sum(mean(i, j) for i, j in itertools.pairwise((0, *cut, n))) for cut in itertools.combinations(range(1, n), stages - 1))


def best_of(f, repeats):
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        f()
        times.append(time.perf_counter() - begin)
    return min(times)


t, q = torch.from_numpy(images), torch.from_numpy(queries)
t_alpha = np.linspace(1, 1000, 1000) / 1000
log_sigma = 0.5 * np.log(np.expm1(19.9 * t_alpha**2 / 2 + 0.1 * t_alpha))
similarity = np.exp(-0.2 * abs(np.arange(21)[:, None] - np.arange(21)))
theirs = {
    "posterior mean of one query": (best_of(numpy_one, 3), best_of(lambda: torch_one(q[0], t), 5)),
    "posterior means of 64 queries over 10000 x 3072": (None, best_of(lambda: torch_many(q, t), 5)),
    "interval programme, timestep, n = 1000, k = 3": (best_of(lambda: interval_programme(np.arange(1.0, 1001), 3), 1), None),
    "interval programme, snr, n = 1000, k = 3": (best_of(lambda: interval_programme(log_sigma, 3, 2.0), 1), None),
    "exact partition of 21 nodes into 3 stages": (best_of(lambda: partition(similarity, 3), 1), None),
    "exact partition of 21 nodes into 5 stages": (best_of(lambda: partition(similarity, 5), 1), None),
}
ours = {line["what"]: line["seconds"] for line in map(json.loads, subprocess.run([sys.argv[1], "--threads", threads], check=True, capture_output=True, text=True).stdout.splitlines())}
print("| work | ours, s | NumPy, s | times | PyTorch, s | times |\n|---|---|---|---|---|---|")
for what, (numpy_s, torch_s) in theirs.items():
    row = [what, f"{ours[what]:.3g}"]
    for s in (numpy_s, torch_s):
        row += [f"{s:.3g}", f"{s / ours[what]:.0f}"] if s else ["", ""]
    print("| " + " | ".join(row) + " |")
