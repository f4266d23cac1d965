"""Pictures of a training set: decoded once, stored by content, resumable.

A picture's file is named by the SHA-256 of its bytes. So equal pictures are stored once, names of
the source cannot clash or escape the folder, and an existing file is the right one.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sqlite3
import uuid
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from dft_factory.data.picture_places import (
    CORRUPT,
    MISSING,
    OVERSIZED,
    Folder,
    PictureData,
    Place,
    ZipPlace,
    archives_in,
    only_folder,
    unpack_tar,
)
from dft_factory.data.records import Dropped
from dft_factory.errors import ConfigError

MAX_PIXELS = 1 << 25
"""Of one picture, read from its header before anything is decoded: 100 MB as RGB."""

FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
"""Pillow's name -> suffix. Pillow has more, some of which start other programs."""

FOLDER = "pictures"
AHEAD = 64
"""Number of records whose pictures are checked in advance."""

COMMIT_EVERY = 64
"""Pictures that may have to be checked again after a kill."""

_Verdict = str | Dropped
"""The stored file's path relative to the prepared folder, or why there is none."""


def decode(data: bytes) -> str | Dropped:
    """The format of a picture that decodes completely, or why it does not.

    The first frame is decoded and converted to RGB, as LLaMA-Factory does.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=list(FORMATS)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                return OVERSIZED
            image.convert("RGB")
            return str(image.format)
    except Image.DecompressionBombError:
        return OVERSIZED
    except Exception:  # Pillow's decoders raise a dozen kinds of error
        return CORRUPT


class PictureStore:
    """Checks and stores pictures in ``work/pictures``; stored pictures survive a kill.

    Args:
        place: a folder of pictures or archives, or one archive.
    """

    def __init__(self, work: Path, place: Path) -> None:
        self._work = work
        self._tars: list[Path] = []
        self._places: list[Place] = [Folder(place, only_folder(place))] if place.is_dir() else []
        for name, files in archives_in(place):
            if name.endswith(".zip"):
                self._places.append(ZipPlace(name, files))
            else:
                self._tars += files
        (work / FOLDER).mkdir(exist_ok=True)
        # Half-written files of a killed process.
        shutil.rmtree(work / "new", ignore_errors=True)
        (work / "new").mkdir()
        # Used by the main thread only. Survives kill -9, not a power cut.
        self._db = sqlite3.connect(work / "pictures.sqlite")
        self._db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
            "CREATE TABLE IF NOT EXISTS stored (path TEXT PRIMARY KEY, file TEXT) WITHOUT ROWID;"
            "DROP TABLE IF EXISTS needed; DROP TABLE IF EXISTS used; DROP TABLE IF EXISTS refused;"
            "CREATE TABLE needed (path TEXT PRIMARY KEY) WITHOUT ROWID;"
            "CREATE TABLE refused (path TEXT PRIMARY KEY, reason TEXT) WITHOUT ROWID;"
            "CREATE TABLE used (file TEXT PRIMARY KEY) WITHOUT ROWID;"
        )
        self._under_way: dict[str, Future[_Verdict]] = {}
        self._new = 0

    @property
    def has_tars(self) -> bool:
        """Whether :meth:`need` and :meth:`unpack` must come before :meth:`check`."""
        return bool(self._tars)

    def need(self, paths: Iterable[str]) -> None:
        """Add pictures to unpack: all paths of the records of :meth:`check`."""
        self._db.executemany("INSERT OR IGNORE INTO needed VALUES (?)", ((p,) for p in paths))

    def unpack(self) -> None:
        """Unpack the needed pictures of tar archives, which only allow sequential reading."""

        def is_needed(path: str) -> bool:
            rows = self._db.execute("SELECT 1 FROM needed WHERE path = ?", (path,))
            return rows.fetchone() is not None

        for number, archive in enumerate(self._tars):
            folder = self._work / f"tar-{number}"
            done = self._work / f"tar-{number}.done"
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                top = unpack_tar(archive, folder, is_needed)
                done.with_suffix(".new").write_text(top or "", encoding="utf-8")
                os.replace(done.with_suffix(".new"), done)
            top = done.read_text(encoding="utf-8") or None
            self._places.append(Folder(folder, top))

    def check(
        self, records: Iterable[dict[str, Any]]
    ) -> Generator[dict[str, Any] | Dropped, None, None]:
        """Each record, in order, with ``images`` as paths in the prepared folder; or why not.

        Threads read and decode pictures of up to ``AHEAD`` records in advance.
        """
        ahead: deque[tuple[dict[str, Any], list[tuple[str, _Verdict | Future[_Verdict]]]]] = deque()
        workers = min(4, os.cpu_count() or 1)
        pool = ThreadPoolExecutor(workers)
        try:
            for record in records:
                ahead.append((record, [(p, self._lookup(pool, p)) for p in record["images"]]))
                if len(ahead) >= AHEAD:
                    yield self._finish(*ahead.popleft())
            while ahead:
                yield self._finish(*ahead.popleft())
        finally:
            pool.shutdown(cancel_futures=True)
            self._db.commit()

    def _lookup(self, pool: ThreadPoolExecutor, path: str) -> _Verdict | Future[_Verdict]:
        for table, column in (("stored", "file"), ("refused", "reason")):
            query = f"SELECT {column} FROM {table} WHERE path = ?"
            row = self._db.execute(query, (path,)).fetchone()
            if row is None:
                continue
            if table == "refused":
                return Dropped(row[0])
            if (self._work / row[0]).exists():  # a kill within finish() may have removed it
                return str(row[0])
        if path not in self._under_way:
            self._under_way[path] = pool.submit(self._examine, path)
        return self._under_way[path]

    def _finish(
        self, record: dict[str, Any], pending: list[tuple[str, _Verdict | Future[_Verdict]]]
    ) -> dict[str, Any] | Dropped:
        verdicts = [self._verdict(path, result) for path, result in pending]
        files: list[str] = []
        for verdict in verdicts:
            if isinstance(verdict, Dropped):
                return verdict
            files.append(verdict)
        self._db.executemany("INSERT OR IGNORE INTO used VALUES (?)", ((f,) for f in files))
        return {**record, "images": files}

    def _verdict(self, path: str, result: _Verdict | Future[_Verdict]) -> _Verdict:
        if not isinstance(result, Future):
            return result
        verdict = result.result()
        if self._under_way.pop(path, None) is not None:
            if isinstance(verdict, Dropped):
                row = (path, verdict.reason)
                self._db.execute("INSERT OR IGNORE INTO refused VALUES (?, ?)", row)
            else:
                self._db.execute("INSERT OR REPLACE INTO stored VALUES (?, ?)", (path, verdict))
            self._new += 1
            if self._new % COMMIT_EVERY == 0:
                self._db.commit()
        return verdict

    def _examine(self, path: str) -> _Verdict:
        """Find, decode and store a picture; runs in a thread."""
        picture: PictureData | Dropped = MISSING
        for place in self._places:
            try:
                picture = place.find(path)
            except OSError as error:
                raise ConfigError(f"--pictures: {path!r} cannot be read: {error}.") from error
            if picture != MISSING:
                break
        if isinstance(picture, Dropped):
            return picture
        kind = decode(picture.data)
        if isinstance(kind, Dropped):
            return kind
        digest = hashlib.sha256(picture.data).hexdigest()[:40]
        name = f"{FOLDER}/{digest[:2]}/{digest[2:]}.{FORMATS[kind]}"
        target = self._work / name
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            new = self._work / "new" / uuid.uuid4().hex
            _write(picture, new)
            os.replace(new, target)
        return name

    def finish(self) -> tuple[int, int]:
        """Remove unused pictures; returns the number of files and their total size."""
        self._db.commit()
        count = size = 0
        for file in (self._work / FOLDER).glob("*/*"):
            name = file.relative_to(self._work).as_posix()
            if self._db.execute("SELECT 1 FROM used WHERE file = ?", (name,)).fetchone():
                count += 1
                size += file.stat().st_size
            else:
                file.unlink()
        self._db.execute("DELETE FROM stored WHERE file NOT IN (SELECT file FROM used)")
        self._db.commit()
        for folder in (self._work / FOLDER).iterdir():
            if not any(folder.iterdir()):
                folder.rmdir()
        return count, size

    def close(self) -> None:
        """Close the database; afterwards the folder can be removed."""
        with closing(self._db):
            self._db.commit()


def _write(picture: PictureData, target: Path) -> None:
    """Hard-link the picture's file if possible, else copy it."""
    if picture.file is not None:
        try:
            os.link(picture.file, target)
            return
        except OSError:  # another file system, or not our file
            pass
    target.write_bytes(picture.data)
