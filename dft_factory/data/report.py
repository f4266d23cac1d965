"""What a prepared folder says about itself, and whether a folder may be written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from dft_factory.errors import ConfigError

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
    """Of a random sample; else it changes nothing."""
    sample: Literal["random", "first"] = "random"
    """Which records ``limit`` keeps; with ``first`` nothing is read after the last of them."""
    file_name: str
    sha256: str
    """Of ``file_name``."""


class PictureReport(Report):
    """The same for a set with pictures.

    With a limit, pictures are looked at until enough records are kept; the rest of the records
    is ``unchecked``. So ``read == kept + sum(dropped.values()) + unchecked``.
    """

    unchecked: int
    notes: dict[str, int]
    """What was changed in records, or passed over -> number of records, among all that
    were not dropped for their text."""
    pictures: str
    """The place that was searched."""
    picture_files: int
    """Different pictures that the records use."""
    picture_bytes: int


class OnceReport(Report):
    """The same for a set of which each record is kept once."""

    exclude: str | None
    """The file or folder whose records were left out."""


class ProblemReport(Report):
    """The same for a set of problems; ``dropped`` counts those in evaluation sets by file name."""

    decontaminate: list[str]
    """Files and folders of evaluation problems that were left out."""


_REPORTS: TypeAdapter[PictureReport | OnceReport | ProblemReport | Report] = TypeAdapter(
    PictureReport | OnceReport | ProblemReport | Report
)


def check_out(
    out: Path,
    name: str,
    source: str,
    limit: int | None,
    seed: int,
    files: list[Path] | None,
    pictures: str | None = None,
    exclude: str | None = None,
    sample: str = "random",
    decontaminate: Sequence[str] = (),
) -> None:
    """Refuse an ``out`` that holds anything but a data set made with these very settings.

    Raises:
        ConfigError: naming what differs.
    """
    fix = "Give another --out, or remove that folder first."
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: {str(out)!r} is a file, not a folder. Give another --out.")
    if any(path.resolve().parent == out.resolve() for path in files or ()):
        raise ConfigError(f"--out: {str(out)!r} holds the source {source!r}. Give another --out.")
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        found = _REPORTS.validate_json((out / REPORT_NAME).read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            f"--out: {str(out)!r} is not empty and has no {REPORT_NAME}. {fix}"
        ) from None
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"--out: {str(out / REPORT_NAME)!r} is not the report of a prepared data set. {fix}"
        ) from error
    old: dict[str, object] = {"name": found.name, "source": found.source, "limit": found.limit}
    new: dict[str, object] = {"name": name, "source": source, "limit": limit}
    if limit is not None:
        old["sample"], new["sample"] = found.sample, sample
    if limit is not None and sample == "random":
        old["seed"], new["seed"] = found.seed, seed
    if isinstance(found, PictureReport):
        old["pictures"], new["pictures"] = found.pictures, pictures
    if isinstance(found, OnceReport):
        old["exclude"], new["exclude"] = found.exclude, exclude
    if isinstance(found, ProblemReport):
        old["decontaminate"], new["decontaminate"] = found.decontaminate, list(decontaminate)
    if old != new:
        changes = ", ".join(
            f"{key} {old[key]!r} there and {new[key]!r} now" for key in new if old[key] != new[key]
        )
        raise ConfigError(f"--out: {str(out)!r} was made with other settings: {changes}. {fix}")


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Indented, UTF-8, with a last line break."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
