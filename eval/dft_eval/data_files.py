"""Benchmark data from JSON Lines files and from the Hugging Face hub."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from dft_eval.errors import PrerequisiteError, UsageError

Record = TypeVar("Record")
UNREADABLE = (OSError, EOFError, zlib.error)
"""What :func:`decompressed` raises."""


def decompressed(path: Path) -> bytes:
    """The content of a file, unpacked if it ends in ``.gz``."""
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def read_jsonl(
    path: Path, parse: Callable[[Any], Record], expected: str
) -> tuple[list[Record], bytes]:
    """Records of a ``.jsonl`` or ``.jsonl.gz`` file, and its decompressed content.

    Args:
        parse: makes a record of one line's JSON value; ValueError if it cannot.
        expected: what a line should be, for messages.

    Raises:
        UsageError: no such file, an unreadable or empty one, or an invalid line, by number.
    """
    if not path.is_file():
        raise UsageError(f"--data {path}: no such file. Give a .jsonl or .jsonl.gz file.")
    try:
        content = decompressed(path)
    except UNREADABLE as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    lines = (
        (f"{path}, line {number}", line)
        for number, line in enumerate(content.split(b"\n"), start=1)
        if line.strip()
    )
    records = parse_records(lines, lambda line: parse(json.loads(line)), expected)
    if not records:
        raise UsageError(f"{path} is empty. Expected lines of {expected}.")
    return records, content


def parse_records(
    rows: Iterable[tuple[str, Any]], parse: Callable[[Any], Record], expected: str
) -> list[Record]:
    """``parse`` of each (name, value); an invalid value is a UsageError with its name."""
    records: list[Record] = []
    for name, value in rows:
        try:
            records.append(parse(value))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{name} is not {expected}: {error}") from error
    return records


def load_hub(name: str, *config: str, split: str, fix: str) -> Any:
    """``datasets.load_dataset``; any failure is a PrerequisiteError that ends with ``fix``."""
    try:
        import datasets

        return datasets.load_dataset(name, *config, split=split)
    except Exception as error:  # of any of the libraries below it
        reason = " ".join(str(error).split())[:300]
        raise PrerequisiteError(
            f"{name} cannot be loaded: {type(error).__name__}: {reason}\n{fix}"
        ) from error
