"""Scores of all variants as finished text: charts, tables, doubts, provenance."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dft_eval.report.formats import breakdown, percent, percent_between, points
from dft_eval.report.runs import Evaluation, Key, Pooled, Seed, Variant, benchmarks, key_name
from dft_eval.statistics import mean_and_stderr

VERSIONED = ("mathverse", "multipl-e", "wemath")
"""Benchmarks with several items a problem."""
_LIMITS = re.compile(r"^partial|UNSANDBOXED|not the published")
WEMATH_PARTS = (
    "IK, insufficient knowledge: a step and the whole are wrong. IG, inadequate generalization: "
    "the steps are right, the whole is wrong. CM, complete mastery: all is right. RM, rote "
    "memorization: the whole is right, a step is wrong; as a share of the wholes that are right. "
    "Loose: one right step is enough for CM. The score is CM + IG / 2, strict."
)
"""Explains the parts of WeMath's breakdown."""


@dataclass(frozen=True)
class Table:
    """A table of finished text. The first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Bar:
    """A value with its interval on a track; ``left``, ``width``, ``dot`` in percent of it.

    ``ticks`` are the values of single seeds.
    """

    name: str
    text: str
    run: int | None = None
    kind: str = ""
    left: float = 0.0
    width: float = 0.0
    dot: float | None = None
    ticks: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chart:
    """Bars under a title, with the ends of their axis."""

    title: str
    bars: tuple[Bar, ...]
    axis: tuple[str, str, str] = ("0 %", "50 %", "100 %")


@dataclass(frozen=True)
class Cell:
    """One score of the summary; ``marks`` number its footnotes."""

    text: str
    marks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Summary:
    """Variants by benchmarks: name, metric, and prompt style with decoding of each."""

    benchmarks: tuple[tuple[str, str, str], ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    footnotes: tuple[str, ...]


def score_text(pooled: Pooled) -> str:
    """``42.0 %, 38.1 to 46.0 % (299/300)``; counts where items or scores are missing."""
    counts = f" ({pooled.n_scored}/{pooled.n_total})" if pooled.is_partial else ""
    if pooled.score is None:
        return f"unscored{counts}"
    if pooled.interval is None:
        stderr = pooled.row.stderr if len(pooled.rows) == 1 else None
        return f"{percent(pooled.score, stderr)}{counts}"
    return f"{percent(pooled.score)}, {percent_between(pooled.interval)}{counts}"


def score_charts(variants: Sequence[Variant]) -> tuple[Chart, ...]:
    """The score of each variant with its interval and its seeds, by benchmark."""
    charts = []
    for key in benchmarks(variants):
        bars = []
        metric = ""
        for index, variant in enumerate(variants):
            pooled = variant.evaluations.get(key)
            if pooled is None:
                bars.append(Bar(variant.label, "not run", index))
                continue
            metric = pooled.row.metric
            if pooled.score is None:
                bars.append(Bar(variant.label, score_text(pooled), index))
                continue
            low, high = pooled.interval or (pooled.score, pooled.score)
            seeds = [row.score for row in pooled.rows if row.score is not None]
            bars.append(
                Bar(
                    variant.label,
                    score_text(pooled),
                    index,
                    left=100 * low,
                    width=100 * (high - low),
                    dot=100 * pooled.score,
                    ticks=tuple(100 * score for score in seeds) if len(seeds) > 1 else (),
                )
            )
        charts.append(Chart(f"{key_name(key)}, {metric}", tuple(bars)))
    return tuple(charts)


def _own_notes(evaluation: Evaluation) -> list[str]:
    """The report's own notes on a score."""
    row, notes = evaluation.row, []
    scored = [item for item in evaluation.items.values() if item.score is not None]
    if row.benchmark in VERSIONED and row.cluster is None:
        notes.append(
            "made before results.json named the problem of each item: versions of one problem "
            "count as independent, so intervals are too narrow; `dft-factory eval` again corrects "
            "that"
        )
    if (len(evaluation.items), len(scored)) != (row.n_total, row.n_scored):
        notes.append(
            f"results.json counts {row.n_scored} of {row.n_total} items as scored, "
            f"its items file {len(scored)} of {len(evaluation.items)}"
        )
    mean, _ = mean_and_stderr([score for _, score in evaluation.scored])
    if None not in (mean, row.score) and not math.isclose(
        mean or 0.0, row.score or 0.0, abs_tol=1e-6
    ):
        notes.append(
            f"the score is not the mean of its items ({percent(mean or 0.0)}); "
            "the paired comparison is one of item means"
        )
    return notes


def doubts(variants: Sequence[Variant]) -> tuple[str, ...]:
    """Limits of the scores: partial sets, unscored items, notes of the report."""
    labels: dict[tuple[str, str], list[str]] = {}
    for variant in variants:
        for run in variant.runs:
            for key, evaluation in run.evaluations.items():
                row = evaluation.row
                own = [note for note in row.notes if _LIMITS.search(note)] + _own_notes(evaluation)
                if row.n_scored != row.n_total:
                    own.append(f"{row.n_total - row.n_scored:,} of {row.n_total:,} items unscored")
                for note in own:
                    names = labels.setdefault((key_name(key), note), [])
                    names.append(variant.run_name(run))
    sentences = [f"{name}, {'; '.join(by)}: {note}." for (name, note), by in labels.items()]
    return tuple(sentences)


def harness_table(variants: Sequence[Variant]) -> Table | None:
    """Scores by another harness that differ from the score by more than a standard error.

    Mathematics records them in its breakdown as ``accuracy of qwen``. None where none differs.
    """
    rows = []
    for key in benchmarks(variants):
        for variant in variants:
            pooled = variant.evaluations.get(key)
            if pooled is None or pooled.score is None:
                continue
            stderr = (pooled.estimate.stderr if pooled.estimate else None) or 0.0
            own = re.split(r"[\s:]", pooled.row.harness, maxsplit=1)[0]
            for name, value in _mean_parts(pooled).items():
                metric, _, other = name.rpartition(" of ")
                if metric != pooled.row.metric or value is None:
                    continue
                gap = value - pooled.score
                if abs(gap) > stderr:
                    cells = f"{own} {percent(pooled.score, stderr)}", f"{other} {percent(value)}"
                    rows.append((key_name(key), variant.label, *cells, points(gap)))
    head = ("benchmark", "run", "score", "by the other harness", "difference (points)")
    return Table(head, tuple(rows)) if rows else None


def missing_seeds(variants: Sequence[Variant]) -> tuple[str, ...]:
    """Seeds missing from some variants or benchmarks."""
    seeded = [variant for variant in variants if variant.seeded]
    all_seeds = sorted({seed for variant in seeded for seed in variant.seeds if seed is not None})

    def missing(seeds: Iterable[Seed], has: Iterable[Seed]) -> str:
        absent = [str(seed) for seed in seeds if seed not in set(has)]
        return f"seed{'s' * (len(absent) > 1)} {', '.join(absent)}" if absent else ""

    sentences = []
    for variant in variants:
        trained = variant.seeds != (None,)
        if trained and (seeds := missing(all_seeds, variant.seeds)):
            sentences.append(f"{variant.label}: no results of {seeds}.")
        for key, pooled in variant.evaluations.items():
            if seeds := missing(variant.seeds, pooled.by_seed):
                sentences.append(f"{key_name(key)}, {variant.label}: not run with {seeds}.")
    return tuple(sentences)


def summary(variants: Sequence[Variant]) -> Summary:
    """The scores of all variants; notes of their results, and of the report, as footnotes.

    A note on several benchmarks is one footnote.
    """
    keys = benchmarks(variants)
    about: dict[str, dict[str, None]] = {}
    rows = []
    for variant in variants:
        cells = []
        for key in keys:
            pooled = variant.evaluations.get(key)
            if pooled is None:
                cells.append(Cell("not run"))
                continue
            notes = dict.fromkeys(
                note
                for evaluation in pooled.evaluations
                for note in [*evaluation.row.notes, *_own_notes(evaluation)]
            )
            for note in notes:
                about.setdefault(note, {})[key.benchmark] = None
            numbers = {note: number for number, note in enumerate(about, start=1)}
            cells.append(Cell(score_text(pooled), tuple(numbers[note] for note in notes)))
        rows.append((variant.label, tuple(cells)))
    columns = tuple(
        (key.benchmark, _metrics(variants, key), ", ".join(filter(None, key[1:]))) for key in keys
    )
    footnotes = tuple(f"{', '.join(names)}: {note}" for note, names in about.items())
    return Summary(columns, tuple(rows), footnotes)


def _metrics(variants: Sequence[Variant], key: Key) -> str:
    having = [variant.evaluations[key] for variant in variants if key in variant.evaluations]
    return " / ".join(dict.fromkeys(pooled.row.metric for pooled in having))


def breakdown_notes(parts: Sequence[tuple[str, Table]]) -> tuple[str, ...]:
    """Explanations of part names that do not explain themselves."""
    names = {row[0] for _, table in parts for row in table.rows}
    return (WEMATH_PARTS,) if "IK_strict" in names else ()


def breakdowns(variants: Sequence[Variant]) -> tuple[tuple[str, Table], ...]:
    """The parts of each benchmark's scores, means over seeds, by the benchmark's name."""
    tables = []
    for key in benchmarks(variants):
        having = [variant for variant in variants if key in variant.evaluations]
        parts = [_mean_parts(variant.evaluations[key]) for variant in having]
        names = tuple(dict.fromkeys(name for part in parts for name in part))
        rows = tuple(
            (name, *(breakdown(part[name]) if name in part else "not given" for part in parts))
            for name in names
        )
        if rows:
            head = ("part", *(variant.label for variant in having))
            tables.append((key_name(key), Table(head, rows)))
    return tuple(tables)


def _mean_parts(pooled: Pooled) -> Mapping[str, float | None]:
    names = dict.fromkeys(name for row in pooled.rows for name in row.breakdown)
    values = {name: [row.breakdown.get(name) for row in pooled.rows] for name in names}
    return {
        name: mean_and_stderr([value for value in parts if value is not None])[0]
        for name, parts in values.items()
    }
