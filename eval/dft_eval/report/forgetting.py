"""Gained and lost: every trained model against the base, on every benchmark that both have run."""

from __future__ import annotations

from collections.abc import Sequence

from dft_eval.report.decodings import change_text
from dft_eval.report.pairs import compare_pooled
from dft_eval.report.runs import BASE, Key, Variant, benchmarks, key_name
from dft_eval.report.scores import Table, score_text


def forgetting_table(variants: Sequence[Variant]) -> Table | None:
    """Differences from the base by benchmark; None without a base, or with one benchmark alone."""
    base = next((variant for variant in variants if variant.label == BASE), None)
    trained = [variant for variant in variants if variant is not base]
    if base is None or not trained:
        return None
    keys = [key for key in benchmarks(variants) if key in base.evaluations]
    if len({key.benchmark for key in keys}) < 2:
        return None
    rows = [
        (
            key_name(key),
            score_text(base.evaluations[key]),
            *(_change(base, variant, key) for variant in trained),
        )
        for key in keys
    ]
    titles = (f"{variant.label} minus {BASE} (points)" for variant in trained)
    return Table(("benchmark", BASE, *titles), tuple(rows))


def _change(base: Variant, trained: Variant, key: Key) -> str:
    if key not in trained.evaluations:
        return "not run"
    effect = compare_pooled(base.evaluations[key], trained.evaluations[key]).effect
    if effect is None or effect.interval[0] <= 0 <= effect.interval[1]:
        return change_text(effect)
    return f"{change_text(effect)}, {'gained' if effect.difference > 0 else 'lost'}"
