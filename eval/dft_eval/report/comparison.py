"""Paired comparison of two runs on one benchmark, over the items that both have scored.

Pairing removes what the items share (some are hard for every model), so a paired difference is
known better than two scores with their standard errors suggest. Items of one cluster, such as the
versions of one problem, count as one draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dft_eval.report.formats import p_value, plural, points
from dft_eval.statistics import (
    LEVEL,
    cluster_sums,
    difference_interval,
    mean_and_stderr,
    sign_flip_test,
)


@dataclass(frozen=True)
class Effect:
    """The second run minus the first, over the paired items. Scores are fractions.

    Attributes:
        stderr: cluster-robust standard error of the mean paired difference; ``None`` for a single
            cluster.
        interval: 95 %, of the same test as ``p``: holds 0 exactly where ``p`` is 0.05 or more.
        won, lost, tied: items on which the second run scores higher, lower, the same.
        p: exact sign-flip permutation test over clusters, two-sided.
    """

    mean_first: float
    mean_second: float
    difference: float
    stderr: float | None
    interval: tuple[float, float]
    won: int
    lost: int
    tied: int
    p: float


@dataclass(frozen=True)
class PairedComparison:
    """Which items could be paired, and what they say.

    Attributes:
        n_paired: items scored in both.
        n_clusters: independent draws among them.
        only_first, only_second: items that the other's file lacks.
        unscored: items in both files, without a score in at least one.
        effect: ``None`` without a pair.
    """

    n_paired: int
    n_clusters: int
    only_first: int
    only_second: int
    unscored: int
    effect: Effect | None


def _effect(pairs: Sequence[tuple[float, float]], clusters: Sequence[str]) -> Effect | None:
    differences = [b - a for a, b in pairs]
    difference, stderr = mean_and_stderr(differences, clusters)
    mean_first, _ = mean_and_stderr([a for a, _ in pairs])
    mean_second, _ = mean_and_stderr([b for _, b in pairs])
    if difference is None or mean_first is None or mean_second is None:
        return None
    won = sum(each > 0 for each in differences)
    lost = sum(each < 0 for each in differences)
    sums, sizes = cluster_sums(differences, clusters)
    p = sign_flip_test(sums)
    return Effect(
        mean_first=mean_first,
        mean_second=mean_second,
        difference=difference,
        stderr=stderr,
        interval=difference_interval(sums, sizes, p),
        won=won,
        lost=lost,
        tied=len(pairs) - won - lost,
        p=p,
    )


def compare(
    first: Mapping[str, float | None],
    second: Mapping[str, float | None],
    clusters: Mapping[str, str] | None = None,
) -> PairedComparison:
    """Compare two runs, each a score (fraction, or ``None`` for unscored) by item id.

    An item that ``clusters`` does not name is a cluster of its own.
    """
    in_both = first.keys() & second.keys()
    pairs: list[tuple[float, float]] = []
    where: list[str] = []
    for name in first:
        a, b = first[name], second.get(name)
        if a is not None and b is not None:
            pairs.append((a, b))
            where.append((clusters or {}).get(name, name))
    return PairedComparison(
        n_paired=len(pairs),
        n_clusters=len(set(where)),
        only_first=len(first.keys() - in_both),
        only_second=len(second.keys() - in_both),
        unscored=len(in_both) - len(pairs),
        effect=_effect(pairs, where),
    )


def outcome(result: PairedComparison, adjusted: float) -> str:
    """How the second run compares, as one word.

    ``higher``, ``lower``; ``weak``, a difference by its own p-value and not by ``adjusted``, which
    is corrected for the number of comparisons; ``open``; ``same``; ``none``, nothing to compare.
    """
    effect = result.effect
    if effect is None:
        return "none"
    if effect.won == effect.lost == 0:
        return "same"
    if adjusted >= LEVEL:
        return "open" if effect.p >= LEVEL else "weak"
    return "higher" if effect.difference > 0 else "lower"


def verdict(result: PairedComparison, first: str, second: str, adjusted: float) -> str:
    """The comparison in plain words; ``first`` and ``second`` are the runs' labels."""
    effect = result.effect
    if effect is None:
        return "not compared: no item is scored in both"
    items = plural(result.n_paired, "item")
    if result.n_clusters != result.n_paired:
        items += f" of {plural(result.n_clusters, 'problem')}"
    p = p_value(effect.p)
    if adjusted != effect.p:
        p += f", corrected {p_value(adjusted).removeprefix('p ').removeprefix('= ')}"
    kind = outcome(result, adjusted)
    if kind == "same":
        return f"the same score on every item compared ({items})"
    if kind == "weak":
        return (
            f"a difference of {points(effect.difference)} points that does not hold after the "
            f"correction for the number of comparisons ({p}, {items})"
        )
    if kind == "open":
        low, high = effect.interval
        return (
            f"no difference can be told apart from chance ({p}, {items}); differences from "
            f"{points(low)} to {points(high)} points are compatible with the data"
        )
    better, worse = (second, first) if kind == "higher" else (first, second)
    by = points(abs(effect.difference)).removeprefix("+")
    return f"{better} scores higher than {worse}, by {by} points ({p}, {items})"
