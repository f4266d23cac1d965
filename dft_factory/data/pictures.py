"""Pictures of a training set: every one decoded once, stored by its content, resumable.

A picture's file in the prepared folder is named by the SHA-256 of its bytes. So equal pictures are
stored once, no name in the source can clash with another or lead anywhere, and a file that is
there is the right one.
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
    Found,
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
"""Records whose pictures are looked at before their turn."""

COMMIT_EVERY = 64
"""Pictures that a killed process may have to look at again."""

_Verdict = str | Dropped
"""The stored file's path, relative to the prepared folder; or why there is none."""


def decode(data: bytes) -> str | Dropped:
    """The format of a picture that decodes to its last pixel, or why it does not.

    The first frame is decoded and made RGB, which is what LLaMA-Factory does with it.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=list(FORMATS)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                return OVERSIZED
            image.convert("RGB")
            return str(image.format)
    except Image.DecompressionBombError:
        return OVERSIZED
    except UnidentifiedImageError:
        return CORRUPT
    except Exception:  # Pillow's decoders let a dozen kinds of error through
        return CORRUPT


class PictureStore:
    """Checks and stores pictures below ``work``; what it has done survives a killed process.

    Args:
        work: a folder of its own, kept until :meth:`close`; the finished pictures are in its
            ``pictures``.
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
        # Only the main thread uses it. Kept through kill -9; not through a power cut.
        self._db = sqlite3.connect(work / "pictures.sqlite")
        self._db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
            "CREATE TABLE IF NOT EXISTS stored (path TEXT PRIMARY KEY, file TEXT) WITHOUT ROWID;"
            "DROP TABLE IF EXISTS wanted; DROP TABLE IF EXISTS used; DROP TABLE IF EXISTS refused;"
            "CREATE TABLE wanted (path TEXT PRIMARY KEY) WITHOUT ROWID;"
            "CREATE TABLE refused (path TEXT PRIMARY KEY, reason TEXT) WITHOUT ROWID;"
            "CREATE TABLE used (file TEXT PRIMARY KEY) WITHOUT ROWID;"
        )
        self._under_way: dict[str, Future[_Verdict]] = {}
        self._new = 0

    @property
    def has_tars(self) -> bool:
        """Whether :meth:`want` and :meth:`unpack` are needed before :meth:`check`."""
        return bool(self._tars)

    def want(self, paths: Iterable[str]) -> None:
        """Names the pictures to unpack; every path that :meth:`check` will meet."""
        self._db.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", ((p,) for p in paths))

    def unpack(self) -> None:
        """Unpacks what is wanted out of tar archives, which cannot be read in any other order."""
        for number, archive in enumerate(self._tars):
            folder = self._work / f"tar-{number}"
            done = self._work / f"tar-{number}.done"
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                top = unpack_tar(archive, folder, self._is_wanted)
                done.with_suffix(".new").write_text(top or "", encoding="utf-8")
                os.replace(done.with_suffix(".new"), done)
            top = done.read_text(encoding="utf-8") or None
            self._places.append(Folder(folder, top))

    def _is_wanted(self, path: str) -> bool:
        rows = self._db.execute("SELECT 1 FROM wanted WHERE path = ?", (path,))
        return rows.fetchone() is not None

    def check(
        self, records: Iterable[dict[str, Any]]
    ) -> Generator[dict[str, Any] | Dropped, None, None]:
        """Each record in order with its ``images`` as paths in the prepared folder, or why not.

        Pictures are read and decoded in threads, at most ``AHEAD`` records before their turn.
        """
        ahead: deque[tuple[dict[str, Any], list[tuple[str, _Verdict | Future[_Verdict]]]]] = deque()
        workers = min(4, os.cpu_count() or 1)
        pool = ThreadPoolExecutor(workers)
        try:
            for record in records:
                ahead.append((record, [(p, self._look(pool, p)) for p in record["images"]]))
                if len(ahead) >= AHEAD:
                    yield self._finish(*ahead.popleft())
            while ahead:
                yield self._finish(*ahead.popleft())
        finally:
            pool.shutdown(cancel_futures=True)
            self._db.commit()

    def _look(self, pool: ThreadPoolExecutor, path: str) -> _Verdict | Future[_Verdict]:
        for table, column in (("stored", "file"), ("refused", "reason")):
            query = f"SELECT {column} FROM {table} WHERE path = ?"
            row = self._db.execute(query, (path,)).fetchone()
            if row is None:
                continue
            if table == "refused":
                return Dropped(row[0])
            if (self._work / row[0]).exists():  # killed within finish(), it may not
                return str(row[0])
        if path not in self._under_way:
            self._under_way[path] = pool.submit(self._examine, path)
        return self._under_way[path]

    def _finish(
        self, record: dict[str, Any], looked: list[tuple[str, _Verdict | Future[_Verdict]]]
    ) -> dict[str, Any] | Dropped:
        verdicts = [self._verdict(path, found) for path, found in looked]
        files: list[str] = []
        for verdict in verdicts:
            if isinstance(verdict, Dropped):
                return verdict
            files.append(verdict)
        self._db.executemany("INSERT OR IGNORE INTO used VALUES (?)", ((f,) for f in files))
        return {**record, "images": files}

    def _verdict(self, path: str, found: _Verdict | Future[_Verdict]) -> _Verdict:
        if not isinstance(found, Future):
            return found
        verdict = found.result()
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
        """In a thread: find, decode, store."""
        found: Found | Dropped = MISSING
        for place in self._places:
            try:
                found = place.find(path)
            except OSError as error:
                raise ConfigError(f"--pictures: {path!r} cannot be read: {error}.") from error
            if found != MISSING:
                break
        if isinstance(found, Dropped):
            return found
        kind = decode(found.data)
        if isinstance(kind, Dropped):
            return kind
        digest = hashlib.sha256(found.data).hexdigest()[:40]
        name = f"{FOLDER}/{digest[:2]}/{digest[2:]}.{FORMATS[kind]}"
        target = self._work / name
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            new = self._work / "new" / uuid.uuid4().hex
            _place(found, new)
            os.replace(new, target)
        return name

    def finish(self) -> tuple[int, int]:
        """Removes pictures that no record uses; gives the number of files and their bytes."""
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
        """Lets go of the database; the folder may be removed then."""
        with closing(self._db):
            self._db.commit()


def _place(found: Found, target: Path) -> None:
    """A second name for the picture's file where the file system gives one, else a copy."""
    if found.file is not None:
        try:
            os.link(found.file, target)
            return
        except OSError:  # another file system, or not our file
            pass
    target.write_bytes(found.data)
