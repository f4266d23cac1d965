"""What an input of a job stands for: contents, so that files and folders may be moved."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dft_eval.errors import UsageError
from dft_eval.own_tasks.items import data_path
from dft_eval.own_tasks.task import is_task_path, read_task

PATH_OPTIONS = ("--data", "--model", "--source", "--pictures", "--exclude", "--decontaminate")
HASHED_BYTES = 100_000_000
"""Larger files are told apart by size and time."""


@dataclass(frozen=True)
class Identities:
    """Identities of the inputs of an experiment whose jobs write into ``root``."""

    root: str

    def of_path(self, place: str) -> str:
        """Hash of the contents of what is there now.

        The path itself for what our jobs make, and for a hub id.
        """
        path = Path(place)
        is_output = path.absolute().is_relative_to(Path(self.root).absolute())
        return place if is_output else fingerprint(path) or place

    def of_command(self, words: Sequence[str]) -> list[str]:
        """A command with its files and folders, and the data of task files, by contents."""
        identities = []
        for option, word in zip(["", *words], words, strict=False):
            is_path = option in PATH_OPTIONS or Path(word).is_file()
            identities.append(self.of_path(word) if is_path else word)
            if is_path and is_task_path(word):
                with contextlib.suppress(UsageError):  # reported by check_evaluations
                    data = data_path(read_task(Path(word)))
                    identities += [] if data is None else [self.of_path(str(data))]
        return identities


def fingerprint(path: Path) -> str | None:
    """Tells whether a file or folder changed; None where there is none (a hub id).

    Large files by size and time alone.
    """
    if path.is_dir():
        rows = [
            (file.name, stat.st_size, stat.st_mtime_ns)
            for file in sorted(path.iterdir())
            if file.is_file()
            for stat in [file.stat()]
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    if not path.is_file():
        return None
    stat = path.stat()
    if stat.st_size > HASHED_BYTES:
        return f"{stat.st_size} {stat.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()
