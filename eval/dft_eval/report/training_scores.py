"""Scores during training: what each training scored of itself, on a small and fixed set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dft_eval.report.formats import one_line
from dft_eval.report.runs import Evaluation, Key, Run, Variant, benchmarks, key_name
from dft_eval.report.scores import Table
from dft_eval.report.steps import Series, step_tables


@dataclass(frozen=True)
class TrainingScoresView:
    """A line for each variant whose trainings scored themselves.

    Attributes:
        titles: of the panels of the picture.
        tables: the scores by step, with a title.
    """

    lines: tuple[Series, ...]
    titles: Mapping[Key, str]
    tables: tuple[tuple[str, Table], ...]
    notes: tuple[str, ...]


def training_scores(variants: Sequence[Variant]) -> TrainingScoresView:
    """The scores that the variants' trainings made of themselves; empty where none did."""
    lines = tuple(line for variant in variants if (line := _line(variant)).variants)
    points = [point for line in lines for point in line.variants.values()]
    titles, headings = {}, {}
    for key in benchmarks(points):
        rows = [
            row
            for point in points
            if key in point.evaluations
            for row in point.evaluations[key].rows
        ]
        counts = sorted({row.n_total for row in rows})
        items = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
        titles[key] = f"{key_name(key)}, {items} items"
        metric = " / ".join(dict.fromkeys(row.metric for row in rows))
        scored = f"the same {items} items at every step" if len(counts) == 1 else f"{items} items"
        headings[key] = f"{key_name(key)}, {metric}, {scored}"
    notes = [
        *(note for variant in variants for note in _failures(variant)),
        *(note for line in lines for note in _missing_seeds(line)),
        *(note for key in titles for note in _unlike(key, lines)),
    ]
    return TrainingScoresView(lines, titles, step_tables(lines, headings), tuple(notes))


def _line(variant: Variant) -> Series:
    """Its scores by step, of all seeds that have one there."""
    by_step: dict[int, list[Run]] = {}
    for run in variant.runs:
        scores = run.training_scores
        for step, (result, items) in (scores.results if scores else {}).items():
            evaluation = Evaluation(run.folder, result, items, None, None)
            by_step.setdefault(step, []).append(
                replace(run, evaluations={evaluation.key: evaluation})
            )
    points = {step: Variant(variant.label, tuple(by_step[step])) for step in sorted(by_step)}
    return Series(variant.label, points, variant)


def _failures(variant: Variant) -> list[str]:
    notes = []
    for run in variant.runs:
        if run.training_scores and (problems := run.training_scores.problems):
            steps = f"step{'s' * (len(problems) > 1)} {', '.join(map(str, problems))}"
            reasons = "; ".join(dict.fromkeys(map(one_line, problems.values())))
            notes.append(f"{variant.run_name(run)}: no score at {steps} ({reasons}).")
    return notes


def _missing_seeds(line: Series) -> list[str]:
    scored = {run.seed for point in line.variants.values() for run in point.runs}
    partial = [step for step, point in line.variants.items() if len(point.runs) < len(scored)]
    steps = ", ".join(map(str, partial))
    return [f"{line.name}: steps without a score of every seed: {steps}."] if partial else []


def _unlike(key: Key, lines: Sequence[Series]) -> list[str]:
    """Whether the lines are of the same items, and scored with the same settings."""
    first = {
        line.name: next(iter(points.values())).evaluations[0]
        for line in lines
        if (points := line.scored(key))
    }
    notes = []
    if len({frozenset(evaluation.items) for evaluation in first.values()}) > 1:
        counts = ", ".join(f"{name} {len(each.items)}" for name, each in first.items())
        notes.append(f"{key_name(key)}: not scored on the same items: {counts}.")
    settings = [evaluation.settings for evaluation in first.values()]
    names = dict.fromkeys(name for one in settings for name in one)
    if differ := [
        name for name in names if any(one.get(name) != settings[0].get(name) for one in settings)
    ]:
        notes.append(f"{key_name(key)}: scored with different {', '.join(differ)}.")
    return notes
