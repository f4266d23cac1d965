"""Head of the report: the verdict as sentences, charts of differences, reasons of failure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from dft_eval.report.comparison import outcome, seeds_or_items
from dft_eval.report.decodings import entropies, gains, sentence
from dft_eval.report.formats import percent, plural, points, points_between, size
from dft_eval.report.lengths import collapses
from dft_eval.report.pairs import Comparison, Pair
from dft_eval.report.runs import Variant, benchmarks, key_name, short_names
from dft_eval.report.scores import Bar, Chart, Table
from dft_eval.results import ItemScore

REASONS = 8
"""Rows of the table of failure reasons; the rest are summed."""
IN_FULL = 3
"""Benchmarks up to which the first pair has a sentence for each."""


def headline(pairs: Sequence[Pair], variants: Sequence[Variant]) -> tuple[str, ...]:
    """Main results, most important first: the first pair in full, collapse, other pairs."""
    if not variants:
        return ("No run has results.",)
    if len(variants) == 1:
        return (f"One run, {variants[0].label}: there is nothing to compare it with.",)
    if not pairs:
        return ("No two runs are compared.",)
    names = short_names(benchmarks(variants))
    return (
        *_first(pairs[0], variants),
        *collapses(variants),
        *entropies(variants, names),
        *map(_grouped, pairs[1:]),
    )


def compared(pairs: Sequence[Pair], variants: Sequence[Variant]) -> tuple[str, ...]:
    """Differences of all pairs as sentences, the first pair in full."""
    return (*_first(pairs[0], variants), *map(_grouped, pairs[1:])) if pairs else ()


def _rows(pair: Pair) -> list[tuple[str, Comparison]]:
    """(short name, comparison) of each benchmark, without the parts of scores."""
    rows = [row for row in pair.comparisons if row.name == key_name(row.key)]
    names = short_names([row.key for row in rows])
    return [(names[row.key], row) for row in rows]


def _first(pair: Pair, variants: Sequence[Variant]) -> tuple[str, ...]:
    """One sentence per benchmark (if there are few), greedy and at the highest temperature."""
    rows, of_decodings = _rows(pair), gains(pair, variants)
    covered = {row.key for gain in of_decodings for row in (gain.sampled, gain.greedy)}
    hottest = {gain.name: gain for gain in sorted(of_decodings, key=lambda gain: gain.temperature)}
    alone = [(name, row) for name, row in rows if row.key not in covered]
    if not rows or len(hottest) + len(alone) > IN_FULL:
        return (_grouped(pair),)
    sentences = [*map(sentence, hottest.values())]
    sentences += [text for name, row in alone for text in _in_full(row, name)]
    return tuple(filter(None, sentences))


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


def _in_full(row: Comparison, name: str) -> tuple[str, ...]:
    """The difference with its interval; with several seeds also what makes the interval wide."""
    effect, kind = row.result.effect, outcome(row.result, row.adjusted)
    seeds = row.result.n_seeds
    over = f"Over {plural(seeds, 'seed')}, " if seeds > 1 else ""
    if effect is None:
        return (f"{row.second} against {row.first}: no item of {name} is scored in both.",)
    if kind == "same":
        return (f"{over}{row.second} and {row.first} score the same on every item of {name}.",)
    interval = points_between(effect.interval)
    if kind == "open":
        text = (
            f"{over}{row.second} and {row.first} cannot be told apart on {name}: "
            f"{points(effect.difference)} points (95 % interval {interval})."
        )
        return text, seeds_or_items(effect.estimate)
    by = size(effect.difference)
    side = "above" if effect.difference > 0 else "below"
    scores = f"{percent(effect.mean_second)} against {percent(effect.mean_first)}"
    text = (
        f"{over}{row.second} scores {by} points {side} {row.first} on {name} "
        f"({scores}, 95 % interval of the difference {interval})"
    )
    weak = ", which does not hold after the correction for all comparisons here"
    return f"{text}{weak if kind == 'weak' else ''}.", seeds_or_items(effect.estimate)


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
    scale = next(end for end in (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0) if reach <= end)
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
        f"{points(effect.difference)} ({points_between(effect.interval)})",
        kind=kind,
        left=left,
        width=right - left,
        dot=place(effect.difference),
        ticks=tuple(map(place, seeds)) if len(seeds) > 1 else (),
    )


def _failure(reason: str) -> str:
    """A reason without details of a single item."""
    text = re.split(r"[:;,(\n]", reason, maxsplit=1)[0]
    text = re.sub(r"\d+(\.\d+)?", "#", " ".join(text.split()))
    return (text if len(text) <= 60 else f"{text[:59]}…") or "no reason recorded"


def _outcome(item: ItemScore, samples: int) -> str:
    if item.score is None:
        return f"unscored: {_failure(item.reason)}"
    if samples == 1:
        return _failure(item.reason)
    return "some samples right, not all" if item.score > 0 else "no sample right"


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
                        _outcome(item, evaluation.samples)
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
