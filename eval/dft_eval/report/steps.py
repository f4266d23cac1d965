"""Scores over optimizer steps: one training at several steps is a line, not many rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from dft_eval.report.runs import Key, Pooled, Variant, benchmarks, key_name
from dft_eval.report.scores import Table, score_text

_AT_STEP = re.compile(r"(.+) at step (\d+)")


@dataclass(frozen=True)
class Series:
    """Variants of one training by step, in the order of the steps.

    Attributes:
        name: their label without `` at step N``.
        row: the variant that stands for this training: final weights, else last checkpoint.
    """

    name: str
    variants: Mapping[int, Variant]
    row: Variant

    def scored(self, key: Key) -> dict[int, Pooled]:
        """Scores by step, for steps at which the benchmark was run and scored."""
        pooled = {step: variant.evaluations.get(key) for step, variant in self.variants.items()}
        return {step: row for step, row in pooled.items() if row and row.score is not None}


def series_name(label: str) -> str:
    """``dft`` of ``dft at step 40``."""
    match = _AT_STEP.fullmatch(label)
    return match[1] if match else label


def step_of(variant: Variant) -> int | None:
    """Step recorded in its results, else the step in its label."""
    trainings = [run.results.training for run in variant.runs]
    steps = {training.step if training else None for training in trainings}
    recorded = steps.pop() if len(steps) == 1 else None
    match = _AT_STEP.fullmatch(variant.label)
    return int(match[2]) if recorded is None and match else recorded


def find_series(variants: Sequence[Variant]) -> tuple[Series, ...]:
    """Trainings with results at two or more steps, in the order of the variants.

    Of a checkpoint and the final weights at the same step the final weights count.
    """
    by_name: dict[str, dict[int, Variant]] = {}
    for variant in variants:
        step = step_of(variant)
        if step is not None:
            name = series_name(variant.label)
            former = by_name.setdefault(name, {}).get(step)
            if former is None or former.label != name:
                by_name[name][step] = variant
    return tuple(
        Series(name, dict(sorted(points.items())), _row(name, points))
        for name, points in by_name.items()
        if len(points) > 1
    )


def _row(name: str, points: Mapping[int, Variant]) -> Variant:
    final = [variant for variant in points.values() if variant.label == name]
    return final[0] if final else points[max(points)]


def rows_of(
    variants: Sequence[Variant], lines: Sequence[Series], named: Collection[str | None] = ()
) -> tuple[Variant, ...]:
    """The variants that are rows of the report: one of each line.

    Args:
        named: labels that stay rows whatever their step.
    """
    row = {line.name: line.row.label for line in lines}
    return tuple(
        variant
        for variant in variants
        if variant.label in named
        or step_of(variant) is None
        or row.get(series_name(variant.label), variant.label) == variant.label
    )


def step_titles(lines: Sequence[Series], variants: Sequence[Variant]) -> dict[Key, str]:
    """The names of the :func:`line_keys`."""
    return {key: key_name(key) for key in line_keys(lines, variants)}


def line_keys(lines: Sequence[Series], variants: Sequence[Variant]) -> list[Key]:
    """The benchmarks that at least one line has at two or more steps."""
    return [key for key in benchmarks(variants) if any(len(line.scored(key)) > 1 for line in lines)]


def step_tables(
    lines: Sequence[Series], titles: Mapping[Key, str]
) -> tuple[tuple[str, Table], ...]:
    """The score of each line at each step, by the title of the benchmark."""
    tables = []
    for key, title in titles.items():
        columns = {line.name: line.scored(key) for line in lines}
        columns = {name: column for name, column in columns.items() if column}
        steps = sorted({step for column in columns.values() for step in column})
        rows = [
            (
                f"{step:,}",
                *(
                    score_text(column[step]) if step in column else "not run"
                    for column in columns.values()
                ),
            )
            for step in steps
        ]
        tables.append((title, Table(("step", *columns), tuple(rows))))
    return tuple(tables)
