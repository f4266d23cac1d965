"""One question with its answer, and how a list of them becomes a file that NQ's wing reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dft_eval.results import atomic_write


@dataclass(frozen=True)
class Record:
    """A question of one kind and its one right answer."""

    kind: str
    question: str
    answer: str


def write_records(path: Path, records: Sequence[Record]) -> Path:
    """In NQ-open's shape: ``data prepare nq`` and ``eval nq --data`` both read it."""
    lines = (
        json.dumps({"question": each.question, "answer": [each.answer]}, ensure_ascii=False)
        for each in records
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, "".join(f"{line}\n" for line in lines))
    return path
