"""What both generators of the study's tasks use."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
TRAINING, HELD_OUT = 1500, 300


def mixed(rows: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Shuffled, so that ``limit: 100`` takes some of every part."""
    return random.Random(0).sample(list(rows), len(rows))


def write(name: str, rows: Sequence[Mapping[str, str]]) -> None:
    """One JSON object a line, beside this file."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (HERE / name).write_text("".join(lines), encoding="utf-8")
