"""Prepare a set with pictures: convert, check the pictures, publish; resumable at any moment.

The work folder ``.<out>.work`` beside ``out`` records its settings. A run with the same settings
and files continues there: stored pictures are not checked again, and the result has the same bytes
as that of an uninterrupted run.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_eval.progress import Progress
from dft_factory.data.lines import line_of, read_lines, sample_order, write_kept
from dft_factory.data.picture_places import archives_in
from dft_factory.data.pictures import FOLDER, PictureStore
from dft_factory.data.records import Converter, Dropped
from dft_factory.data.report import (
    DATASET_INFO_NAME,
    REPORT_NAME,
    PictureReport,
    check_out,
    sha256_of,
    write_json,
)
from dft_factory.data.sources import read_files, read_hub
from dft_factory.errors import ConfigError, DftFactoryError

SETTINGS_NAME = "settings.json"
FORMAT = 1
"""Of the work folder; another number discards it."""


@dataclass(frozen=True)
class Settings:
    """Arguments of ``prepare``; ``files`` is None for a hub id."""

    name: str
    source: str
    files: list[Path] | None
    out: Path
    limit: int | None
    seed: int
    pictures: Path | None


def prepare_pictures(converter: Converter, settings: Settings) -> PictureReport:
    """Write ``out/<name>.jsonl``, ``out/pictures/``, ``dataset_info.json`` and ``report.json``.

    With a limit, the converted records are shuffled by the seed and checked in that order until
    ``limit`` of them have valid pictures. (From a tar archive, which has only one order, all
    pictures that records name are unpacked first.)

    Raises:
        ConfigError: see :func:`dft_factory.data.prepare.prepare`.
        DftFactoryError: writing failed; the work is kept for the next run.
    """
    place = _place(converter, settings)
    identity = _identity(settings, place)
    out = settings.out
    work = out.parent / f".{out.name}.work"
    # A run killed while it published leaves an `out` without a report, and its work folder.
    if _read(work / SETTINGS_NAME) != identity:
        check_out(
            out,
            settings.files,
            name=settings.name,
            source=settings.source,
            limit=settings.limit,
            seed=settings.seed,
            pictures=str(place),
        )
    with _locked(work, identity):
        try:
            report = _make(converter, settings, place, work)
            _publish(work, out, report.file_name)
        except ConfigError:
            shutil.rmtree(work, ignore_errors=True)
            raise
        except OSError as error:
            raise DftFactoryError(
                f"{error}. The work so far is kept in {work}; run the same command to continue."
            ) from error
        shutil.rmtree(work, ignore_errors=True)
    return report


def _place(converter: Converter, settings: Settings) -> Path:
    if settings.pictures is not None:
        return settings.pictures.expanduser()
    if settings.files is None:
        raise ConfigError(
            f"--pictures: {settings.source!r} comes without pictures. Download those of "
            f"{converter.pictures_from} and give their folder or archive: --pictures PATH"
        )
    source = Path(settings.source).expanduser()
    return source if source.is_dir() else source.parent


def _identity(settings: Settings, place: Path) -> dict[str, Any]:
    """The settings of a work folder; files by size and time, as in make."""
    read = [*(settings.files or ()), *(file for _, files in archives_in(place) for file in files)]
    stats = [(str(file.resolve()), file.stat()) for file in read]
    return {
        "format": FORMAT,
        "name": settings.name,
        "source": settings.source,
        "pictures": str(place.resolve()),
        "limit": settings.limit,
        "seed": settings.seed,
        "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
    }


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


@contextmanager
def _locked(work: Path, identity: dict[str, Any]) -> Iterator[None]:
    """The work folder, locked, and emptied unless it has these settings."""
    work.mkdir(parents=True, exist_ok=True)
    handle = os.open(work, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"--out: another process is preparing it in {work}. Wait for it, or give another."
            ) from None
        if _read(work / SETTINGS_NAME) != identity:
            for path in work.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            new = work / f"{SETTINGS_NAME}.new"
            write_json(new, identity)
            os.replace(new, work / SETTINGS_NAME)
        yield
    finally:
        os.close(handle)


def _make(converter: Converter, settings: Settings, place: Path, work: Path) -> PictureReport:
    """Write everything into the work folder."""
    name, limit = settings.name, settings.limit
    files = settings.files
    records = read_hub(settings.source, converter.split) if files is None else read_files(files)
    _log(f"{name}: reading the records of {settings.source}")
    candidates = work / "candidates.jsonl"
    written = write_kept(records, converter.convert, candidates)
    order = sample_order(len(written.offsets), limit, settings.seed)
    dropped: Counter[str] = Counter()
    data = work / f"{name}.jsonl"
    store = PictureStore(work, place)
    try:
        if store.has_tars:
            _log(f"{name}: unpacking the pictures that {len(order)} records name")
            for line in read_lines(candidates, written.offsets, order):
                store.need(json.loads(line)["images"])
            store.unpack()
        lines = map(json.loads, read_lines(candidates, written.offsets, order))
        n_written = n_checked = 0
        with data.open("wb") as file, Progress(f"{name}: records with their pictures") as progress:
            checked = store.check(lines)
            for record in checked:
                n_checked += 1
                if isinstance(record, Dropped):
                    dropped[record.reason] += 1
                else:
                    n_written += file.write(line_of(record)) and 1
                progress(n_checked, len(order))
                if n_written == limit:
                    break
            checked.close()
        count, size = store.finish()
    finally:
        store.close()
    read, reasons = written.read, written.dropped + dropped
    if not n_written:
        counts = "".join(f"; {reason}: {n}" for reason, n in sorted(reasons.items()))
        raise ConfigError(
            f"--source: {settings.source!r} has no record to keep ({read} read{counts}). {name!r} "
            f"expects records of the shape of {converter.hub_id} and the pictures of "
            f"{converter.pictures_from}, which were searched in {str(place)!r} (elsewhere: "
            "--pictures PATH)."
        )
    for note, number in sorted(written.notes.items()):
        if note.startswith("unknown field"):
            _log(f"{name}: {note} in {number} records, not used")
    report = PictureReport(
        name=name,
        source=settings.source,
        files=[path.name for path in files or ()],
        read=read,
        kept=n_written,
        dropped=dict(sorted(reasons.items())),
        sampled=n_written,
        limit=limit,
        seed=settings.seed,
        file_name=data.name,
        sha256=sha256_of(data),
        unchecked=len(order) - n_checked,
        notes=dict(sorted(written.notes.items())),
        pictures=str(place),
        picture_files=count,
        picture_bytes=size,
    )
    write_json(work / DATASET_INFO_NAME, {name: {"file_name": data.name, **converter.entry}})
    write_json(work / REPORT_NAME, report.model_dump())
    return report


def _publish(work: Path, out: Path, file_name: str) -> None:
    """Move the results to ``out``; the old report goes first, the new one comes last."""
    out.mkdir(exist_ok=True)
    (out / REPORT_NAME).unlink(missing_ok=True)
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    os.replace(work / FOLDER, out / FOLDER)
    for name in (file_name, DATASET_INFO_NAME, REPORT_NAME):
        os.replace(work / name, out / name)


def _log(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
