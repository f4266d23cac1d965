"""The report of a prepared folder, and whether a folder may be overwritten."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from dft_factory.errors import ConfigError

DATASET_INFO_NAME = "dataset_info.json"
REPORT_NAME = "report.json"


class Report(BaseModel):
    """``report.json`` of a prepared folder.

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
    """Of a random sample; otherwise unused."""
    sample: Literal["random", "first"] = "random"
    """Which records ``limit`` keeps; with ``first``, reading stops after the last of them."""
    file_name: str
    sha256: str
    """Of ``file_name``."""


class PictureReport(Report):
    """Report of a set with pictures.

    With a limit, pictures are checked until enough records are kept; the other records are
    ``unchecked``: ``read == kept + sum(dropped.values()) + unchecked``.
    """

    unchecked: int
    notes: dict[str, int]
    """What was changed or ignored -> number of records not dropped for their text."""
    pictures: str
    """The folder or archive that was searched."""
    picture_files: int
    """Number of different pictures."""
    picture_bytes: int


class OnceReport(Report):
    """Report of a set whose records are kept once."""

    exclude: str | None
    """The file or folder of excluded records."""


class ProblemReport(Report):
    """Report of a set of problems; ``dropped`` counts those in each evaluation set."""

    decontaminate: list[str]
    """Files and folders of evaluation problems."""


_REPORTS: TypeAdapter[PictureReport | OnceReport | ProblemReport | Report] = TypeAdapter(
    PictureReport | OnceReport | ProblemReport | Report
)


def check_out(out: Path, files: list[Path] | None, **settings: object) -> None:
    """Refuse an ``out`` that contains anything but a data set made with the same settings.

    Args:
        files: the source's local files.
        settings: fields of the report that must be equal.

    Raises:
        ConfigError: names what differs.
    """
    fix = "Give another --out, or remove that folder first."
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out: {str(out)!r} is a file, not a folder. Give another --out.")
    if any(path.resolve().parent == out.resolve() for path in files or ()):
        raise ConfigError(f"--out: {str(out)!r} holds the source. Give another --out.")
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        report = _REPORTS.validate_json((out / REPORT_NAME).read_bytes()).model_dump()
    except FileNotFoundError:
        raise ConfigError(
            f"--out: {str(out)!r} is not empty and has no {REPORT_NAME}. {fix}"
        ) from None
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"--out: {str(out / REPORT_NAME)!r} is not the report of a prepared data set. {fix}"
        ) from error
    if settings["limit"] is None:  # then neither is used
        settings.pop("sample", None)
    if settings["limit"] is None or settings.get("sample") == "first":
        settings.pop("seed", None)
    changes = ", ".join(
        f"{key} {report[key]!r} there and {value!r} now"
        for key, value in settings.items()
        if key in report and report[key] != value
    )
    if changes:
        raise ConfigError(f"--out: {str(out)!r} was made with other settings: {changes}. {fix}")


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Indented UTF-8 with a final line break."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
