"""Read records from local files, folders or the Hugging Face hub."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import IO

from dft_factory.data.records import Dropped
from dft_factory.errors import ConfigError, MissingDependencyError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")

_NO_NUMBER = re.compile(r"[^0-9.eE+-]")
_NOT_BLANK = re.compile(r"[^ \t\n\r]")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def source_files(source: str, option: str = "--source") -> list[Path] | None:
    """The local files of a source in reading order, or None for a hub id.

    A folder means the files with one of :data:`SUFFIXES` directly inside it, by name.

    Args:
        option: the command line option of the source, for messages.

    Raises:
        ConfigError: the source does not exist and is not a hub id.
    """
    choices = (
        f"a file ({', '.join(SUFFIXES)}), a folder of such files, or a hub id such as org/name"
    )
    if not source.strip():  # Path("") is the current folder
        raise ConfigError(f"{option}: {source!r} does not exist. Give {choices}.")
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.is_file() and p.name.endswith(SUFFIXES))
        if not files:
            raise ConfigError(
                f"{option}: the folder {source!r} holds no {', '.join(SUFFIXES)} file."
            )
        return files
    if path.exists():
        if not path.name.endswith(SUFFIXES):
            raise ConfigError(f"{option}: {source!r} has an unknown ending. Give {choices}.")
        return [path]
    if source.endswith(SUFFIXES) or not _HUB_ID.fullmatch(source):
        raise ConfigError(f"{option}: {source!r} does not exist. Give {choices}.")
    return None


def read_files(files: list[Path], option: str = "--source") -> Iterator[object]:
    """Records of local files in order; a line that is not JSON is a ``Dropped``.

    Lines, parquet batches and the elements of a ``.json`` list are streamed.

    Raises:
        ConfigError: a file cannot be read to its end.
    """
    for path in files:
        try:
            if path.name.endswith(".parquet"):
                yield from _read_parquet(path, option)
            elif path.name.endswith(".json"):
                yield from _read_list(path, option)
            elif path.name.endswith(".gz"):
                with gzip.open(path, "rb") as lines:
                    yield from _read_lines(lines)
            else:
                with path.open("rb") as lines:
                    yield from _read_lines(lines)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"{option}: {str(path)!r} cannot be read: {error}") from error


def read_keys(
    source: str, option: str, key: Callable[[object], str | None], noun: str, fix: str
) -> dict[str, list[str]]:
    """``key`` of each record of a local file or folder, by file name.

    Raises:
        ConfigError: the source does not exist, two files have one name, a file is empty, or a
            record has no key, so that it could not be excluded.
    """
    files = source_files(source, option=option)
    if files is None:
        raise ConfigError(f"{option}: {source!r} does not exist. Give a local file or folder.")
    keys: dict[str, list[str]] = {}
    for file in files:
        keys[file.name] = []
        for number, record in enumerate(read_files([file], option=option), start=1):
            value = key(record)
            if value is None:
                raise ConfigError(f"{option}: {str(file)!r}: record {number} has no {noun}. {fix}")
            keys[file.name].append(value)
        if not keys[file.name]:
            raise ConfigError(f"{option}: {str(file)!r} has no record.")
    return keys


def read_hub(source: str, split: str, config: str | None = None) -> Iterator[object]:
    """Records of a data set on the Hugging Face hub, or from its local cache.

    Args:
        config: the configuration of a set that has several.

    Raises:
        MissingDependencyError: no ``datasets`` package, or the hub cannot be reached.
        ConfigError: any other error of ``datasets.load_dataset``.
    """
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise MissingDependencyError(
            f"--source: {source!r} is no local file, and a hub id needs the package 'datasets'. "
            "Install it with: pip install datasets"
        ) from error
    names = (source,) if config is None else (source, config)
    try:
        rows = datasets.load_dataset(*names, split=split)
    except Exception as error:  # The loader lets errors of many libraries through.
        unreachable = isinstance(error, ConnectionError)
        kind = MissingDependencyError if unreachable else ConfigError
        raise kind(
            f"--source: {source!r} is no local file, and as a hub id "
            f"datasets.load_dataset({', '.join(map(repr, names))}, split={split!r}) failed with "
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


def _read_list(path: Path, option: str) -> Iterator[object]:
    """The elements of a JSON list one by one; one at a time in memory, at most 64 MiB of text."""
    fix = "If it has one record a line, rename it to .jsonl"
    with path.open(encoding="utf-8-sig") as file:
        text = JsonText(file)
        count = 0
        try:
            if text.peek() != "[":
                value = text.value()
                if not text.peek():
                    raise ConfigError(
                        f"{option}: {str(path)!r} must hold a list of records, "
                        f"not {type(value).__name__}."
                    )
                raise ValueError("data after the first value")
            text.skip()
            if text.peek() == "]":
                text.skip()
            else:
                while True:
                    count += 1
                    yield text.value()
                    separator = text.peek()
                    text.skip()
                    if separator == "]":
                        break
                    if separator != ",":
                        raise ValueError("',' or ']' expected after a record")
            if text.peek():
                raise ValueError("data after the list")
        except ConfigError:
            raise
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError included
            # Its line and column would be those of the current chunk.
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise ConfigError(
                f"{option}: {str(path)!r} is not valid JSON: {reason} (record {count}). {fix}"
            ) from error


class JsonText:
    """JSON values from a text stream that is read in chunks."""

    CHUNK = 1 << 20
    LIMIT = 64 << 20

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._ended = False
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            match = _NOT_BLANK.search(self._text, self._at)
            if match is not None:
                self._at = match.start()
                return match[0]
            self._at = len(self._text)
            if not self._more():
                return ""

    def skip(self) -> None:
        """Skip the character that :meth:`peek` returned."""
        self._at += 1

    def value(self) -> object:
        """The next value.

        Raises:
            ValueError: it is not valid, or longer than ``LIMIT`` characters.
        """
        self.peek()
        while True:
            invalid: json.JSONDecodeError | None = None
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                # A number may continue in the next chunk: 1.5e is decoded as 1.5 here.
                if _NO_NUMBER.match(self._text, end) or self._ended:
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                invalid = error
            if not self._more():
                if invalid is not None:
                    raise invalid
                continue
            if len(self._text) > self.LIMIT:
                raise ValueError(f"a record has no end within {self.LIMIT} characters")

    def _more(self) -> bool:
        """Read a chunk as long as the text in memory; False at the end."""
        chunk = self._file.read(max(self.CHUNK, len(self._text) - self._at))
        self._text = self._text[self._at :] + chunk
        self._at = 0
        self._ended = not chunk
        return bool(chunk)


def _read_parquet(path: Path, option: str) -> Iterator[object]:
    try:
        arrow = import_module("pyarrow")
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingDependencyError(
            f"{option}: {str(path)!r} needs the package 'pyarrow'. "
            "Install it with: pip install pyarrow"
        ) from error
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except arrow.ArrowException as error:
        raise ConfigError(f"{option}: {str(path)!r} cannot be read: {error}") from error
