"""Intervals and paired tests over clusters: items that are versions of one problem are one draw.

Standard errors are cluster-robust (Miller 2024, arXiv 2411.00640, as inspect_ai's
``stderr(cluster=...)``). The test of a paired difference is an exact sign-flip permutation test
over clusters: without a difference between two models, each cluster's difference is as likely to
have the other sign. For 0/1 items that are their own clusters it is McNemar's exact test. The
interval inverts the same test in its normal approximation. Scores are fractions.

Several training seeds that answer the same items are a crossed design: both are draws. The interval
over items (above) is widened by the variance between seeds, its squared half-widths added (MOVER,
Zou and Donner 2008, doi 10.1002/sim.3095), with Student's t for the few seeds (as Cochran's
approximation: not below its level for few seeds, wide for two). ``benchmarks/seed_coverage.py``
simulates it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Z_95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""
LEVEL = 0.05
_FINEST = 1000
"""Scores that are not multiples of 1/k for any k up to this are rounded to 1/1000 in the test."""

_SMALLEST = 1e-300
"""p-value at which the search for one ends."""

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
    squares = [float(each) for each in ((sizes**2).sum(), (sums * sizes).sum(), (sums**2).sum())]
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

    return _agreeing(end(-1), end(1), total, p)


Scored = tuple[Hashable, float]
"""The cluster of an item, and its score or paired difference."""


@dataclass(frozen=True)
class Crossed:
    """A mean over training seeds and items, and where its error comes from.

    Attributes:
        by_seed: the mean of each seed; ``mean`` is theirs.
        item_variance: of ``mean``, over items (clusters) for these seeds; None for one cluster.
        between: variance of the seeds' means over their number; 0 for one seed.
        explained: the part of ``between`` that is chance of the items; in ``item_variance`` too.
    """

    mean: float
    by_seed: tuple[float, ...]
    item_variance: float | None
    between: float
    explained: float

    @property
    def seed_variance(self) -> float:
        """Of ``mean``, from the seeds beyond what their items explain."""
        return max(0.0, self.between - self.explained)

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.by_seed)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the seeds' means; None for one seed."""
        return float(np.std(self.by_seed, ddof=1)) if self.seeds > 1 else None

    @property
    def items(self) -> float:
        """Standard error over items; 0 where unknown."""
        return math.sqrt(self.item_variance or 0.0)

    @property
    def stderr(self) -> float | None:
        """Standard error of ``mean`` from both sources."""
        if self.item_variance is None:
            return None
        return math.sqrt(self.item_variance + self.seed_variance)

    def seed_width_squared(self, level: float = LEVEL) -> float:
        """What seeds add to the squared half-width of an interval at ``level``.

        t² between - z² explained: ``explained`` stands in the interval over items already. The
        difference of the variances would often be 0 by chance for two seeds.
        """
        if self.between == 0:
            return 0.0
        t, z = stdtrit(self.seeds - 1, level / 2), ndtri(level / 2)
        return max(0.0, float(t * t * self.between - z * z * self.explained))

    @property
    def seeds_dominate(self) -> bool:
        """Whether seeds widen the interval more than items do."""
        return self.seed_width_squared() > Z_95**2 * (self.item_variance or 0.0)

    def widened(self, low: float, high: float, floor: float) -> tuple[float, float]:
        """An interval over items alone, widened by the seeds, within ``floor`` and 1."""
        seeds = self.seed_width_squared()
        below, above = (math.sqrt((self.mean - end) ** 2 + seeds) for end in (low, high))
        return max(floor, self.mean - below), min(1.0, self.mean + above)


def crossed(seeds: Sequence[Sequence[Sequence[Scored]]]) -> Crossed | None:
    """The mean over ``seeds``, each one or several groups of items that weigh alike.

    Items may be missing for some seeds. None where a seed or a group is empty.

    With S seeds of g groups of n items each item moves its seed's mean by
    d = (score - mean of its group) / (n g); D_cs is the sum of the d of cluster c in seed s. Over
    the C clusters, with k = C / (C - 1):

    - items: k Σ_c (mean_s D_cs)²;
    - between seeds: the variance of their means over S;
    - explained by items: k Σ_c var_s(D_cs) over S.
    """
    moved: defaultdict[Hashable, Array] = defaultdict(lambda: np.zeros(len(seeds)))
    by_seed = []
    for number, groups in enumerate(seeds):
        if not groups or not all(groups):
            return None
        means = [math.fsum(score for _, score in group) / len(group) for group in groups]
        by_seed.append(math.fsum(means) / len(means))
        for group, mean in zip(groups, means, strict=True):
            for cluster, score in group:
                moved[cluster][number] += (score - mean) / (len(group) * len(groups))
    if not by_seed:
        return None
    shifts = np.array(list(moved.values()))
    count = len(shifts)
    factor = count / (count - 1) if count > 1 else math.nan
    items = factor * float((shifts.mean(axis=1) ** 2).sum()) if count > 1 else None
    mean = math.fsum(by_seed) / len(by_seed)
    if len(seeds) == 1:
        return Crossed(mean, tuple(by_seed), items, 0.0, 0.0)
    between = float(np.var(by_seed, ddof=1)) / len(seeds)
    explained = factor * float(shifts.var(axis=1, ddof=1).sum()) / len(seeds) if count > 1 else 0.0
    # What rounding leaves of equal seeds is no spread.
    return Crossed(mean, tuple(by_seed), items, between if between > 1e-18 else 0.0, explained)


def score_interval(estimate: Crossed, items: int, clusters: int) -> tuple[float, float]:
    """95 % interval of a score over items and seeds: Wilson's over items, widened by the seeds.

    Wilson's is at the effective number of independent items, which is what gives the standard
    error: n for independent 0/1 items, fewer for items that agree within a cluster. Scores that do
    not vary count as many as there are clusters.

    Args:
        items: of one seed.
        clusters: independent draws among them.
    """
    mean, variance = estimate.mean, estimate.item_variance
    effective = mean * (1 - mean) / (variance * (items - 1) / items) if variance else 0
    return estimate.widened(*wilson(mean, effective or clusters), 0.0)


def mean_interval(
    scores: Sequence[float], clusters: Sequence[Hashable] | None = None
) -> tuple[float, float] | None:
    """95 % interval of a mean over items of one seed; None without one."""
    names = range(len(scores)) if clusters is None else clusters
    estimate = crossed([[list(zip(names, scores, strict=True))]])
    return score_interval(estimate, len(scores), len(set(names))) if estimate else None


@dataclass(frozen=True)
class PairedDifference:
    """A mean paired difference over seeds and items; ``p`` is below 0.05 where ``interval`` is
    without 0."""

    estimate: Crossed
    interval: tuple[float, float]
    p: float


def paired_difference(seeds: Sequence[Sequence[Scored]]) -> PairedDifference | None:
    """Interval and test of paired differences, one sequence a seed; None where one is empty.

    Over items alone the test is :func:`sign_flip_test` of the clusters' sums over seeds. With a
    variance between seeds, p is the level at which the widened interval meets 0.
    """
    estimate = crossed([[differences] for differences in seeds])
    if estimate is None:
        return None
    pooled = [scored for differences in seeds for scored in differences]
    sums, sizes = cluster_sums([value for _, value in pooled], [cluster for cluster, _ in pooled])
    p = sign_flip_test(sums)
    low, high = difference_interval(sums, sizes, p)
    # Where seeds have different items, the pooled mean is not quite that of the seeds.
    shift = estimate.mean - float(sums.sum() / sizes.sum())
    p = _with_seeds(estimate, p)
    low, high = estimate.widened(low + shift, high + shift, -1.0)
    return PairedDifference(estimate, _agreeing(low, high, estimate.mean, p), p)


def _with_seeds(estimate: Crossed, p: float) -> float:
    """p of items alone, raised by the seeds: the level at which the widened interval meets 0.

    There (z(level) mean / z(p))² + the seeds' part = mean².
    """
    if estimate.mean == 0:
        return 1.0
    square = estimate.mean**2
    of_items = square / float(ndtri(max(p, _SMALLEST) / 2)) ** 2 if p < 1 else math.inf

    def reaches(level: float) -> bool:
        items = float(ndtri(level / 2)) ** 2 * of_items
        return items + estimate.seed_width_squared(level) >= square

    if estimate.between == 0 or p >= 1:
        return p
    low, high = max(p, _SMALLEST), 1.0
    for _ in range(60):
        level = math.sqrt(low * high)
        low, high = (level, high) if reaches(level) else (low, level)
    return high


def _agreeing(low: float, high: float, mean: float, p: float) -> tuple[float, float]:
    """The interval, its rim at 0 moved to the side that ``p`` says."""
    if p >= LEVEL:
        return min(low, 0.0), max(high, 0.0)
    return (max(low, 0.0), high) if mean > 0 else (low, min(high, 0.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p-values, in the order given: they control the family's error."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted
