"""Own tasks: a task file with its data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.jsonl import write_lines


def write_task(folder: Path, rows: Iterable[object], *, stem: str = "task", **fields: Any) -> Path:
    """A numeric task on ``question`` and ``answer``; a field of None is left out."""
    write_lines(folder / "rows.jsonl", rows)
    defaults = {"data": "rows.jsonl", "prompt": "{question}", "metric": "numeric"}
    task = {**defaults, "answer": "answer", **fields}
    path = folder / f"{stem}.yaml"
    path.write_text(json.dumps({key: value for key, value in task.items() if value is not None}))
    return path
