"""Progress on stderr (a bar on a terminal, a line now and then elsewhere), and in logs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

SECONDS_BETWEEN_LINES = 10.0
LOG_LINES = 15


class Progress:
    """Context manager that is called with (done, all)."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Any = None
        self._task: Any = None
        self._last = 0.0
        self._done = -1

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=None)
        return self

    def __call__(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
            return
        now = time.monotonic()
        if done != self._done and (done == total or now - self._last >= SECONDS_BETWEEN_LINES):
            sys.stderr.write(f"{self._title}: {done}/{total}\n")
            sys.stderr.flush()
            self._last = now
            self._done = done

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def tail(log: Path, lines: int = LOG_LINES) -> str:
    """The last lines of a log, of a progress bar its last state."""
    if not log.is_file():
        return ""
    text = log.read_bytes()[-20_000:].decode("utf-8", errors="replace")
    states = [line.rpartition("\r")[2] for line in text.split("\n")]
    return "\n".join([state for state in states if state.strip()][-lines:])
