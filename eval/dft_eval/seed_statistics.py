"""Means over training seeds and items, with intervals and a paired test that cover both.

Several training seeds that answer the same items are a crossed design: both are draws. The interval
over items of :mod:`dft_eval.statistics` is widened by the variance between seeds, squared widths
added (MOVER, Zou and Donner 2008, doi 10.1002/sim.3095), with Student's t for the few seeds. As
Cochran's approximation that is wide where seeds differ little, and for two seeds always.
``benchmarks/seed_coverage.py`` simulates the coverage.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from dft_eval.statistics import (
    LEVEL,
    Z_95,
    Array,
    agreeing,
    cluster_sums,
    difference_interval,
    sign_flip_test,
    wilson,
)

_SMALLEST = 1e-300
"""p-value at which the search for one ends."""

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
    return PairedDifference(estimate, agreeing(low, high, estimate.mean, p), p)


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
