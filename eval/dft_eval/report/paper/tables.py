"""What the paper prints, as data: ``resources/paper.json``, its shape checked on reading.

Figures of arXiv 2508.05629 are percentages with the digits that they have in print, hence decimals.
Beside them stands how the paper measured, as far as it says so; where it does not, what is taken
instead, and why.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PaperLabel = Literal["base", "sft", "dft"]
WHOLE_ROW = "*"
"""Instead of a column's title: a remark on every cell of the row."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PaperModel(_Data):
    """A model: its printed name, other names, hub id, and how the checkpoint is known."""

    name: str
    aliases: tuple[str, ...]
    checkpoint: str
    known: str


class Column(_Data):
    """What a column of the paper is among our results.

    Attributes:
        items: behind the paper's figure, by our benchmark; of several the column is the mean.
        part: of the breakdown; None for the score itself.
        categories: of the part's items, a group each; groups weigh alike.
        metrics: that are this column's.
        judged: somebody must say whether a free answer is right.
    """

    title: str
    items: Mapping[str, int]
    part: str | None = None
    categories: tuple[str, ...] = ()
    metrics: tuple[str, ...]
    judged: bool = False


class OpenPoint(_Data):
    """Something that the paper leaves open; empty lists stand for all."""

    text: str
    labels: tuple[PaperLabel, ...] = ()
    benchmarks: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()

    def concerns(self, label: str, column: Column) -> bool:
        """Whether it is about this cell."""
        return (
            label in (self.labels or (label,))
            and not column.items.keys().isdisjoint(self.benchmarks or column.items)
            and column.title in (self.columns or (column.title,))
        )


class Measured(_Data):
    """How the figures of some tables were measured; ``*_source`` says how that is known.

    Attributes:
        style_labels: rows for which ``style`` is known.
        decoding: of results.json, as far as it is known.
        harness: what a harness like it has in its name; None where the paper names none.
    """

    style: str
    style_labels: tuple[PaperLabel, ...] = ("base", "sft", "dft")
    style_source: str
    decoding: Mapping[str, Any]
    decoding_source: str
    harness: str | None = None
    harness_source: str = ""
    judge_source: str = ""
    open: tuple[OpenPoint, ...]
    columns: tuple[Column, ...]


class PaperRow(_Data):
    """One row of a table; ``remarks`` by column title or :data:`WHOLE_ROW`."""

    model: str
    label: PaperLabel
    values: tuple[Decimal, ...]
    remarks: Mapping[str, str] = Field(default_factory=dict)


class PaperTable(_Data):
    """One table: ``measured`` names its columns, ``training`` says how its rows were trained.

    ``dataset``, a name of ``dft-factory data prepare``, tells tables of one column apart.
    """

    number: int
    title: str
    measured: str
    adapters: bool
    dataset: str | None = None
    training: str
    rows: tuple[PaperRow, ...]


@dataclass(frozen=True)
class Place:
    """A row of a table, with its model and how it was measured."""

    model: PaperModel
    table: PaperTable
    row: PaperRow
    how: Measured

    def figure(self, column: Column) -> Decimal:
        """The printed cell, in percent."""
        return self.row.values[self.how.columns.index(column)]


class Paper(_Data):
    """Everything that a run can be set against; ``without_table`` says why a benchmark cannot."""

    source: str
    models: tuple[PaperModel, ...]
    measured: Mapping[str, Measured]
    tables: tuple[PaperTable, ...]
    without_table: Mapping[str, str]

    def columns(self, table: PaperTable) -> tuple[Column, ...]:
        """The columns of a table."""
        return self.measured[table.measured].columns

    def find(self, name: str) -> PaperModel | None:
        """The model that ``name`` is, whatever its case, punctuation and owner; else None."""
        names = ((other, model) for model in self.models for other in (model.name, *model.aliases))
        return {normal_form(other): model for other, model in names}.get(normal_form(name))

    def nearest(self, name: str) -> PaperModel | None:
        """The model whose name is most like ``name``; None where none is."""
        forms = {normal_form(model.name): model for model in self.models}
        near = difflib.get_close_matches(normal_form(name), forms, n=1)
        return forms[near[0]] if near else None


@functools.cache
def load_paper() -> Paper:
    """The paper's figures."""
    file = resources.files("dft_eval") / "resources" / "paper.json"
    return Paper.model_validate_json(file.read_text(encoding="utf-8"))


def normal_form(name: str) -> str:
    """A model's name without owner or folder, case and punctuation.

    A mark between two digits stays, as a space: ``Qwen2.5-3B`` and ``qwen2_5_3b`` are one name,
    ``Qwen2-53B`` is another.
    """
    last = name.strip().rstrip("/").rpartition("/")[2].casefold()
    spaced = re.sub(r"[-_.\s]+", " ", last).strip()
    return re.sub(r"(?<![0-9]) | (?![0-9])", "", spaced)
