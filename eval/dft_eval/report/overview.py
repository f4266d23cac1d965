"""What the report opens with: the verdict in words, differences, failures, length, settings."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dft_eval.report.comparison import outcome, seeds_or_items
from dft_eval.report.formats import percent, plural, points
from dft_eval.report.pairs import Comparison, Pair
from dft_eval.report.runs import Evaluation, Pooled, Variant, benchmarks, key_name, short_names
from dft_eval.report.scores import Bar, Chart, Table

REASONS = 8
"""Rows of the table of failure reasons; the rest are summed."""
SHARE_GAP = 0.05
"""Difference of the shares truncated, or empty, from which on there is a warning."""
IN_FULL = 3
"""Benchmarks up to which the first pair has a sentence for each."""
TOKENS_RATIO = 1.5
"""The same for the ratio of the mean numbers of tokens."""


def headline(pairs: Sequence[Pair], variants: Sequence[Variant]) -> tuple[str, ...]:
    """The verdicts, the most important first: in full for the first pair, then one a pair."""
    if not variants:
        return ("No run has results.",)
    if len(variants) == 1:
        return (f"One run, {variants[0].label}: there is nothing to compare it with.",)
    if not pairs:
        return ("No two runs are compared.",)
    return (*_first(pairs[0]), *map(_grouped, pairs[1:]))


def _rows(pair: Pair) -> list[tuple[str, Comparison]]:
    """Comparisons by a short name; the parts of a score have their place in the charts."""
    rows = [row for row in pair.comparisons if row.name == key_name(row.key)]
    names = short_names([row.key for row in rows])
    return [(names[row.key], row) for row in rows]


def _first(pair: Pair) -> tuple[str, ...]:
    rows = _rows(pair)
    if len(rows) > IN_FULL or not any(row.result.n_seeds > 1 for _, row in rows):
        return (_grouped(pair),)
    sentences = [sentence for name, row in rows for sentence in _over_seeds(row, name)]
    return tuple(sentence for sentence in sentences if sentence)


def _grouped(pair: Pair) -> str:
    """One sentence: the benchmarks by their outcome."""
    by_kind: dict[str, list[str]] = {}
    rows = _rows(pair)
    for name, row in rows:
        kind = outcome(row.result, row.adjusted)
        effect = row.result.effect
        by = f" ({points(effect.difference)} points)" if effect and kind in _BETTER else ""
        by_kind.setdefault(kind, []).append(f"{name}{by}")
    if not by_kind:
        return f"{pair.title}: no benchmark was run by both."
    words = [
        template.format(", ".join(by_kind[kind]), first=pair.first, second=pair.second)
        for kind, template in _WORDS.items()
        if kind in by_kind
    ]
    seeds = max(row.result.n_seeds for _, row in rows)
    over = f" over {seeds} seeds" if seeds > 1 else ""
    return f"{pair.title}{over}: {'; '.join(words)}."


def _over_seeds(row: Comparison, name: str) -> tuple[str, ...]:
    """The difference over the seeds with its interval; what makes that wide."""
    effect, kind = row.result.effect, outcome(row.result, row.adjusted)
    over = f"Over {plural(row.result.n_seeds, 'seed')}, "
    if effect is None:
        return (f"{row.second} against {row.first}: no item of {name} is scored in both.",)
    if kind == "same":
        return (f"{over}{row.second} and {row.first} score the same on every item of {name}.",)
    size = points(abs(effect.difference)).removeprefix("+")
    side = "above" if effect.difference > 0 else "below"
    low, high = map(points, effect.interval)
    text = (
        f"{over}{row.second} scores {size} points {side} {row.first} on {name} "
        f"(95 % interval {low} to {high}){_SEEDED[kind]}."
    )
    return text, seeds_or_items(effect.estimate)


_SEEDED = {
    "higher": "",
    "lower": "",
    "weak": ", which does not hold after the correction for all comparisons here",
    "open": ", which cannot be told apart from chance",
}
_BETTER = ("higher", "lower", "weak")
_WORDS = {
    "higher": "{second} scores higher on {0}",
    "lower": "{second} scores lower on {0}",
    "weak": "a difference on {0} does not hold after the correction for all comparisons here",
    "open": "no difference can be told apart from chance on {0}",
    "same": "the same score on every item of {0}",
    "none": "no item of {0} is scored in both",
}


def forest(pairs: Sequence[Pair]) -> tuple[Chart, ...]:
    """Paired differences with their intervals, one chart a pair of runs, all on one axis."""
    effects = [row.result.effect for pair in pairs for row in pair.comparisons]
    ends = [abs(end) for effect in effects if effect for end in effect.interval if abs(end) < 1]
    reach = max([0.05, *ends, *(abs(effect.difference) for effect in effects if effect)])
    scale = next(each for each in (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0) if reach <= each)
    axis = (points(-scale), "0 points", points(scale))
    return tuple(
        Chart(pair.title, tuple(_difference(row, scale) for row in pair.comparisons), axis)
        for pair in pairs
        if pair.comparisons
    )


def _difference(row: Comparison, scale: float) -> Bar:
    effect, kind = row.result.effect, outcome(row.result, row.adjusted)
    if effect is None:
        return Bar(row.name, row.verdict, kind=kind)

    def place(value: float) -> float:
        return 50 + 50 * max(-scale, min(scale, value)) / scale

    left, right = map(place, effect.interval)
    seeds = effect.estimate.by_seed
    return Bar(
        row.name,
        f"{points(effect.difference)} ({' to '.join(map(points, effect.interval))})",
        kind=kind,
        left=left,
        width=right - left,
        dot=place(effect.difference),
        ticks=tuple(map(place, seeds)) if len(seeds) > 1 else (),
    )


def _failure(reason: str) -> str:
    """A reason without what is particular to one item."""
    text = re.split(r"[:;,(\n]", reason, maxsplit=1)[0]
    text = re.sub(r"\d+(\.\d+)?", "#", " ".join(text.split()))
    return (text if len(text) <= 60 else f"{text[:59]}…") or "no reason recorded"


def failures(variants: Sequence[Variant]) -> tuple[tuple[str, Table], ...]:
    """Why items are not right, by benchmark: counts over all seeds, the most frequent first."""
    tables = []
    for key in benchmarks(variants):
        labels, counts = [], []
        for variant in variants:
            if pooled := variant.evaluations.get(key):
                n = len(pooled.rows)
                labels.append(f"{variant.label} ({n} seeds)" if n > 1 else variant.label)
                counts.append(
                    Counter(
                        _failure(item.reason)
                        if item.score is not None
                        else f"unscored: {_failure(item.reason)}"
                        for evaluation in pooled.evaluations
                        for item in evaluation.items.values()
                        if item.score is None or item.score < 1
                    )
                )
        total = sum(counts, Counter())
        ranked = sorted(total, key=lambda reason: (-total[reason], reason))
        rows = [
            (reason, *(f"{count[reason]:,}" for count in counts)) for reason in ranked[:REASONS]
        ]
        if rest := ranked[REASONS:]:
            others = (f"{sum(count[reason] for reason in rest):,}" for count in counts)
            rows.append((plural(len(rest), "other reason"), *others))
        if rows:
            head = ("reason, items not fully right", *labels)
            tables.append((key_name(key), Table(head, tuple(rows))))
    return tuple(tables)


@dataclass(frozen=True)
class _Length:
    truncated: float | None
    empty: float | None
    tokens: float | None


def _length(pooled: Pooled) -> _Length:
    """Means over seeds."""
    seeds = [_seed_length(each) for each in pooled.evaluations]

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    return _Length(
        mean([each.truncated for each in seeds]),
        mean([each.empty for each in seeds]),
        mean([each.tokens for each in seeds]),
    )


def _seed_length(evaluation: Evaluation) -> _Length:
    """From results.json, else from the completions."""
    row = evaluation.row
    completions = [
        each for id, each in (evaluation.completions or {}).items() if id in evaluation.items
    ]
    total = row.n_completions or row.n_total
    truncated = row.n_truncated / total if row.n_truncated is not None else None
    empty = row.n_empty / total if row.n_empty is not None else None
    tokens = row.mean_tokens
    if completions:
        n = len(completions)
        if truncated is None:
            truncated = sum(each.finish_reason == "length" for each in completions) / n
        if empty is None:
            empty = sum(not each.completion.strip() for each in completions) / n
        counts = [each.n_tokens for each in completions if each.n_tokens is not None]
        if tokens is None and counts:
            tokens = sum(counts) / len(counts)
    return _Length(truncated, empty, tokens)


def lengths(variants: Sequence[Variant]) -> tuple[Table | None, tuple[str, ...]]:
    """Shares truncated and empty, mean tokens; and a warning of each in which runs differ."""
    rows, warnings = [], []
    for key in benchmarks(variants):
        by_run = {
            each.label: _length(each.evaluations[key])
            for each in variants
            if key in each.evaluations
        }
        for label, each in by_run.items():
            if each == _Length(None, None, None):
                continue
            texts = (
                "not recorded" if share is None else percent(share)
                for share in (each.truncated, each.empty)
            )
            tokens = "not recorded" if each.tokens is None else f"{each.tokens:,.0f}"
            rows.append((key_name(key), label, *texts, tokens))
        for what, name in (("cut at the token limit", "truncated"), ("empty", "empty")):
            shares = {label: getattr(each, name) for label, each in by_run.items()}
            shares = {label: share for label, share in shares.items() if share is not None}
            if shares and max(shares.values()) - min(shares.values()) >= SHARE_GAP:
                listed = ", ".join(
                    f"{percent(share)} of {name}'s" for name, share in shares.items()
                )
                warnings.append(
                    f"{key_name(key)}: completions {what}: {listed}. Scores differ for that reason "
                    "too."
                )
        counts = {label: each.tokens for label, each in by_run.items() if each.tokens}
        if counts and max(counts.values()) >= TOKENS_RATIO * min(counts.values()):
            listed = ", ".join(f"{label} {count:,.0f}" for label, count in counts.items())
            warnings.append(f"{key_name(key)}: mean tokens of a completion: {listed}.")
    head = ("benchmark", "run", "cut at the token limit", "empty", "mean tokens")
    return (Table(head, tuple(rows)) if rows else None), tuple(warnings)


def settings(variants: Sequence[Variant]) -> Table | None:
    """Settings in which the variants differ on a benchmark; None where none do."""
    rows = []
    for key in benchmarks(variants):
        by_label = {
            variant.label: variant.evaluations[key].evaluations[0].settings
            for variant in variants
            if key in variant.evaluations
        }
        for name in dict.fromkeys(name for fields in by_label.values() for name in fields):
            cells = [
                json.dumps(by_label[variant.label].get(name), ensure_ascii=False)
                if variant.label in by_label
                else "not run"
                for variant in variants
            ]
            if len(set(cells) - {"not run"}) > 1:
                rows.append((f"{key_name(key)}: {name}", *cells))
    head = ("setting", *(variant.label for variant in variants))
    return Table(head, tuple(rows)) if rows else None
