"""The driver behind ``dft-factory data prepare``: published records -> a LLaMA-Factory data set."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import random
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from dft_factory.data.records import Converter, Dropped
from dft_factory.data.sources import read_files, read_hub, source_files
from dft_factory.data.ultrafeedback import ULTRAFEEDBACK
from dft_factory.errors import ConfigError

CONVERTERS: dict[str, Converter] = {"ultrafeedback": ULTRAFEEDBACK}
"""What ``data prepare`` can be asked for, by name."""

DATASET_INFO_NAME = "dataset_info.json"
REPORT_NAME = "report.json"


class Report(BaseModel):
    """What was made from what; ``report.json`` of a prepared folder.

    ``read == kept + sum(dropped.values())``, and ``sampled`` is the number of lines of
    ``file_name``: ``kept``, or ``limit`` if that is less.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    files: list[str]
    """Names of the local files that were read, in order; empty for a hub id."""
    read: int
    kept: int
    dropped: dict[str, int]
    """Reason -> number of records."""
    sampled: int
    limit: int | None
    seed: int
    """Without a limit it changes nothing."""
    file_name: str
    sha256: str
    """Of ``file_name``."""


def prepare(name: str, source: str, out: Path, limit: int | None = None, seed: int = 0) -> Report:
    """Write ``out/<name>.jsonl``, ``out/dataset_info.json`` and ``out/report.json``.

    Without ``limit`` every kept record is written, in the order of the source. With it the kept
    records are shuffled by ``random.Random(seed)`` and the first ``limit`` of them are written in
    that order. So the same source, limit and seed give the same bytes, a smaller limit gives the
    beginning of a larger one, and LLaMA-Factory's ``max_samples`` takes an unbiased part of the
    file. A limit above the number of kept records keeps them all, shuffled.

    Records are streamed through a file beside ``out``; memory holds 8 bytes for each kept one
    and, with a limit, a list of their numbers. Each of the three files appears complete or not
    at all, the report last. A folder made with the same settings is made anew.

    Args:
        name: a key of :data:`CONVERTERS`.
        source: a file, a folder, or a hub id; see :mod:`dft_factory.data.sources`.
        out: the folder to write, created if need be.
        limit: how many records to sample, at least 1.
        seed: of the sample, at least 0.

    Raises:
        ConfigError: a setting that cannot be honoured, a source that cannot be read or has no
            record to keep, or an ``out`` that holds something else.
        MissingDependencyError: the hub cannot be reached, or a package for reading is missing.
    """
    converter = _converter(name)
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit: {limit} must be 1 or more. Leave it out to keep every record.")
    if seed < 0:  # random.Random(-1) is random.Random(1)
        raise ConfigError(f"--seed: {seed} must be 0 or more.")
    files = source_files(source)
    _check_out(out, name, source, limit, seed, files)
    records = read_hub(source, converter.split) if files is None else read_files(files)

    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        data = scratch / f"{name}.jsonl"
        offsets, dropped = _write_kept(records, converter.convert, data)
        kept = len(offsets)
        read = kept + dropped.total()
        if not kept:
            counts = "".join(f"; {reason}: {n}" for reason, n in sorted(dropped.items()))
            raise ConfigError(
                f"--source: {source!r} has no record to keep ({read} read{counts}). "
                f"{name!r} expects records of the shape of {converter.hub_id}."
            )
        if limit is not None:
            order = list(range(kept))
            random.Random(seed).shuffle(order)
            _pick(data, offsets, order[:limit])
        report = Report(
            name=name,
            source=source,
            files=[path.name for path in files or ()],
            read=read,
            kept=kept,
            dropped=dict(sorted(dropped.items())),
            sampled=kept if limit is None else min(kept, limit),
            limit=limit,
            seed=seed,
            file_name=data.name,
            sha256=_sha256(data),
        )
        _write_json(
            scratch / DATASET_INFO_NAME, {name: {"file_name": data.name, **converter.entry}}
        )
        _write_json(scratch / REPORT_NAME, report.model_dump())
        out.mkdir(exist_ok=True)
        for file_name in (data.name, DATASET_INFO_NAME, REPORT_NAME):
            os.replace(scratch / file_name, out / file_name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return report


def _converter(name: str) -> Converter:
    if name in CONVERTERS:
        return CONVERTERS[name]
    near = difflib.get_close_matches(name.lower(), CONVERTERS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"data set {name!r} is unknown. Choose one of {', '.join(CONVERTERS)}.{hint}")


def _check_out(
    out: Path, name: str, source: str, limit: int | None, seed: int, files: list[Path] | None
) -> None:
    """Refuse an ``out`` that holds anything but a data set made with these very settings."""
    mend = "Give another --out, or remove that folder first."
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: {str(out)!r} is a file, not a folder. Give another --out.")
    if any(path.resolve().parent == out.resolve() for path in files or ()):
        raise ConfigError(f"--out: {str(out)!r} holds the source {source!r}. Give another --out.")
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        found = Report.model_validate_json((out / REPORT_NAME).read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            f"--out: {str(out)!r} is not empty and has no {REPORT_NAME}. {mend}"
        ) from None
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"--out: {str(out / REPORT_NAME)!r} is not the report of a prepared data set. {mend}"
        ) from error
    old: dict[str, object] = {"name": found.name, "source": found.source, "limit": found.limit}
    new: dict[str, object] = {"name": name, "source": source, "limit": limit}
    if limit is not None:
        old["seed"], new["seed"] = found.seed, seed
    if old != new:
        changes = ", ".join(
            f"{key} {old[key]!r} there and {new[key]!r} now" for key in new if old[key] != new[key]
        )
        raise ConfigError(f"--out: {str(out)!r} was made with other settings: {changes}. {mend}")


def _write_kept(
    records: Iterable[object],
    convert: Callable[[object], Mapping[str, object] | Dropped],
    path: Path,
) -> tuple[array[int], Counter[str]]:
    """Write the kept records as JSON lines; return where each starts, and the drops by reason."""
    offsets = array("Q")
    dropped: Counter[str] = Counter()
    position = 0
    with path.open("wb") as file:
        for record in records:
            kept = record if isinstance(record, Dropped) else convert(record)
            if isinstance(kept, Dropped):
                dropped[kept.reason] += 1
                continue
            offsets.append(position)
            position += file.write((json.dumps(kept, ensure_ascii=False) + "\n").encode())
    return offsets, dropped


def _pick(path: Path, offsets: array[int], order: list[int]) -> None:
    """Replace the file by its lines at these numbers, in this order."""
    picked = path.with_suffix(".picked")
    with path.open("rb") as source, picked.open("wb") as file:
        for number in order:
            source.seek(offsets[number])
            file.write(source.readline())
    os.replace(picked, path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
