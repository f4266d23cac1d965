"""What a converter is: one pure function from a published record to a training record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypedDict


class AlpacaRecord(TypedDict):
    """LLaMA-Factory's ``alpaca`` format: one question and one answer."""

    instruction: str
    input: str
    output: str


ALPACA_ENTRY: Mapping[str, object] = {
    "columns": {"prompt": "instruction", "query": "input", "response": "output"}
}
"""The ``dataset_info.json`` entry of a file of :class:`AlpacaRecord`, without its ``file_name``."""


@dataclass(frozen=True)
class Dropped:
    """A record that is left out; the report counts them by ``reason``."""

    reason: str


@dataclass(frozen=True)
class Converter:
    """A data set that ``dft-factory data prepare`` knows.

    Attributes:
        convert: takes one published record (any JSON value) and gives the training record or
            :class:`Dropped`; it never raises and keeps no state, so records can come in any order.
        entry: the set's entry in ``dataset_info.json``, without its ``file_name``.
        hub_id: where the set is published, named in messages.
        split: the split that is read from the hub.
    """

    convert: Callable[[object], Mapping[str, object] | Dropped]
    entry: Mapping[str, object]
    hub_id: str
    split: str = "train"
