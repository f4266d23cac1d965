"""Intervals and paired tests over clusters: items that are versions of one problem are one draw.

Standard errors are cluster-robust (Miller 2024, arXiv 2411.00640, as inspect_ai's
``stderr(cluster=...)``). The test of a paired difference is an exact sign-flip permutation test
over clusters: without a difference between two models, each cluster's difference is as likely to
have the other sign. For 0/1 items that are their own clusters it is McNemar's exact test. The
interval inverts the same test in its normal approximation. Scores are fractions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""
LEVEL = 0.05
_FINEST = 1000
"""Scores that are not multiples of 1/k for any k up to this are rounded to 1/1000 in the test."""

Array = NDArray[np.float64]


def cluster_sums(
    values: Sequence[float], clusters: Sequence[Hashable] | None
) -> tuple[Array, Array]:
    """Sum and size of each cluster; without ``clusters`` each value is its own."""
    if clusters is None:
        return np.asarray(values, dtype=float), np.ones(len(values))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    where = [numbers[name] for name in clusters]
    sums = np.bincount(where, weights=values)
    return sums.astype(float), np.bincount(where).astype(float)


def mean_and_stderr(
    scores: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> tuple[float | None, float | None]:
    """Mean and its cluster-robust standard error; ``None`` where undefined.

    With G clusters of n items: sqrt(G / (G - 1) Σ_g (Σ_i (x_gi - mean))²) / n. For clusters of one
    item that is the sample standard deviation / sqrt(n). One cluster has no standard error.
    """
    n = len(scores)
    if n == 0:
        return None, None
    mean = math.fsum(scores) / n
    sums, _ = cluster_sums([score - mean for score in scores], clusters)
    count = len(sums)
    if count == 1:
        return mean, None
    return mean, math.sqrt(count / (count - 1) * math.fsum(sums**2)) / n


def wilson(share: float, n: float) -> tuple[float, float]:
    """95 % interval of a share of ``n`` by Wilson (1927); it has a width at 0 and at 1 too."""
    z2 = Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def _whole_units(differences: Array) -> Array:
    """Differences as whole multiples of their common unit."""
    for scale in range(1, _FINEST + 1):
        scaled = differences * scale
        if np.allclose(scaled, np.rint(scaled), rtol=0.0, atol=1e-6):
            break
    units = np.rint(differences * scale).astype(int)
    return units // max(1, int(np.gcd.reduce(units))) if units.size else units


def sign_flip_test(differences: Array) -> float:
    """Exact two-sided p-value of the sum of the clusters' differences under random signs.

    The distribution of the sum over all 2^G sign patterns is built up cluster by cluster, so
    nothing is drawn at random.
    """
    units = _whole_units(differences[differences != 0])
    sizes = np.abs(units)
    total = int(sizes.sum())
    # Probability of each sum of the clusters whose sign is plus.
    plus = np.zeros(total + 1)
    plus[0] = 1.0
    reached = 0
    for size in sizes:
        reached += int(size)
        plus[: reached + 1] *= 0.5
        plus[size : reached + 1] += plus[: reached + 1 - size].copy()
    sums = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(plus[sums >= abs(int(units.sum()))].sum()))


def agreeing(low: float, high: float, mean: float, p: float) -> tuple[float, float]:
    """The interval, its rim at 0 moved to the side that ``p`` says."""
    if p >= LEVEL:
        return min(low, 0.0), max(high, 0.0)
    return (max(low, 0.0), high) if mean > 0 else (low, min(high, 0.0))


def difference_interval(sums: Array, sizes: Array, p: float) -> tuple[float, float]:
    """95 % interval of the mean paired difference, within [-1, 1], that agrees with ``p``.

    Holds every d that the test of the differences less d does not reject in its normal
    approximation with continuity correction:
    (|Σ D_g - d n| - u)² <= z² Σ (D_g - d n_g)², u the smallest difference.
    At its rim, where approximation and exact test can part, the exact test decides whether the
    interval holds 0.

    Args:
        sums: of the paired differences of each cluster.
        sizes: items of each cluster.
        p: of :func:`sign_flip_test`.
    """
    if not sums.any():
        bound = wilson(0.0, len(sums))[1]
        return -bound, bound
    n, total = float(sizes.sum()), float(sums.sum())
    unit = float(np.abs(sums[sums != 0]).min())
    squares = [float(value) for value in ((sizes**2).sum(), (sums * sizes).sum(), (sums**2).sum())]
    z2 = Z_95**2

    def end(side: int) -> float:
        # (side (d n - total) - unit)² = z² Σ (D_g - d n_g)², for side (d n - total) > unit.
        a = n * n - z2 * squares[0]
        shifted = total + side * unit
        b = -2 * (n * shifted - z2 * squares[1])
        c = shifted**2 - z2 * squares[2]
        root = b * b - 4 * a * c
        if a <= 0 or root < 0:
            return float(side)
        return max(-1.0, min(1.0, (-b + side * math.sqrt(root)) / (2 * a)))

    return agreeing(end(-1), end(1), total, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given: they control the family's error."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
