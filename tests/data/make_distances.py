"""Distances of sets of features as NumPy and SciPy compute them: make_distances.py OUT.npz

Each case: features a [n, d] and b [m, d], and `frechet`: |m1 - m2|^2 + tr(C1 + C2 - 2 sqrtm(C1 C2)), the trace of the root from the singular values (numpy.linalg.svd)
of the centred rows' product, which scipy.linalg.sqrtm confirms to 1e-6 where the covariances are regular; `prdc`: precision, recall, density and coverage for k = 3 by
their definitions with exact distances (scipy.spatial.distance.cdist on integers, which doubles hold exactly): precision and recall count surfaces, density and coverage
do not, as Naeem et al.'s program."""
import sys

import numpy as np
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist

r = np.random.default_rng(7)
out = {}


def frechet(a, b):
    a, b = a.astype(float), b.astype(float)
    f = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    if all(np.linalg.matrix_rank(x) == a.shape[1] for x in f):
        c = [x.T @ x for x in f]
        root = np.trace(sqrtm(c[0] @ c[1]).real)
        assert abs(root - np.linalg.svd(f[0] @ f[1].T, compute_uv=False).sum()) < 1e-6 * root
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + (f[0] ** 2).sum() + (f[1] ** 2).sum() - 2 * np.linalg.svd(f[0] @ f[1].T, compute_uv=False).sum()


def prdc(a, b, k=3):
    radius = lambda x: np.sort(cdist(x, x, "sqeuclidean"), 1)[:, k]  # the first is the row itself
    ra, rb, d = radius(a), radius(b), cdist(a, b, "sqeuclidean")
    return [(d <= ra[:, None]).any(0).mean(), (d <= rb[None]).any(1).mean(), (d < ra[:, None]).sum() / (k * len(b)), (d < ra[:, None]).any(1).mean()]


def case(name, a, b):
    out[name + "_a"], out[name + "_b"] = a.astype(np.int32), b.astype(np.int32)
    out[name + "_frechet"], out[name + "_prdc"] = np.array([frechet(a, b)]), np.array(prdc(a, b))
    print(name, out[name + "_frechet"], out[name + "_prdc"])


# Integers on a coarse grid have many ties and equal rows; fine ones have none.
case("few", r.integers(-50, 50, (9, 40)), r.integers(-40, 60, (7, 40)))
case("mixed", r.integers(-50, 50, (30, 12)), r.integers(-40, 60, (6, 12)))
case("many", r.integers(-50, 50, (60, 5)), r.integers(-40, 60, (80, 5)) @ np.diag([1, 2, 1, 1, 3]))
case("ties", r.integers(0, 3, (50, 3)), r.integers(0, 3, (40, 3)))
flat = r.integers(-50, 50, (60, 6))
flat[:, 2] = 7  # a pixel that never changes, and one that follows another
flat[:, 5] = flat[:, 0]
case("singular", flat, r.integers(-50, 50, (60, 6)))
case("far", 10**6 + r.integers(0, 4, (20, 4)), 10**6 + r.integers(0, 4, (25, 4)))
case("collapsed", r.integers(-50, 50, (30, 8)), np.tile(r.integers(-5, 5, (1, 8)), (20, 1)))
np.savez(sys.argv[1], **out)
