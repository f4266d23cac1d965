"""Which cell of the paper each score belongs to, and what is known to differ.

Whatever is known to differ makes a figure 'not comparable'. What the paper does not say cannot
differ from it: that is told beside the figure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from dft_eval.report.paper.tables import WHOLE_ROW, Column, Paper, PaperModel, Place
from dft_eval.report.runs import Evaluation, Pooled, Seed, Variant, key_name
from dft_eval.results import BenchmarkResult
from dft_eval.seed_statistics import Crossed, Scored, crossed

Group = dict[str, Scored]
"""Scored items by id."""

_OTHER_DATA = re.compile(r"^data of \d|^data: not |not the published file")
"""In a note of a result: its data is not the published set."""
_LORA = re.compile(r"(?<![a-z])q?lora(?![a-z])", re.IGNORECASE)
_INSTRUCT = re.compile(r"(?<![a-z])instruct(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Match:
    """A figure of ours and its counterpart.

    Attributes:
        groups: of the items behind the figure, by training seed; groups weigh alike.
        value: ours, as a fraction.
        estimate: of the items; None where they do not give the value.
        differs: why the two are not comparable; empty where nothing known speaks against it.
        open: what the paper leaves open, what is taken instead, and doubts of its print.
    """

    variant: Variant
    style: str
    place: Place
    column: Column
    groups: dict[Seed, list[Group]]
    value: float
    estimate: Crossed | None
    differs: tuple[str, ...]
    open: tuple[str, ...]

    @property
    def name(self) -> str:
        """The column, our prompt style and decoding."""
        return f"{self.column.title} ({self.style})"

    @property
    def figure(self) -> Decimal:
        """The printed cell, in percent."""
        return self.place.figure(self.column)


@dataclass(frozen=True)
class Unmatched:
    """An evaluation without counterpart, or a part of one, by name."""

    variant: Variant
    name: str
    reason: str


def match(variant: Variant, paper: Paper) -> tuple[list[Match], list[Unmatched]]:
    """Every score of a variant with its counterparts, or with the reason why it has none."""
    matches: list[Match] = []
    unmatched: list[Unmatched] = []
    by_way: dict[tuple[int, str, str], tuple[Place, dict[str, Pooled]]] = {}
    for key, pooled in variant.evaluations.items():
        place = _place(variant, key.benchmark, paper)
        if isinstance(place, str):
            unmatched.append(Unmatched(variant, key_name(key), place))
        else:
            way = (place.table.number, key.style, key.decoding)
            by_way.setdefault(way, (place, {}))[1][key.benchmark] = pooled
    for (_, *names), (place, by_benchmark) in by_way.items():
        style = ", ".join(filter(None, names))
        for column in place.how.columns:
            if not column.items.keys().isdisjoint(by_benchmark):
                figure = _match(variant, style, place, column, by_benchmark)
                if isinstance(figure, str):
                    unmatched.append(Unmatched(variant, f"{column.title} ({style})", figure))
                else:
                    matches.append(figure)
    if not variant.evaluations:
        unmatched.append(Unmatched(variant, "no evaluation", "its results.json holds none"))
    return matches, unmatched


def _match(
    variant: Variant, style: str, place: Place, column: Column, by_benchmark: dict[str, Pooled]
) -> Match | str:
    """The figure for a column, or in words why there is none."""
    absent = [name for name in column.items if name not in by_benchmark]
    if absent:
        return f"the mean of {len(column.items)} benchmarks, without {', '.join(absent)}"
    columns = [by_benchmark[name] for name in column.items]
    for pooled in columns:
        if pooled.row.metric not in column.metrics:
            return f"its metric is {pooled.row.metric!r}, the paper's {column.metrics[0]}"
    seeds = set.intersection(*(set(pooled.by_seed) for pooled in columns))
    if not seeds:
        return "no training seed has all its benchmarks"
    groups: dict[Seed, list[Group]] = {}
    values, unlike = [], []
    for seed in (seed for seed in columns[0].by_seed if seed in seeds):
        evaluations = [pooled.by_seed[seed] for pooled in columns]
        scores = [_score(evaluation.row, column) for evaluation in evaluations]
        if reasons := [score for score in scores if isinstance(score, str)]:
            return reasons[0]
        values.append(math.fsum(map(float, scores)) / len(scores))
        groups[seed] = [
            group for evaluation in evaluations for group in _groups(evaluation, column)
        ]
        unlike += [
            reason for evaluation in evaluations for reason in _differs(evaluation, column, place)
        ]
    estimate = crossed([[list(group.values()) for group in of_seed] for of_seed in groups.values()])
    if estimate and not np.allclose(estimate.by_seed, values, rtol=0, atol=1e-6):
        estimate = None
    for run in variant.runs:
        unlike += _name(run.results.model, variant, place)
    remarks = place.row.remarks
    return Match(
        variant, style, place, column, groups, math.fsum(values) / len(values), estimate,
        differs=tuple(dict.fromkeys(unlike)),
        open=(
            *(point.text for point in place.how.open if point.concerns(place.row.label, column)),
            *(remarks[key] for key in (column.title, WHOLE_ROW) if key in remarks),
        ),
    )  # fmt: skip


def _score(row: BenchmarkResult, column: Column) -> float | str:
    if column.part is None:
        return "unscored" if row.score is None else row.score
    if column.part not in row.breakdown:
        return f"its result has no part {column.part!r}"
    value = row.breakdown[column.part]
    return f"its part {column.part!r} is unscored" if value is None else value


def _groups(evaluation: Evaluation, column: Column) -> list[Group]:
    """Items of the score, or of each category; benchmarks share no problem, translations do."""
    units = (evaluation.units if column.part is None else evaluation.items).values()
    return [
        {
            unit.id: ((evaluation.row.benchmark, unit.cluster or unit.id), unit.score)
            for unit in units
            if unit.score is not None and category in (None, unit.category)
        }
        for category in column.categories or (None,)
    ]


def label_of(label: str) -> tuple[str, bool] | None:
    """``base``, ``sft`` or ``dft`` and whether it is of an adapter; None for any other label.

    ``dft_lora``, ``lora-dft`` and ``DFT LoRA`` are DFT by LoRA.
    """
    parts = re.fullmatch(
        r"(base|sft|dft)|(?:lora[-_\s]+(sft|dft)|(sft|dft)[-_\s]+lora)", label.strip().casefold()
    )
    return (parts[1] or parts[2] or parts[3], not parts[1]) if parts else None


def _place(variant: Variant, benchmark: str, paper: Paper) -> Place | str:
    """The row of the paper for a benchmark of a variant, or in words why there is none."""
    if benchmark in paper.without_table:
        return paper.without_table[benchmark]
    tables = [
        table
        for table in paper.tables
        if any(benchmark in column.items for column in paper.columns(table))
    ]
    if not tables:
        return "the paper has no figure on it"
    label, model = label_of(variant.label), _model(variant, paper)
    if label is None:
        reason = (
            f"the label {variant.label!r} is none of base, sft and dft (and sft_lora and dft_lora, "
            "for mathematics): give one by --label"
        )
        return f"{reason}; {model}" if isinstance(model, str) else reason
    if isinstance(model, str):
        return model
    objective, adapter = label
    training = variant.runs[0].results.training
    if training is not None and objective != "base":
        adapter = adapter or training.method == "lora"
        # Without a table of its own, the data may be that of the table under another name.
        trained_on = [table for table in tables if table.dataset in training.dataset]
        tables = [table for table in trained_on if table.adapters == adapter] or tables
    having = [table for table in tables if table.adapters == adapter]
    if not having:
        return "the paper has figures by LoRA on mathematics alone"
    for table in having:
        for row in table.rows:
            if (row.model, row.label) == (model.name, objective):
                return Place(model, table, row, paper.measured[table.measured])
    names = dict.fromkeys(row.model for table in having for row in table.rows)
    kind = " by LoRA" if adapter else ""
    return f"the paper has it{kind} for {', '.join(names)}, not for {model.name}"


def _model(variant: Variant, paper: Paper) -> PaperModel | str:
    results = variant.runs[0].results
    name = results.base_model
    if name and (model := paper.find(name)):
        return model
    near = paper.nearest(name or results.model)
    known = ", ".join(model.name for model in paper.models)
    if not name:
        hint = f"; most like the model, {results.model}, is {near.name}" if near else ""
        return (
            "no base model is given: run `dft-factory eval` again with --base-model NAME, which "
            f"takes the completions that are there. The paper's names are {known}{hint}"
        )
    hint = f"; most like it is {near.name}: {near.checkpoint}, {near.known}" if near else ""
    return f"the base model {name} names no row of the paper, which has {known}{hint}"


def _differs(evaluation: Evaluation, column: Column, place: Place) -> Iterator[str]:
    """Everything known in which an evaluation differs from the paper's."""
    row, how = evaluation.row, place.how
    name, total, scored = row.benchmark, row.n_total, row.n_scored
    if column.part is not None:
        items = [item for item in evaluation.items.values() if item.category in column.categories]
        name, total = column.title, len(items)
        scored = sum(item.score is not None for item in items)
    published = column.items[row.benchmark]
    if total != published:
        yield f"{name}: {total:,} items where the paper's set has {published:,}"
    elif column.part is None:
        yield from (f"{name}: {note}" for note in row.notes if note.lower().startswith("partial"))
    if scored != total:
        yield f"{name}: {total - scored:,} of {total:,} items unscored"
    yield from (f"{row.benchmark}: {note}" for note in row.notes if _OTHER_DATA.search(note))
    if place.row.label in how.style_labels and row.prompt_style != how.style:
        yield f"{row.benchmark}: prompt style {row.prompt_style}; {how.style_source}"
    unlike = [
        f"{name} {row.decoding[name]!r}" if name in row.decoding else f"{name} not recorded"
        for name, value in how.decoding.items()
        if row.decoding.get(name) != value
    ]
    if unlike:
        assumed = ", ".join(f"{name} {value!r}" for name, value in how.decoding.items())
        yield (
            f"{row.benchmark}: decoding with {', '.join(unlike)} where the paper's is taken for "
            f"{assumed} ({how.decoding_source})"
        )
    if how.harness is not None and how.harness.casefold() not in row.harness.casefold():
        yield f"{row.benchmark}: harness {row.harness!r}; {how.harness_source}"
    if column.judged and row.judge is None:
        yield f"{row.benchmark}: no judge is recorded; {how.judge_source}"
    elif column.judged and (row.judge or "").strip().lower().startswith("rules"):
        yield f"{row.benchmark}: judged by {row.judge}; {how.judge_source}"


def _name(name: str, variant: Variant, place: Place) -> Iterator[str]:
    """What the evaluated model's own name says against the row that its base model names."""
    model = place.model
    if not place.table.adapters and _LORA.search(name):
        yield (
            f"{variant.label}: the model's name, {name}, speaks of LoRA; the paper has figures by "
            "LoRA on mathematics alone, for runs labelled sft_lora and dft_lora"
        )
    if _INSTRUCT.search(name) and not _INSTRUCT.search(model.checkpoint):
        yield (
            f"{variant.label}: the model's name, {name}, speaks of an Instruct variant; the row "
            f"{model.name} is taken for {model.checkpoint}"
        )
