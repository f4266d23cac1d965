"""Scores of all runs as tables of finished text: summary, models, methods, breakdowns."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dft_eval.report.collect import Evaluation, Key, Run
from dft_eval.report.formats import breakdown, percent
from dft_eval.results import ItemScore
from dft_eval.statistics import mean_and_stderr, mean_interval

VERSIONED = ("mathverse", "multipl-e", "wemath")
"""Benchmarks with several items a problem."""
_LIMITS = re.compile(r"^partial|UNSANDBOXED|not the published")
WEMATH_PARTS = (
    "IK, insufficient knowledge: a step and the whole are wrong. IG, inadequate generalization: "
    "the steps are right, the whole is wrong. CM, complete mastery: all is right. RM, rote "
    "memorization: the whole is right, a step is wrong; as a share of the wholes that are right. "
    "Loose: one right step is enough for CM. The score is CM + IG / 2, strict."
)
"""Of WeMath's breakdown."""
SHORT_SHA = 12
"""Characters of a checksum that are shown."""


@dataclass(frozen=True)
class Table:
    """A table of finished text. The first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Cell:
    """One score of the summary; ``marks`` number its footnotes."""

    text: str
    marks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Summary:
    """Runs by benchmarks. ``benchmarks`` holds name, metric and prompt style of each column."""

    benchmarks: tuple[tuple[str, str, str], ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    footnotes: tuple[str, ...]


def benchmarks(runs: Sequence[Run]) -> tuple[Key, ...]:
    """All benchmarks of all runs, in the order of first appearance."""
    return tuple(dict.fromkeys(key for run in runs for key in run.evaluations))


def key_name(key: Key) -> str:
    """A benchmark and its prompt style."""
    return f"{key[0]} ({key[1]})"


def unit_scores(evaluation: Evaluation) -> Mapping[str, ItemScore]:
    """What the score is the mean of: whole problems where the benchmark has them, else items."""
    return evaluation.problems or evaluation.items


def score_interval(evaluation: Evaluation) -> tuple[float, float] | None:
    """95 % interval of the score; None where it is not the mean of its items or problems."""
    rows = [item for item in unit_scores(evaluation).values() if item.score is not None]
    scores = [item.score or 0.0 for item in rows]
    mean, _ = mean_and_stderr(scores)
    score = evaluation.row.score
    if mean is None or score is None or not math.isclose(mean, score, abs_tol=1e-6):
        return None
    return mean_interval(scores, [item.cluster or item.id for item in rows])


def _span(interval: tuple[float, float]) -> str:
    return f"{percent(interval[0]).removesuffix(' %')} to {percent(interval[1])}"


def _own_notes(evaluation: Evaluation) -> list[str]:
    """What the report itself has to say of a score."""
    row, notes = evaluation.row, []
    scored = [item.score for item in evaluation.items.values() if item.score is not None]
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
    mean, _ = mean_and_stderr(
        [item.score for item in unit_scores(evaluation).values() if item.score is not None]
    )
    if (
        mean is not None
        and row.score is not None
        and not math.isclose(mean, row.score, abs_tol=1e-6)
    ):
        notes.append(
            f"the score is not the mean of its items ({percent(mean)}); "
            "the paired comparison is one of item means"
        )
    return notes


def doubts(runs: Sequence[Run]) -> tuple[str, ...]:
    """What limits the scores: partial sets, unscored items, and the report's own notes."""
    labels: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        for key, evaluation in run.evaluations.items():
            row = evaluation.row
            own = [note for note in row.notes if _LIMITS.search(note)] + _own_notes(evaluation)
            if row.n_scored != row.n_total:
                own.append(f"{row.n_total - row.n_scored:,} of {row.n_total:,} items unscored")
            for note in own:
                labels.setdefault((key_name(key), note), []).append(run.label)
    return tuple(f"{name}, {', '.join(by)}: {note}." for (name, note), by in labels.items())


def summary(runs: Sequence[Run]) -> Summary:
    """The scores of all runs; notes of their results, and of the report, as footnotes."""
    keys = benchmarks(runs)
    numbers: dict[str, int] = {}
    rows = []
    for run in runs:
        cells = []
        for key in keys:
            evaluation = run.evaluations.get(key)
            if evaluation is None:
                cells.append(Cell("not run"))
                continue
            row = evaluation.row
            interval = score_interval(evaluation)
            text = (
                "unscored"
                if row.score is None
                else percent(row.score, None if interval else row.stderr)
            )
            if interval:
                text += f", {_span(interval)}"
            partial = any(note.lower().startswith("partial") for note in row.notes)
            if partial or row.n_scored != row.n_total:
                text += f" ({row.n_scored}/{row.n_total})"
            notes = dict.fromkeys(
                f"{key[0]}: {note}" for note in [*row.notes, *_own_notes(evaluation)]
            )
            marks = tuple(numbers.setdefault(note, len(numbers) + 1) for note in notes)
            cells.append(Cell(text, marks))
        rows.append((run.label, tuple(cells)))
    metrics = {
        key: " / ".join(
            dict.fromkeys(run.evaluations[key].row.metric for run in runs if key in run.evaluations)
        )
        for key in keys
    }
    columns = tuple((key[0], metrics[key], key[1]) for key in keys)
    return Summary(columns, tuple(rows), tuple(numbers))


def models(runs: Sequence[Run]) -> Table:
    """Which weights each run was."""

    def row(run: Run) -> tuple[str, ...]:
        sha = run.results.model_sha256
        short = sha[:SHORT_SHA] if sha else "none (a served model has no files to sum)"
        return run.label, run.results.model, short, run.results.base_model or "not given"

    return Table(("run", "model", "SHA-256 of the weights", "base model"), tuple(map(row, runs)))


def methods(runs: Sequence[Run]) -> Table:
    """How each score was made; runs scored in the same way share a row."""
    rows = []
    for key in benchmarks(runs):
        alike: dict[tuple[str, ...], list[str]] = {}
        for run in runs:
            if key in run.evaluations:
                one = run.evaluations[key].row
                decoding = json.dumps(one.decoding, sort_keys=True, ensure_ascii=False)
                method = (one.harness, one.judge or "none", str(one.seed), decoding)
                alike.setdefault(method, []).append(run.label)
        rows += [(key_name(key), ", ".join(labels), *how) for how, labels in alike.items()]
    return Table(("benchmark", "runs", "harness", "judge", "seed", "decoding"), tuple(rows))


def breakdown_notes(parts: Sequence[tuple[str, Table]]) -> tuple[str, ...]:
    """What the names of parts stand for, where they do not say it."""
    names = {row[0] for _, table in parts for row in table.rows}
    return (WEMATH_PARTS,) if "IK_strict" in names else ()


def breakdowns(runs: Sequence[Run]) -> tuple[tuple[str, Table], ...]:
    """The parts of each benchmark's scores, by the benchmark's name."""
    found = []
    for key in benchmarks(runs):
        having = [run for run in runs if key in run.evaluations]
        parts: list[Mapping[str, float | None]] = [
            run.evaluations[key].row.breakdown for run in having
        ]
        names = tuple(dict.fromkeys(name for part in parts for name in part))
        rows = tuple(
            (name, *(breakdown(part[name]) if name in part else "not given" for part in parts))
            for name in names
        )
        if rows:
            found.append((key_name(key), Table(("part", *(run.label for run in having)), rows)))
    return tuple(found)
