"""VLMEvalKit's data sets: tab-separated tables with pictures in base64, one row an item.

From a folder (``--data``), or from where VLMEvalKit keeps them (``$LMUData``, else ``~/LMUData``),
downloaded there once from the addresses that VLMEvalKit 0.0.20 names and checked against its md5.
Tables are read as VLMEvalKit reads them (pandas' defaults), since its prompts depend on it: an
option column that holds numbers and gaps becomes 65.0, not 65.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_eval.errors import PrerequisiteError, UsageError

_HOST = "https://opencompass.openxlab.space/utils"
_LONGEST_REFERENCE = 64
"""An ``image`` cell of at most so many characters names the row whose picture it shares."""


@dataclass(frozen=True)
class Published:
    """A table as VLMEvalKit publishes it; ``name`` is its file without ``.tsv``."""

    name: str
    rows: int
    md5: str
    url: str


MATHVISION = Published(
    "MathVision", 3040, "93f6de14f7916e598aa1b7165589831e", f"{_HOST}/VLMEval/MathVision.tsv"
)
MATHVISION_MINI = Published(
    "MathVision_MINI",
    304,
    "060fe4fa5d868987ce179307bd5f8a33",
    f"{_HOST}/VLMEval/MathVision_MINI.tsv",
)
MATHVERSE_MINI = Published(
    "MathVerse_MINI",
    3940,
    "5017caca32b7fa110c350a1bea861b65",
    f"{_HOST}/benchmarks/MathVerse/MathVerse_MINIV.tsv",
)
WEMATH = Published(
    "WeMath", 1740, "b5e969a075f01290a542411fb7766388", f"{_HOST}/VLMEval/WeMath.tsv"
)


@dataclass(frozen=True)
class Row:
    """One row: ``cells`` by column, absent ones left out; ``pictures`` as PNG files."""

    id: str
    cells: dict[str, Any]
    pictures: tuple[str, ...]

    def text(self, column: str) -> str:
        """A cell as text, as VLMEvalKit would print it.

        Raises:
            UsageError: the cell is empty.
        """
        if column not in self.cells:
            raise UsageError(f"row {self.id}: column {column!r} is empty.")
        return str(self.cells[column])


@dataclass(frozen=True)
class Table:
    """The rows of a data set.

    Attributes:
        available: rows of the file, before ``--limit``.
        source: the file's name, rows and whether it is the published one, for the result's notes.
    """

    rows: tuple[Row, ...]
    available: int
    source: str


def read_table(
    choices: Sequence[Published],
    columns: Sequence[str],
    *,
    data: Path | None,
    limit: int | None,
    pictures: Path,
) -> Table:
    """Read one data set and write its pictures.

    Args:
        choices: the tables that ``data`` may hold, the first found is taken; without ``data`` the
            first is fetched.
        columns: that it must have, beside ``index`` and ``image``.
        pictures: folder for the pictures, named by content.

    Raises:
        UsageError: no such file, a column or a cell that is missing or malformed, by name.
        PrerequisiteError: the published file could not be had.
    """
    import pandas  # type: ignore[import-untyped]

    published, path = _find(choices, data)
    try:
        frame = pandas.read_csv(path, sep="\t")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no tab-separated table: {error}") from error
    missing = [name for name in ("index", "image", *columns) if name not in frame]
    if missing:
        raise UsageError(f"{path} lacks the columns {', '.join(missing)}.")
    if frame.empty:
        raise UsageError(f"{path} holds no row.")
    ids = [str(id) for id in frame["index"]]
    twice = sorted({id for id in ids if ids.count(id) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise UsageError(f"{path}: index {', '.join(twice[:5])} stands there more than once.")
    encoded = dict(zip(ids, frame["image"], strict=True))
    records = frame.drop(columns="image").iloc[:limit].to_dict("records")
    rows = []
    for id, record in zip(ids, records, strict=False):
        cells = {str(name): cell for name, cell in record.items() if not pandas.isna(cell)}
        rows.append(Row(id, cells, _write_pictures(path, id, encoded, pictures)))
    md5 = _md5(path)
    state = "as published" if md5 == published.md5 else f"md5 {md5}, not the published file"
    return Table(tuple(rows), len(ids), f"{path.name}: {len(ids)} rows, {state}")


def _find(choices: Sequence[Published], data: Path | None) -> tuple[Published, Path]:
    if data is None:
        return choices[0], fetch(choices[0])
    for published in choices:
        path = data / f"{published.name}.tsv"
        if path.is_file():
            return published, path
    names = " or ".join(f"{published.name}.tsv" for published in choices)
    raise UsageError(f"--data {data}: give the folder that holds {names}.")


def fetch(published: Published) -> Path:
    """The published file, downloaded where it is not there yet.

    Raises:
        PrerequisiteError: it could not be had; names the address and ``--data``.
    """
    folder = Path(os.environ.get("LMUData") or Path.home() / "LMUData")  # noqa: SIM112
    path = folder / f"{published.name}.tsv"
    if path.is_file() and _md5(path) == published.md5:
        return path
    target = folder / f"{published.name}.published.tsv" if path.exists() else path
    if target.is_file() and _md5(target) == published.md5:
        return target
    fix = f"Download it and give its folder: --data FOLDER (with {published.name}.tsv)."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fresh = Path(scratch) / target.name
            with (
                urllib.request.urlopen(published.url, timeout=60) as response,
                fresh.open("wb") as stream,
            ):
                shutil.copyfileobj(response, stream)
            if _md5(fresh) != published.md5:
                raise PrerequisiteError(f"{published.url} is not the published file. {fix}")
            os.replace(fresh, target)
    except OSError as error:
        raise PrerequisiteError(f"{published.url} could not be had: {error}. {fix}") from error
    return target


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def _write_pictures(path: Path, id: str, encoded: dict[str, Any], folder: Path) -> tuple[str, ...]:
    cell = encoded[id]
    if isinstance(cell, str) or cell == cell:  # NaN, an empty cell, is unlike itself
        cell = str(cell)
        cell = str(encoded.get(cell, "")) if len(cell) <= _LONGEST_REFERENCE else cell
    else:
        cell = ""
    if not cell:
        raise UsageError(f"{path}, row {id}: there is no picture.")
    parts = [cell]
    if cell.startswith("[") and cell.endswith("]"):
        try:
            parts = [str(part) for part in ast.literal_eval(cell)]
        except (ValueError, SyntaxError) as error:
            raise UsageError(f"{path}, row {id}: no list of pictures: {error}") from error
    return tuple(_write_picture(path, id, part, folder) for part in parts)


def _write_picture(path: Path, id: str, text: str, folder: Path) -> str:
    from PIL import Image

    target = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.png"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{target.name}.{os.getpid()}"
        try:
            with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as picture:
                # As VLMEvalKit: palettes and transparency go before the model sees it.
                plain = picture.convert("RGB") if picture.mode in ("RGBA", "P", "LA") else picture
                plain.save(temporary, "PNG")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UsageError(f"{path}, row {id}: not a readable picture: {error}") from error
        os.replace(temporary, target)
    return str(target.resolve())


def literal_list(row: Row, column: str) -> list[str]:
    """A cell that holds a Python list, as ``choices`` does.

    Raises:
        UsageError: it does not.
    """
    text = row.text(column)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if not isinstance(value, list):
        raise UsageError(f"row {row.id}: column {column!r} is no list: {text[:80]!r}.")
    return [str(part) for part in value]
