"""Converted records as lines of a file, so that memory use does not grow with their number."""

from __future__ import annotations

import json
import os
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dft_factory.data.records import Convert, Dropped, Kept

MAX_NOTES = 200
"""Different notes counted by their text; a hostile file could have any number."""


@dataclass
class Written:
    """Result of :func:`write_kept`.

    Attributes:
        offsets: where each kept record's line starts, 8 bytes each.
        dropped: reason -> number of records.
        notes: note -> number of records.
    """

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    dropped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def read(self) -> int:
        return len(self.offsets) + self.dropped.total()


def write_kept(
    records: Iterable[object], convert: Convert, path: Path, limit: int | None = None
) -> Written:
    """Write the converted records as JSON lines; stops reading after ``limit`` of them."""
    written = Written()
    position = 0
    with path.open("wb") as file:
        for record in records:
            if isinstance(record, Mapping):
                converted = convert(record)
            elif isinstance(record, Dropped):
                converted = record
            else:
                converted = Dropped("record is not an object")
            if isinstance(converted, Dropped):
                written.dropped[converted.reason] += 1
                continue
            if isinstance(converted, Kept):
                for note in converted.notes:
                    is_counted = note in written.notes or len(written.notes) < MAX_NOTES
                    written.notes[note if is_counted else "other notes"] += 1
                converted = converted.record
            written.offsets.append(position)
            position += file.write(line_of(converted))
            if len(written.offsets) == limit:
                break
    return written


def line_of(record: Mapping[str, object]) -> bytes:
    """One JSON line."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()


def sample_order(count: int, limit: int | None, seed: int) -> Sequence[int]:
    """All numbers below ``count``: in order without a limit, else shuffled by the seed."""
    if limit is None:
        return range(count)
    order = array("Q", range(count))
    random.Random(seed).shuffle(order)
    return order


def read_lines(path: Path, offsets: array[int], order: Iterable[int]) -> Iterator[bytes]:
    """The lines with these numbers, in this order."""
    with path.open("rb") as source:
        for number in order:
            source.seek(offsets[number])
            yield source.readline()


def pick(path: Path, offsets: array[int], order: Iterable[int]) -> None:
    """Replace the file by its lines with these numbers, in this order."""
    selection = path.with_suffix(".selection")
    with selection.open("wb") as file:
        file.writelines(read_lines(path, offsets, order))
    os.replace(selection, path)
