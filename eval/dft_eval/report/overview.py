"""What the report opens with: the verdict in words, charts, failures, length, settings."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dft_eval.report.collect import Evaluation, Run
from dft_eval.report.comparison import outcome
from dft_eval.report.formats import percent, plural, points
from dft_eval.report.pairs import Comparison, Pair
from dft_eval.report.tables import Table, benchmarks, key_name, score_interval

REASONS = 8
"""Rows of the table of failure reasons; the rest are summed."""
SHARE_GAP = 0.05
"""From this difference of the shares truncated or empty on, a pair of runs is warned of."""
TOKENS_RATIO = 1.5
"""The same for the mean number of tokens."""


@dataclass(frozen=True)
class Bar:
    """A value with its interval on a track; ``left``, ``width``, ``dot`` in percent of it."""

    name: str
    text: str
    run: int | None = None
    kind: str = ""
    left: float = 0.0
    width: float = 0.0
    dot: float | None = None


@dataclass(frozen=True)
class Chart:
    """Bars under a title, with the ends of their axis."""

    title: str
    bars: tuple[Bar, ...]
    axis: tuple[str, str, str] = ("0 %", "50 %", "100 %")


def headline(pairs: Sequence[Pair], runs: Sequence[Run]) -> tuple[str, ...]:
    """One sentence or two for each pair of runs, the first the most important."""
    if not pairs:
        return (f"One run, {runs[0].label}: there is nothing to compare it with.",)
    return tuple(_sentences(pair) for pair in pairs)


def _sentences(pair: Pair) -> str:
    by_kind: dict[str, list[str]] = {}
    # The parts of a score have their place in the charts.
    rows = [row for row in pair.comparisons if row.name == key_name(row.key)]
    styles = Counter(row.key[0] for row in rows)
    for row in rows:
        kind = outcome(row.result, row.adjusted)
        effect = row.result.effect
        by = f" ({points(effect.difference)} points)" if effect and kind in _BETTER else ""
        name = row.name if styles[row.key[0]] > 1 else row.key[0]
        by_kind.setdefault(kind, []).append(f"{name}{by}")
    if not by_kind:
        return f"{pair.second} against {pair.first}: no benchmark was run by both."
    words = [
        template.format(", ".join(by_kind[kind]), first=pair.first, second=pair.second)
        for kind, template in _WORDS.items()
        if kind in by_kind
    ]
    return f"{pair.second} against {pair.first}: {'; '.join(words)}."


_BETTER = ("higher", "lower", "weak")
_WORDS = {
    "higher": "{second} scores higher on {0}",
    "lower": "{second} scores lower on {0}",
    "weak": "a difference on {0} does not hold after the correction for all comparisons here",
    "open": "no difference can be told apart from chance on {0}",
    "same": "the same score on every item of {0}",
    "none": "no item of {0} is scored in both",
}


def score_charts(runs: Sequence[Run]) -> tuple[Chart, ...]:
    """The score of each run with its interval, by benchmark."""
    charts = []
    for key in benchmarks(runs):
        bars = []
        metric = ""
        for index, run in enumerate(runs):
            evaluation = run.evaluations.get(key)
            if evaluation is None:
                bars.append(Bar(run.label, "not run", index))
                continue
            row = evaluation.row
            metric = row.metric
            counts = f" ({row.n_scored:,}/{row.n_total:,})" if _is_partial(evaluation) else ""
            if row.score is None:
                bars.append(Bar(run.label, f"unscored{counts}", index))
                continue
            low, high = score_interval(evaluation) or (row.score, row.score)
            span = f", {percent(low).removesuffix(' %')} to {percent(high)}" if high > low else ""
            bars.append(
                Bar(
                    run.label,
                    f"{percent(row.score)}{span}{counts}",
                    index,
                    left=100 * low,
                    width=100 * (high - low),
                    dot=100 * row.score,
                )
            )
        charts.append(Chart(f"{key_name(key)}, {metric}", tuple(bars)))
    return tuple(charts)


def _is_partial(evaluation: Evaluation) -> bool:
    row = evaluation.row
    return row.n_scored != row.n_total or any(
        note.lower().startswith("partial") for note in row.notes
    )


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
    low, high = (max(-scale, min(scale, end)) for end in effect.interval)
    span = " to ".join(map(points, effect.interval))
    return Bar(
        row.name,
        f"{points(effect.difference)} ({span})",
        kind=kind,
        left=50 + 50 * low / scale,
        width=50 * (high - low) / scale,
        dot=50 + 50 * effect.difference / scale,
    )


def _failure(reason: str) -> str:
    """A reason without what is particular to one item."""
    text = re.split(r"[:;,(\n]", reason, maxsplit=1)[0]
    text = re.sub(r"\d+(\.\d+)?", "#", " ".join(text.split()))
    return (text if len(text) <= 60 else f"{text[:59]}…") or "no reason recorded"


def failures(runs: Sequence[Run]) -> tuple[tuple[str, Table], ...]:
    """Why items are not right, by benchmark: counts of each run, the most frequent first."""
    tables = []
    for key in benchmarks(runs):
        labels, counts = [], []
        for run in runs:
            if evaluation := run.evaluations.get(key):
                labels.append(run.label)
                counts.append(
                    Counter(
                        _failure(item.reason)
                        if item.score is not None
                        else f"unscored: {_failure(item.reason)}"
                        for item in evaluation.items.values()
                        if item.score is None or item.score < 1
                    )
                )
        total = sum(counts, Counter())
        ranked = [
            reason for reason, _ in sorted(total.items(), key=lambda each: (-each[1], each[0]))
        ]
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


def _length(evaluation: Evaluation) -> _Length:
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


def lengths(runs: Sequence[Run]) -> tuple[Table | None, tuple[str, ...]]:
    """Shares truncated and empty, mean tokens; and a warning for each two runs that differ."""
    rows, warnings = [], []
    for key in benchmarks(runs):
        by_run = {
            run.label: _length(run.evaluations[key]) for run in runs if key in run.evaluations
        }
        for label, each in by_run.items():
            if each == _Length(None, None, None):
                continue
            shares = (
                "not recorded" if share is None else percent(share)
                for share in (each.truncated, each.empty)
            )
            tokens = "not recorded" if each.tokens is None else f"{each.tokens:,.0f}"
            rows.append((key_name(key), label, *shares, tokens))
        for (first, a), (second, b) in itertools.combinations(by_run.items(), 2):
            for what, x, y in (
                ("cut at the token limit", a.truncated, b.truncated),
                ("empty", a.empty, b.empty),
            ):
                if x is not None and y is not None and abs(x - y) >= SHARE_GAP:
                    warnings.append(
                        f"{key_name(key)}: {percent(x)} of {first}'s completions are {what}, "
                        f"{percent(y)} of {second}'s. Their scores differ for that reason too."
                    )
            if (
                a.tokens
                and b.tokens
                and max(a.tokens, b.tokens) >= TOKENS_RATIO * min(a.tokens, b.tokens)
            ):
                warnings.append(
                    f"{key_name(key)}: {first} writes {a.tokens:,.0f} tokens an item, {second} "
                    f"{b.tokens:,.0f}."
                )
    head = ("benchmark", "run", "cut at the token limit", "empty", "mean tokens")
    return (Table(head, tuple(rows)) if rows else None), tuple(warnings)


def settings(runs: Sequence[Run]) -> Table | None:
    """Settings in which the runs of one benchmark differ; None where none do."""
    rows = []
    for key in benchmarks(runs):
        by_run = {}
        for run in runs:
            if evaluation := run.evaluations.get(key):
                fields = {"metric", "harness", "judge", "seed"}
                by_run[run.label] = evaluation.row.model_dump(include=fields)
                by_run[run.label] |= evaluation.row.decoding
        for name in dict.fromkeys(name for fields in by_run.values() for name in fields):
            cells = [
                json.dumps(by_run[run.label].get(name), ensure_ascii=False)
                if run.label in by_run
                else "not run"
                for run in runs
            ]
            if len(set(cells) - {"not run"}) > 1:
                rows.append((f"{key_name(key)}: {name}", *cells))
    return Table(("setting", *(run.label for run in runs)), tuple(rows)) if rows else None
