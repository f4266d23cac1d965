"""Statistics of completions: truncated, empty, repeated, length, entropy; and collapse."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from dft_eval.report.formats import percent, size
from dft_eval.report.pairs import compare_pooled
from dft_eval.report.runs import Evaluation, Key, Pooled, Variant, benchmarks, key_name, short_names
from dft_eval.report.scores import Table
from dft_eval.statistics import LEVEL

SHARE_GAP = 0.05
"""Warn if the shares of truncated (or empty) completions differ by this much."""
TOKENS_RATIO = 1.5
"""Warn if the mean numbers of tokens differ by this factor."""
COLLAPSE_POINTS = 0.1
"""A model may have collapsed if it scores this much below the base, ..."""
COLLAPSE_REPEATED = 0.2
"""... and has if its share of repeated completions is this much higher, ..."""
COLLAPSE_TOKENS = 0.5
"""... or if its completions are shorter by this factor."""
UNKNOWN = "not recorded"
_HEAD = (
    *("benchmark", "run", "cut at the token limit", "empty", "same text as another item"),
    *("mean tokens", "mean entropy (nats a token)"),
)


@dataclass(frozen=True)
class Look:
    """Completion statistics: shares, mean tokens, nats per token; None if not recorded.

    ``repeated`` is the share with the text of another item's completion.
    """

    truncated: float | None
    empty: float | None
    repeated: float | None
    tokens: float | None
    entropy: float | None


def look(pooled: Pooled) -> Look:
    """Means over seeds."""
    columns = zip(*(astuple(_of_evaluation(row)) for row in pooled.evaluations), strict=True)
    return Look(*map(_mean, columns))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _of_evaluation(evaluation: Evaluation) -> Look:
    """From results.json, else from the completions."""
    result = evaluation.row
    completions = [
        row for id, row in (evaluation.completions or {}).items() if id in evaluation.items
    ]
    texts = Counter(row.completion.strip() for row in completions)
    total = result.n_completions or result.n_total
    truncated = result.n_truncated / total if result.n_truncated is not None else None
    empty = result.n_empty / total if result.n_empty is not None else None
    tokens = result.mean_tokens
    if truncated is None:
        truncated = _mean([row.finish_reason == "length" for row in completions])
    if empty is None:
        empty = _mean([not row.completion.strip() for row in completions])
    if tokens is None:
        tokens = _mean([row.n_tokens for row in completions])
    repeated = _mean([texts[row.completion.strip()] > 1 for row in completions])
    return Look(truncated, empty, repeated, tokens, result.mean_entropy)


def lengths(variants: Sequence[Variant]) -> tuple[Table | None, tuple[str, ...]]:
    """A row for each benchmark and variant; and a warning of each in which variants differ."""
    rows, warnings = [], []
    for key in benchmarks(variants):
        by_run = {
            run.label: look(run.evaluations[key]) for run in variants if key in run.evaluations
        }
        for label, own in by_run.items():
            if own != Look(None, None, None, None, None):
                texts = (_share(part) for part in (own.truncated, own.empty, own.repeated))
                numbers = (_number(own.tokens, ",.0f"), _number(own.entropy, ".2f"))
                rows.append((key_name(key), label, *texts, *numbers))
        for what, name in (("cut at the token limit", "truncated"), ("empty", "empty")):
            shares = {label: getattr(own, name) for label, own in by_run.items()}
            shares = {label: share for label, share in shares.items() if share is not None}
            if shares and max(shares.values()) - min(shares.values()) >= SHARE_GAP:
                listed = ", ".join(
                    f"{percent(share)} of {name}'s" for name, share in shares.items()
                )
                warnings.append(
                    f"{key_name(key)}: completions {what}: {listed}. Scores differ for that reason "
                    "too."
                )
        counts = {label: own.tokens for label, own in by_run.items() if own.tokens}
        if counts and max(counts.values()) >= TOKENS_RATIO * min(counts.values()):
            listed = ", ".join(f"{label} {count:,.0f}" for label, count in counts.items())
            warnings.append(f"{key_name(key)}: mean tokens of a completion: {listed}.")
    # Servers tell no entropy.
    width = len(_HEAD) - all(row[-1] == UNKNOWN for row in rows)
    table = Table(_HEAD[:width], tuple(row[:width] for row in rows)) if rows else None
    return table, tuple(warnings)


def _share(share: float | None) -> str:
    return UNKNOWN if share is None else percent(share)


def _number(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)


def collapses(variants: Sequence[Variant]) -> tuple[str, ...]:
    """A sentence for each variant and benchmark on which it collapsed, against ``base``.

    It scores far below the base (:data:`COLLAPSE_POINTS`, by the paired test), and its completions
    are of one text for many items, or much shorter.
    """
    base = next((run for run in variants if run.label == "base"), None)
    if base is None:
        return ()
    names = short_names(benchmarks(variants))
    return tuple(
        sentence
        for variant in variants
        for key in names
        if variant is not base and (sentence := _collapse(base, variant, key, names[key]))
    )


def _collapse(base: Variant, tuned: Variant, key: Key, name: str) -> str:
    if key not in base.evaluations or key not in tuned.evaluations:
        return ""
    first, second = base.evaluations[key], tuned.evaluations[key]
    effect = compare_pooled(first, second).effect
    if effect is None or effect.difference > -COLLAPSE_POINTS or effect.p >= LEVEL:
        return ""
    before, after = look(first), look(second)
    signs = []
    if (after.repeated or 0) - (before.repeated or 0) >= COLLAPSE_REPEATED:
        signs.append(
            f"{percent(after.repeated or 0)} of its completions have the same text as another "
            f"item's ({base.label}: {percent(before.repeated or 0)})"
        )
    if before.tokens and after.tokens and after.tokens <= COLLAPSE_TOKENS * before.tokens:
        signs.append(
            f"a completion has {after.tokens:,.0f} tokens on average ({base.label}: "
            f"{before.tokens:,.0f})"
        )
    if not signs:
        return ""
    lost = size(effect.difference)
    return (
        f"{tuned.label} has collapsed on {name}: it scores {lost} points below {base.label}; "
        f"{'; '.join(signs)}."
    )
