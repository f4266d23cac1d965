"""JSON lines that a training writes beside its model, and goes on with when it is resumed."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

# A child of LLaMA-Factory's logger: same format, same level, same files.
logger = logging.getLogger("llamafactory.dft_factory")

SCHEMA_VERSION = 1


class JsonLines:
    """One file; a full disk ends it, not the training.

    Args:
        path: an existing file loses its lines after the step ``resumed_at``.
        resumed_at: optimizer step at which this run began.

    Attributes:
        before: the lines of the run that this one goes on with.
    """

    def __init__(self, path: Path, resumed_at: int) -> None:
        self.path = path
        self.before = _lines_until(path, resumed_at) if resumed_at else []
        self._writes = True
        if not path.exists():
            return
        # Another file first: a kill in the middle of a rewrite would lose the lines.
        self._write("".join(map(_text, self.before)), path.with_suffix(".tmp"), "w")
        if self._writes:
            path.with_suffix(".tmp").replace(path)

    def append(self, line: dict[str, Any]) -> None:
        """Write one line, which has a ``step``."""
        self._write(_text({"schema_version": SCHEMA_VERSION, **line}), self.path, "a")

    def _write(self, text: str, path: Path, mode: str) -> None:
        if not self._writes:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open(mode, encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            self._writes = False
            logger.warning("dft-factory: %s is written no further: %s", self.path, error)


def _text(line: dict[str, Any]) -> str:
    """One line of JSON, which knows no NaN: null stands for a number that is not finite."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in line.items()
    }
    return json.dumps(finite) + "\n"


def _lines_until(path: Path, step: int) -> list[dict[str, Any]]:
    """The lines of an earlier part of the run, without any that a kill cut short."""
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        logger.warning("dft-factory: %s cannot be read and begins anew: %s", path, error)
        return []
    lines = []
    for text in texts:
        try:
            line = json.loads(text)
            if line["schema_version"] == SCHEMA_VERSION and line["step"] <= step:
                lines.append(line)
        except (ValueError, KeyError, TypeError):
            logger.warning("dft-factory: %s: a line cannot be read, left out: %.60s", path, text)
    return lines
