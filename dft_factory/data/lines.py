"""Converted records as lines of a file, so that memory does not grow with their number."""

from __future__ import annotations

import json
import os
import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dft_factory.data.records import Dropped, Kept

MOST_NOTES = 200
"""Different notes that are counted by their text; a hostile file could have any number."""


@dataclass
class Written:
    """What :func:`write_kept` did.

    Attributes:
        offsets: where each kept record's line starts, 8 bytes each.
        dropped: reason -> records.
        notes: note -> records.
    """

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    dropped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def read(self) -> int:
        return len(self.offsets) + self.dropped.total()


def write_kept(
    records: Iterable[object],
    convert: Callable[[object], Mapping[str, object] | Kept | Dropped],
    path: Path,
    most: int | None = None,
) -> Written:
    """Write the kept records as JSON lines; reads no further once there are ``most`` of them."""
    written = Written()
    position = 0
    with path.open("wb") as file:
        for record in records:
            kept = record if isinstance(record, Dropped) else convert(record)
            if isinstance(kept, Dropped):
                written.dropped[kept.reason] += 1
                continue
            if isinstance(kept, Kept):
                for note in kept.notes:
                    known = note in written.notes or len(written.notes) < MOST_NOTES
                    written.notes[note if known else "other notes"] += 1
                kept = kept.record
            written.offsets.append(position)
            position += file.write(line_of(kept))
            if len(written.offsets) == most:
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
    picked = path.with_suffix(".picked")
    with picked.open("wb") as file:
        file.writelines(read_lines(path, offsets, order))
    os.replace(picked, path)
