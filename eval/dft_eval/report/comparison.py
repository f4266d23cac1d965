"""Paired comparison of two runs on one benchmark, over the items that both have scored.

Pairing removes what the items share (some are hard for every model), so a paired difference is
known better than two scores with their standard errors suggest. Items count as independent draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dft_eval.report.formats import p_value, plural, points
from dft_eval.results import mean_and_stderr

Z_95 = 1.959963984540054
"""Two-sided 95 % point of the normal distribution."""

FEW = 30
"""Below this many pairs graded scores are judged by the exact sign test."""

LEVEL = 0.05


@dataclass(frozen=True)
class Effect:
    """The second run minus the first, over the paired items. Scores are fractions.

    Attributes:
        stderr: standard error of the mean paired difference; ``None`` for a single pair.
        interval: 95 %, normal approximation of the paired differences, within [-1, 1]; ``None``
            where the differences do not vary, which gives no estimate of their spread.
        won, lost, tied: items on which the second run scores higher, lower, the same.
        p: two-sided, of no difference.
        method: how ``p`` was found.
    """

    mean_first: float
    mean_second: float
    difference: float
    stderr: float | None
    interval: tuple[float, float] | None
    won: int
    lost: int
    tied: int
    p: float
    method: str


@dataclass(frozen=True)
class PairedComparison:
    """Which items could be paired, and what they say.

    Attributes:
        n_paired: items scored in both.
        only_first, only_second: items that the other's file lacks.
        unscored: items in both files, without a score in at least one.
        effect: ``None`` without a pair.
    """

    n_paired: int
    only_first: int
    only_second: int
    unscored: int
    effect: Effect | None


def sign_test(won: int, lost: int) -> float:
    """Exact two-sided p-value of ``won`` against ``lost`` under fair coin tosses; ties drop out.

    2·P[Binomial(won + lost, 1/2) <= min(won, lost)], at most 1. On scores of 0 and 1 this is
    McNemar's exact test.
    """
    n = won + lost
    tail = sum(math.comb(n, k) for k in range(min(won, lost) + 1))
    # A shift and not 2**n, which a type checker takes for Any; int / int is rounded once.
    return min(1.0, 2 * tail / (1 << n))


def _effect(pairs: Sequence[tuple[float, float]]) -> Effect | None:
    difference, stderr = mean_and_stderr([b - a for a, b in pairs])
    mean_first, _ = mean_and_stderr([a for a, _ in pairs])
    mean_second, _ = mean_and_stderr([b for _, b in pairs])
    if difference is None or mean_first is None or mean_second is None:
        return None
    won = sum(b > a for a, b in pairs)
    lost = sum(b < a for a, b in pairs)
    interval = None
    if stderr:
        low, high = difference - Z_95 * stderr, difference + Z_95 * stderr
        interval = max(-1.0, low), min(1.0, high)
    if all(score in (0.0, 1.0) for pair in pairs for score in pair):
        p, method = sign_test(won, lost), "McNemar, exact"
    elif len(pairs) < FEW or not stderr:
        p, method = sign_test(won, lost), "sign test, exact"
    else:
        p, method = math.erfc(abs(difference) / stderr / math.sqrt(2)), "normal"
    return Effect(
        mean_first=mean_first,
        mean_second=mean_second,
        difference=difference,
        stderr=stderr,
        interval=interval,
        won=won,
        lost=lost,
        tied=len(pairs) - won - lost,
        p=p,
        method=method,
    )


def compare(
    first: Mapping[str, float | None], second: Mapping[str, float | None]
) -> PairedComparison:
    """Compare two runs, each a score (fraction, or ``None`` for unscored) by item id."""
    in_both = first.keys() & second.keys()
    pairs: list[tuple[float, float]] = []
    for name in first:
        a, b = first[name], second.get(name)
        if a is not None and b is not None:
            pairs.append((a, b))
    return PairedComparison(
        n_paired=len(pairs),
        only_first=len(first.keys() - in_both),
        only_second=len(second.keys() - in_both),
        unscored=len(in_both) - len(pairs),
        effect=_effect(pairs),
    )


def verdict(result: PairedComparison, first: str, second: str) -> str:
    """The comparison in plain words; ``first`` and ``second`` are the runs' labels."""
    effect = result.effect
    if effect is None:
        return "not compared: no item is scored in both"
    items = plural(result.n_paired, "item")
    if effect.won == effect.lost == 0:
        return f"the same score on every item compared ({items})"
    p = p_value(effect.p)
    if effect.p >= LEVEL:
        return f"no difference can be told apart from chance ({p}, {items})"
    exact = effect.method != "normal"
    if exact and (effect.won - effect.lost) * effect.difference <= 0:
        return f"undecided: more items won and a higher mean point to different runs ({p}, {items})"
    better, worse = (second, first) if effect.difference > 0 else (first, second)
    by = points(abs(effect.difference)).removeprefix("+")
    return f"{better} scores higher than {worse}, by {by} points ({p}, {items})"
