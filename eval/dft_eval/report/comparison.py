"""Paired comparison of two variants on one benchmark, over the items that both have scored.

Pairing removes what the items share (some are hard for every model), so a paired difference is
known better than two scores with their standard errors suggest. Items of one cluster, such as the
versions of one problem, count as one draw; so does a training seed, of which both have a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dft_eval.report.formats import p_value, plural, points, points_between, size
from dft_eval.seed_statistics import Crossed, Scored, paired_difference
from dft_eval.statistics import LEVEL, mean_and_stderr

Scores = Mapping[str, float | None]
"""Scores by item id; None if unscored."""


@dataclass(frozen=True)
class Effect:
    """The second minus the first, over the paired items and seeds. Scores are fractions.

    Attributes:
        estimate: the mean paired difference and where its error comes from.
        interval: 95 %, of the same test as ``p``: holds 0 exactly where ``p`` is 0.05 or more.
        won, lost, tied: items on which the second scores higher, lower, the same, over the seeds.
        p: two-sided; with one seed the exact sign-flip permutation test over clusters.
    """

    mean_first: float
    mean_second: float
    estimate: Crossed
    interval: tuple[float, float]
    won: int
    lost: int
    tied: int
    p: float

    @property
    def difference(self) -> float:
        return self.estimate.mean


@dataclass(frozen=True)
class PairedComparison:
    """Counts of paired items, and the effect over them.

    Attributes:
        n_seeds: pairs of runs, one a training seed.
        n_paired: items scored in both, of any seed.
        n_clusters: independent draws among them.
        only_first, only_second: items present in that file alone, over all seeds.
        unscored: items in both files, without a score in at least one, of all seeds.
        effect: ``None`` without a pair.
    """

    n_seeds: int
    n_paired: int
    n_clusters: int
    only_first: int
    only_second: int
    unscored: int
    effect: Effect | None


def compare(
    seeds: Sequence[tuple[Scores, Scores]], clusters: Mapping[str, str] | None = None
) -> PairedComparison:
    """Compare two variants, the scores of both for each training seed.

    An item that ``clusters`` does not name is a cluster of its own.
    """
    pairs: list[tuple[float, float]] = []
    rows: list[list[Scored]] = []
    totals: dict[str, float] = {}
    for first, second in seeds:
        rows.append([])
        for name, a in first.items():
            b = second.get(name)
            if a is not None and b is not None:
                pairs.append((a, b))
                rows[-1].append(((clusters or {}).get(name, name), b - a))
                totals[name] = totals.get(name, 0.0) + b - a
    in_both = sum(len(first.keys() & second.keys()) for first, second in seeds)
    return PairedComparison(
        n_seeds=sum(map(bool, rows)),
        n_paired=len(totals),
        n_clusters=len({cluster for row in rows for cluster, _ in row}),
        only_first=sum(len(first) for first, _ in seeds) - in_both,
        only_second=sum(len(second) for _, second in seeds) - in_both,
        unscored=in_both - len(pairs),
        effect=_effect(pairs, rows, list(totals.values())),
    )


def _effect(
    pairs: Sequence[tuple[float, float]], rows: Sequence[Sequence[Scored]], totals: Sequence[float]
) -> Effect | None:
    paired = paired_difference([row for row in rows if row])
    mean_first, _ = mean_and_stderr([a for a, _ in pairs])
    mean_second, _ = mean_and_stderr([b for _, b in pairs])
    if paired is None or mean_first is None or mean_second is None:
        return None
    # Below the rounding of a sum of seeds two scores are equal.
    won = sum(total > 1e-9 for total in totals)
    lost = sum(total < -1e-9 for total in totals)
    return Effect(
        mean_first=mean_first,
        mean_second=mean_second,
        estimate=paired.estimate,
        interval=paired.interval,
        won=won,
        lost=lost,
        tied=len(totals) - won - lost,
        p=paired.p,
    )


def outcome(result: PairedComparison, adjusted: float) -> str:
    """Outcome for the second variant, as one word.

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
    """The comparison as a sentence; ``first`` and ``second`` are labels."""
    effect = result.effect
    if effect is None:
        return "not compared: no item is scored in both"
    items = plural(result.n_paired, "item")
    if result.n_clusters != result.n_paired:
        items += f" of {plural(result.n_clusters, 'problem')}"
    if result.n_seeds > 1:
        items += f", {plural(result.n_seeds, 'seed')}"
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
        return (
            f"no difference can be told apart from chance ({p}, {items}); differences from "
            f"{points_between(effect.interval)} points are compatible with the data"
        )
    better, worse = (second, first) if kind == "higher" else (first, second)
    by = size(effect.difference)
    return f"{better} scores higher than {worse}, by {by} points ({p}, {items})"


def seeds_or_items(estimate: Crossed) -> str:
    """Which of seeds and items makes the interval wide, in a sentence; empty for one seed."""
    if estimate.spread is None or estimate.item_variance is None:
        return ""
    spread, items = map(size, (estimate.spread, estimate.items))
    n = plural(estimate.seeds, "seed")
    if estimate.seeds_dominate:
        return (
            f"The spread between {n} (SD {spread} points) widens the interval more than the error "
            f"over items ({items}): more seeds, not more items, would narrow it."
        )
    return (
        f"The error over items ({items} points) widens the interval more than the spread between "
        f"{n} (SD {spread}): more items, not more seeds, would narrow it."
    )
