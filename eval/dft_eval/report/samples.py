"""pass@k of evaluations with several samples an item, with intervals over items and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dft_eval.generation.samples import pass_at_k
from dft_eval.report.formats import breakdown, percent, percent_between
from dft_eval.report.runs import Evaluation, Key, Pooled, Variant, benchmarks, key_name
from dft_eval.report.scores import Table
from dft_eval.seed_statistics import Scored, crossed, score_interval

SHOWN = (1, 4, 16, 64, 256)
"""k of the table's columns; the most samples come last."""


@dataclass(frozen=True)
class PassAtK:
    """A mean over items of the unbiased estimate; ``low`` and ``high`` are its 95 % interval."""

    k: int
    mean: float
    low: float
    high: float


def curve(pooled: Pooled) -> tuple[PassAtK, ...]:
    """pass@k for k = 1, 2, 4, ... and all samples; empty for one sample or scores of another kind.

    Each item's estimate is that of Chen et al. 2021 (arXiv 2107.03374, equation 1); the interval
    covers the items, whose estimates hold the chance of their samples, and the training seeds.
    """
    samples = min(evaluation.samples for evaluation in pooled.evaluations)
    counts = list(map(_counts, pooled.evaluations))
    if samples < 2 or not all(counts):
        return ()
    ks = [*(2**power for power in range(samples.bit_length()) if 2**power < samples), samples]
    return tuple(point for k in ks if (point := _at(k, counts, pooled)))


def _counts(evaluation: Evaluation) -> dict[str, int] | None:
    """How many samples of each scored item are right; None where items are not shares of them."""
    n = evaluation.samples
    scores = {id: row.score for id, row in evaluation.items.items() if row.score is not None}
    counts = {id: round(score * n) for id, score in scores.items()}
    exact = all(abs(scores[id] * n - count) < 1e-6 for id, count in counts.items())
    return counts if exact and evaluation.problems is None else None


def _at(k: int, counts: Sequence[dict[str, int] | None], pooled: Pooled) -> PassAtK | None:
    seeds: list[list[Scored]] = [
        [
            (evaluation.items[id].cluster or id, pass_at_k(evaluation.samples, right, k))
            for id, right in (of_seed or {}).items()
        ]
        for evaluation, of_seed in zip(pooled.evaluations, counts, strict=True)
    ]
    estimate = crossed([[scored] for scored in seeds])
    if estimate is None:
        return None
    clusters = {cluster for scored in seeds for cluster, _ in scored}
    low, high = score_interval(estimate, max(map(len, seeds)), len(clusters))
    return PassAtK(k, estimate.mean, low, high)


def curves(variants: Sequence[Variant]) -> dict[Key, list[tuple[PassAtK, ...]]]:
    """The curve of each variant by benchmark, empty where it has none; those with a curve alone."""
    by_benchmark = {
        key: [curve(pooled) if (pooled := run.evaluations.get(key)) else () for run in variants]
        for key in benchmarks(variants)
    }
    return {key: of_runs for key, of_runs in by_benchmark.items() if any(of_runs)}


def pass_table(variants: Sequence[Variant]) -> Table | None:
    """pass@k and, for mathematics, maj@k of each run; None where nothing has several samples."""
    by_benchmark = curves(variants)
    drawn = [curve for of_runs in by_benchmark.values() for curve in of_runs if curve]
    most = {curve[-1].k for curve in drawn}
    ks = sorted({point.k for curve in drawn for point in curve if point.k in SHOWN} | most)
    rows, majorities = [], []
    for key, of_runs in by_benchmark.items():
        for variant, curve in zip(variants, of_runs, strict=True):
            if curve:
                by_k = {point.k: point for point in curve}
                texts = (_text(by_k[k]) if k in by_k else "" for k in ks)
                rows.append((key_name(key), variant.label, *texts))
                majorities.append(_majority(variant.evaluations[key]))
    head = ("benchmark", "run", *(f"pass@{k}" for k in ks))
    if any(majorities):
        head = (*head, "majority of samples")
        rows = [(*row, majority) for row, majority in zip(rows, majorities, strict=True)]
    return Table(head, tuple(rows)) if rows else None


def _text(point: PassAtK) -> str:
    return f"{percent(point.mean)}, {percent_between((point.low, point.high))}"


def _majority(pooled: Pooled) -> str:
    """``maj@16 48.2 %``, the mean over seeds; empty where it is not known."""
    name = f"maj@{pooled.evaluations[0].samples}"
    values = [row.breakdown.get(name) for row in pooled.rows]
    known = [value for value in values if value is not None]
    return f"{name} {breakdown(sum(known) / len(known))}" if known else ""
