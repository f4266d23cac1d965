"""Why a figure of ours is not like the paper's, and what the paper leaves open.

Whatever is known to differ makes a figure 'not comparable'. What the paper does not say cannot
differ from it: that is told beside the figure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dft_eval.report.collect import Run
from dft_eval.report.paper.cells import Cell
from dft_eval.report.paper.tables import WHOLE_ROW, Column, Measured, Place
from dft_eval.results import BenchmarkResult

_OTHER_DATA = re.compile(r"^data of \d|^data: not |not the published file")
"""In a note of a result: its data is not the published set."""
_LORA = re.compile(r"(?<![a-z])q?lora(?![a-z])", re.IGNORECASE)
_INSTRUCT = re.compile(r"(?<![a-z])instruct(?![a-z])", re.IGNORECASE)


def differs(
    run: Run, row: BenchmarkResult, column: Column, cell: Cell, place: Place
) -> tuple[str, ...]:
    """Everything known in which the evaluation ``row`` differs from the paper's; empty if none."""
    return (
        *_size(row, column, cell),
        *_data(row),
        *_style(row, place),
        *_decoding(row, place.how),
        *_harness(row, place.how),
        *_judge(row, column, place.how),
        *_name(run, place),
    )


def label_of(label: str) -> tuple[str, bool] | None:
    """``base``, ``sft`` or ``dft`` and whether it is of an adapter; None for any other label.

    ``dft_lora``, ``lora-dft`` and ``DFT LoRA`` are DFT by LoRA.
    """
    words = re.split(r"[-_\s]+", label.strip().casefold())
    adapter = "lora" in words
    rest = [word for word in words if word != "lora"]
    if len(rest) != 1 or rest[0] not in ("base", "sft", "dft") or len(words) > 2:
        return None
    if adapter and rest[0] == "base":
        return None
    return rest[0], adapter


def left_open(column: Column, place: Place) -> tuple[str, ...]:
    """What the paper leaves open of a cell, what is taken instead, and doubts of its print."""
    points = [point.text for point in place.how.open if point.concerns(place.row.label, column)]
    remarks = place.row.remarks
    return (*points, *(remarks[key] for key in (column.title, WHOLE_ROW) if key in remarks))


def _size(row: BenchmarkResult, column: Column, cell: Cell) -> Iterator[str]:
    where = column.title if column.prefixes else row.benchmark
    if cell.n_total != column.items:
        yield f"{where}: {cell.n_total:,} items where the paper's set has {column.items:,}"
    elif not column.prefixes:
        yield from (f"{row.benchmark}: {note}" for note in row.notes if _is_partial(note))
    if cell.n_scored != cell.n_total:
        yield f"{where}: {cell.n_total - cell.n_scored:,} of {cell.n_total:,} items unscored"


def _is_partial(note: str) -> bool:
    return note.strip().lower().startswith("partial")


def _data(row: BenchmarkResult) -> Iterator[str]:
    for note in row.notes:
        if _OTHER_DATA.search(note):
            yield f"{row.benchmark}: {note}"


def _style(row: BenchmarkResult, place: Place) -> Iterator[str]:
    how = place.how
    if place.row.label in how.style_labels and row.prompt_style != how.style:
        yield f"{row.benchmark}: prompt style {row.prompt_style}; {how.style_source}"


def _decoding(row: BenchmarkResult, how: Measured) -> Iterator[str]:
    unlike = [
        f"{name} {row.decoding[name]!r}" if name in row.decoding else f"{name} not recorded"
        for name, value in how.decoding.items()
        if row.decoding.get(name) != value
    ]
    if unlike:
        wanted = ", ".join(f"{name} {value!r}" for name, value in how.decoding.items())
        yield (
            f"{row.benchmark}: decoding with {', '.join(unlike)} where the paper's is taken for "
            f"{wanted} ({how.decoding_source})"
        )


def _harness(row: BenchmarkResult, how: Measured) -> Iterator[str]:
    if how.harness is not None and how.harness.casefold() not in row.harness.casefold():
        yield f"{row.benchmark}: harness {row.harness!r}; {how.harness_source}"


def _judge(row: BenchmarkResult, column: Column, how: Measured) -> Iterator[str]:
    if not column.judged:
        return
    if row.judge is None:
        yield f"{row.benchmark}: no judge is recorded; {how.judge_source}"
    elif row.judge.strip().lower().startswith("rules"):
        yield f"{row.benchmark}: judged by {row.judge}; {how.judge_source}"


def _name(run: Run, place: Place) -> Iterator[str]:
    """What the evaluated model's own name says against the row that its base model names."""
    name, model = run.results.model, place.model
    if not place.table.adapters and _LORA.search(name):
        yield (
            f"{run.label}: the model's name, {name}, speaks of LoRA; the paper has figures by LoRA "
            "on mathematics alone, for runs labelled sft_lora and dft_lora"
        )
    if _INSTRUCT.search(name) and not _INSTRUCT.search(model.checkpoint):
        yield (
            f"{run.label}: the model's name, {name}, speaks of an Instruct variant; the row "
            f"{model.name} is taken for {model.checkpoint}"
        )
