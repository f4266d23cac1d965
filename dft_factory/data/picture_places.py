"""Sources of pictures: folders, zip archives (also in parts) and unpacked tar archives.

A picture is named by a normalised relative path. Nothing outside its folder or archive is read:
links that lead out are refused, links inside archives are not followed.
"""

from __future__ import annotations

import gzip
import io
import itertools
import os
import re
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from dft_factory.data.checks import ESCAPES, normal_path
from dft_factory.data.records import Dropped
from dft_factory.errors import ConfigError

MAX_BYTES = 32 << 20
"""Of one picture's file; the largest training pictures have a few megabytes."""

MISSING = Dropped("missing picture")
OVERSIZED = Dropped("oversized picture")
CORRUPT = Dropped("corrupt picture")

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_PART = re.compile(r"(.+\.zip)\.(?:part-?\w+|\d+)")


@dataclass(frozen=True)
class PictureData:
    """A picture's bytes, and its path if it is a separate file."""

    data: bytes
    file: Path | None = None


class Place(Protocol):
    """One folder or archive."""

    def find(self, path: str) -> PictureData | Dropped:
        """The picture at this normalised path, or why there is none."""
        ...


def archives_in(place: Path) -> list[tuple[str, list[Path]]]:
    """(name, files) of each archive in a folder, or of one archive, by name.

    Several files are the parts of one zip.

    Raises:
        ConfigError: the path does not exist, or is a file but not an archive.
    """
    if not place.exists():
        raise ConfigError(
            f"--pictures: {str(place)!r} does not exist. Give a folder of pictures or archives, "
            f"or one archive (.zip, {', '.join(TAR_SUFFIXES)})."
        )
    files = sorted(p for p in place.iterdir() if p.is_file()) if place.is_dir() else [place]
    archives: dict[str, list[Path]] = {}
    for file in files:
        part = _PART.fullmatch(file.name)
        if part is not None:
            archives.setdefault(part[1], []).append(file)
        elif file.name.endswith((".zip", *TAR_SUFFIXES)):
            archives[file.name] = [file]
    if not place.is_dir() and not archives:
        raise ConfigError(
            f"--pictures: {str(place)!r} is neither an archive (.zip, "
            f"{', '.join(TAR_SUFFIXES)}) nor a folder."
        )
    for parts in archives.values():
        parts.sort(key=lambda p: (len(p.name), p.name))  # part-2 comes before part-10
    return sorted(archives.items())


def _spellings(path: str, name: str, top: str | None) -> Iterator[str]:
    """Paths at which the picture of ``path`` may be in a folder or archive called ``name``.

    ``path`` itself; below the only top-level folder; without a first part that is ``name``.
    """
    yield path
    if top is not None:
        yield f"{top}/{path}"
    first, _, rest = path.partition("/")
    if rest and first == name:
        yield rest


def only_folder(root: Path) -> str | None:
    """The name of the only folder in ``root``; None if it has none or several."""
    with os.scandir(root) as entries:
        folders = (entry.name for entry in entries if os.path.isdir(entry))
        names = list(itertools.islice(folders, 2))
    return names[0] if len(names) == 1 else None


class Folder:
    """Pictures as files; ``top`` is the only top-level folder."""

    def __init__(self, root: Path, top: str | None) -> None:
        self._root = root.resolve()
        self._top = top

    def find(self, path: str) -> PictureData | Dropped:
        """Read the file; links are followed if they stay inside."""
        for name in _spellings(path, self._root.name, self._top):
            try:
                file = (self._root / name).resolve(strict=True)
                info = file.stat()
            except (OSError, RuntimeError):  # not there, name too long, links in a circle
                continue
            if not file.is_relative_to(self._root):
                return Dropped(ESCAPES)
            if not stat.S_ISREG(info.st_mode):  # reading a FIFO would block
                continue
            if info.st_size > MAX_BYTES:
                return OVERSIZED
            try:
                return PictureData(file.read_bytes(), file)
            except OSError:
                return Dropped("unreadable picture")
        return MISSING


class ZipPlace:
    """Members of a zip archive, read in place."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        try:
            source = files[0] if len(files) == 1 else io.BufferedReader(Parts(files))
            self._zip = zipfile.ZipFile(source)
        except (OSError, zipfile.BadZipFile) as error:
            parts = f" It has {len(files)} parts; is one missing?" if len(files) > 1 else ""
            raise ConfigError(f"--pictures: {name!r} cannot be read: {error}.{parts}") from error
        self._lock = threading.Lock()  # ZipFile counts its open members without one
        self._name = name.removesuffix(".zip")
        tops = {member.partition("/")[0] for member in self._zip.NameToInfo if "/" in member}
        self._top = tops.pop() if len(tops) == 1 else None

    def find(self, path: str) -> PictureData | Dropped:
        """Read a member that is a file, limited by its true size, not the declared one."""
        for name in _spellings(path, self._name, self._top):
            info = self._zip.NameToInfo.get(name) or self._zip.NameToInfo.get(f"./{name}")
            if info is None or info.is_dir():
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                return Dropped("picture is a link in an archive")
            if info.file_size > MAX_BYTES:
                return OVERSIZED
            try:
                with self._lock, self._zip.open(info) as member:
                    data = member.read(MAX_BYTES + 1)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError):
                return CORRUPT  # damaged, encrypted or an unsupported compression
            return OVERSIZED if len(data) > MAX_BYTES else PictureData(data)
        return MISSING


class Parts(io.RawIOBase):
    """Concatenated files as one seekable file: ``cat image.zip.part-*`` without the copy."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files: list[IO[bytes]] = [file.open("rb") for file in files]
        self._sizes = [file.stat().st_size for file in files]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: sum(self._sizes)}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        start = 0
        for file, size in zip(self._files, self._sizes, strict=True):
            if start <= self._at < start + size:
                file.seek(self._at - start)
                data = file.read(min(len(buffer), start + size - self._at))
                buffer[: len(data)] = data
                self._at += len(data)
                return len(data)
            start += size
        return 0

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


def unpack_tar(archive: Path, folder: Path, is_needed: Callable[[str], bool]) -> str | None:
    """Unpack the files whose path ``is_needed``, in one pass, never outside of ``folder``.

    A member may be one folder deeper than its path, or lack its first part. One that is too large
    becomes a sparse file of more than ``MAX_BYTES``, which is then refused as oversized.

    Returns:
        the archive's only top-level folder.

    Raises:
        ConfigError: the archive cannot be read to its end.
    """
    tops: set[str] = set()
    stem = archive.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    try:
        with tarfile.open(archive, "r|*") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep all of them
                name = normal_path(member.name)
                if name is None or not member.isreg():
                    continue
                if "/" in name and len(tops) < 2:
                    tops.add(name.partition("/")[0])
                if not any(map(is_needed, (name, name.partition("/")[2], f"{stem}/{name}"))):
                    continue
                target = folder / name
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as file:
                        if member.size > MAX_BYTES:
                            file.truncate(MAX_BYTES + 1)  # sparse: takes no space
                            continue
                        stream = tar.extractfile(member)
                        file.write(stream.read() if stream is not None else b"")
                except (FileExistsError, NotADirectoryError, IsADirectoryError):
                    continue  # one name as file and as folder: the first one counts
    except (gzip.BadGzipFile, EOFError, tarfile.TarError, zlib.error) as error:
        raise ConfigError(f"--pictures: {str(archive)!r} cannot be unpacked: {error}.") from error
    return tops.pop() if len(tops) == 1 else None
