"""Where records come from: local files, a folder of them, or the Hugging Face hub."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import IO

from dft_factory.data.records import Dropped
from dft_factory.errors import ConfigError, MissingDependencyError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def source_files(source: str) -> list[Path] | None:
    """The local files of a source in the order in which they are read, or ``None`` for a hub id.

    A folder stands for the files with one of :data:`SUFFIXES` directly inside it, by name.

    Raises:
        ConfigError: nothing is there, and the text cannot be a hub id either.
    """
    choices = (
        f"a file ({', '.join(SUFFIXES)}), a folder of such files, or a hub id such as org/name"
    )
    if not source.strip():  # Path("") is the current folder
        raise ConfigError(f"--source: {source!r} does not exist. Give {choices}.")
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.name.endswith(SUFFIXES))
        if not files:
            raise ConfigError(
                f"--source: the folder {source!r} holds no {', '.join(SUFFIXES)} file."
            )
        return files
    if path.exists():
        if not path.name.endswith(SUFFIXES):
            raise ConfigError(f"--source: {source!r} has an unknown ending. Give {choices}.")
        return [path]
    if source.endswith(SUFFIXES) or not _HUB_ID.fullmatch(source):
        raise ConfigError(f"--source: {source!r} does not exist. Give {choices}.")
    return None


def read_files(files: list[Path]) -> Iterator[object]:
    """Records of local files, one after another; a line that is not JSON comes as ``Dropped``.

    Lines and parquet batches are streamed; a ``.json`` list is loaded whole.

    Raises:
        ConfigError: a file that cannot be read to its end.
    """
    for path in files:
        try:
            if path.name.endswith(".parquet"):
                yield from _read_parquet(path)
            elif path.name.endswith(".json"):
                yield from _read_list(path)
            elif path.name.endswith(".gz"):
                with gzip.open(path, "rb") as lines:
                    yield from _read_lines(lines)
            else:
                with path.open("rb") as lines:
                    yield from _read_lines(lines)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"--source: {str(path)!r} cannot be read: {error}") from error


def read_hub(source: str, split: str) -> Iterator[object]:
    """Records of a data set on the Hugging Face hub, from its local cache where it is there.

    Raises:
        MissingDependencyError: no ``datasets`` package, or the hub cannot be reached.
        ConfigError: anything else that ``datasets.load_dataset`` says about this id.
    """
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise MissingDependencyError(
            f"--source: {source!r} is no local file, and a hub id needs the package 'datasets'. "
            "Install it with: pip install datasets"
        ) from error
    try:
        rows = datasets.load_dataset(source, split=split)
    except Exception as error:  # The loader lets errors of many libraries through.
        unreachable = isinstance(error, ConnectionError)
        kind = MissingDependencyError if unreachable else ConfigError
        raise kind(
            f"--source: {source!r} is no local file, and as a hub id "
            f"datasets.load_dataset({source!r}, split={split!r}) failed with "
            f"{type(error).__name__}: {error}\n"
            "Download its files on a machine that reaches the hub, then give the folder or file: "
            f"--source PATH ({', '.join(SUFFIXES)})"
        ) from error
    yield from rows


def _read_lines(lines: IO[bytes] | gzip.GzipFile) -> Iterator[object]:
    for line in lines:
        if not line.strip():
            continue
        try:
            yield json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError included
            yield Dropped("malformed JSON")


def _read_list(path: Path) -> Iterator[object]:
    try:
        records = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"--source: {str(path)!r} is not valid JSON: {error}. "
            "If it has one record a line, rename it to .jsonl"
        ) from error
    if not isinstance(records, list):
        raise ConfigError(
            f"--source: {str(path)!r} must hold a list of records, not {type(records).__name__}."
        )
    yield from records


def _read_parquet(path: Path) -> Iterator[object]:
    try:
        arrow = import_module("pyarrow")
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingDependencyError(
            f"--source: {str(path)!r} needs the package 'pyarrow'. "
            "Install it with: pip install pyarrow"
        ) from error
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except arrow.ArrowException as error:
        raise ConfigError(f"--source: {str(path)!r} cannot be read: {error}") from error
