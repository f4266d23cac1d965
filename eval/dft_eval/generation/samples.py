"""Several completions a problem: pass@k by the unbiased estimator, one item score a problem."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dft_eval.results import ItemScore

KS = (10, 100)
"""For which pass@k is told beside pass@1, where there are that many samples."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate the probability that one of k samples passes, from c of n that did.

    1 - C(n - c, k) / C(n, k): Chen et al. 2021 (arXiv 2107.03374), equation 1.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {c} of {n}: needs 0 <= c <= n and 1 <= k <= n.")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def combine(
    ids: Sequence[str],
    verdicts: Sequence[ItemScore],
    samples: int,
    *,
    ks: Sequence[int] = KS,
) -> tuple[list[ItemScore], dict[str, float | None]]:
    """One item a problem, whose score is its pass@1, and the mean pass@k over scored problems.

    A problem of which any sample is unscored is unscored.

    Args:
        verdicts: ``samples`` of each problem, one after the other.
        ks: for which pass@k is told, where there are that many samples.
    """
    items: list[ItemScore] = []
    passed: list[int] = []
    for place, id in enumerate(ids):
        rows = verdicts[place * samples : (place + 1) * samples]
        scores = [row.score for row in rows if row.score is not None]
        if len(scores) < len(rows):
            reason = next(row.reason for row in rows if row.score is None)
            items.append(ItemScore(id=id, score=None, reason=reason))
            continue
        correct = sum(score == 1.0 for score in scores)
        passed.append(correct)
        reason = rows[0].reason if samples == 1 else f"{correct} of {samples} samples passed"
        items.append(ItemScore(id=id, score=pass_at_k(samples, correct, 1), reason=reason))
    means: dict[str, float | None] = {}
    for k in (k for k in ks if k <= samples):
        estimates = [pass_at_k(samples, correct, k) for correct in passed]
        means[f"pass@{k}"] = math.fsum(estimates) / len(estimates) if estimates else None
    return items, means
