"""``data prepare wethink``: sources of pictures, refused pictures, resumption after a kill."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dft_factory.data import picture_places, pictures
from dft_factory.data.picture_places import MAX_BYTES
from dft_factory.data.pictures import decode
from dft_factory.data.prepare import prepare
from dft_factory.data.records import Dropped
from dft_factory.data.report import PictureReport
from dft_factory.errors import ConfigError
from tests.support.jsonl import read_lines, write_lines

Json = dict[str, Any]


def picture(number: int, kind: str = "PNG", size: int = 40) -> bytes:
    """Random pixels of a seed."""
    noise = random.Random(number).randbytes(size * size * 3)
    stream = io.BytesIO()
    Image.frombytes("RGB", (size, size), noise).save(stream, kind)
    return stream.getvalue()


def record(path: object, number: int = 0) -> Json:
    return {"problem": f"Q{number}", "answer": f"A{number}", "refined_cot": "R", "image_path": path}


def write_records(folder: Path, records: list[Json]) -> Path:
    return write_lines(folder / "wethink.jsonl", records)


def write_pictures(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def run(source: Path, out: Path, **options: Any) -> PictureReport:
    report = prepare("wethink", str(source), out, **options)
    assert isinstance(report, PictureReport)
    total = report.kept + sum(report.dropped.values()) + report.unchecked
    assert (report.read, report.sampled) == (total, report.kept)
    return report


def read(out: Path) -> list[Json]:
    return read_lines(out / "wethink.jsonl")


def tree(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


# ---------------------------------------------------------------- sources of pictures


FILES = {f"coco/{i}.png": picture(i) for i in range(4)}


def as_folder(folder: Path) -> Path:
    return write_pictures(folder, FILES)


def as_zip(folder: Path, top: str = "") -> Path:
    folder.mkdir()
    with zipfile.ZipFile(folder / "image.zip", "w") as archive:
        for name, data in FILES.items():
            archive.writestr(f"{top}{name}", data)
    return folder


def as_parts(folder: Path) -> Path:
    """As LLaVA-CoT-100k is published: split within pictures and within the directory."""
    data = (as_zip(folder) / "image.zip").read_bytes()
    (folder / "image.zip").unlink()
    step = len(data) // 11 + 1
    for number, start in enumerate(range(0, len(data), step)):
        (folder / f"image.zip.part-{number}").write_bytes(data[start : start + step])
    assert len(list(folder.iterdir())) == 11  # part-10 comes after part-9
    return folder


def tar_of(path: Path, mode: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def as_tar(folder: Path) -> Path:
    folder.mkdir()
    return tar_of(folder / "image.tar", "w", FILES)


def as_tar_gz(folder: Path) -> Path:
    folder.mkdir()
    tar_of(folder / "b.tar.gz", "w:gz", {f"./top/{k}": v for k, v in FILES.items()})
    return folder


@pytest.mark.parametrize(
    "write", [as_folder, as_zip, partial(as_zip, top="other/"), as_parts, as_tar, as_tar_gz]
)
def test_every_kind_of_picture_source(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """The same four pictures in each form give the same bytes; no other file is left."""
    records = [record(name, i) for i, name in enumerate(FILES)]
    source = write_records(tmp_path / "in", records)
    out = tmp_path / "out"
    report = run(source, out, pictures=write(tmp_path / "pictures"))
    assert (report.kept, report.dropped, report.picture_files) == (4, {}, 4)
    assert report.picture_bytes == sum(map(len, FILES.values()))
    for i, row in enumerate(read(out)):
        assert row["messages"][0]["content"] == f"<image>Q{i}"
        (path,) = row["images"]
        assert (out / path).read_bytes() == FILES[f"coco/{i}.png"]
        digest = path.removeprefix("pictures/").removesuffix(".png").replace("/", "")
        assert hashlib.sha256(FILES[f"coco/{i}.png"]).hexdigest().startswith(digest)
    names = {"wethink.jsonl", "dataset_info.json", "report.json", "pictures"}
    assert {p.name for p in out.iterdir()} == names
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out", "pictures"}


def test_default_folder_and_its_name_in_paths(tmp_path: Path) -> None:
    """Without --pictures the source's folder; paths may begin with the folder's own name."""
    folder = tmp_path / "image"
    write_pictures(folder, FILES)
    source = write_records(folder, [record("coco/0.png"), record("image/coco/1.png")])
    assert run(source, tmp_path / "out").kept == 2
    assert run(folder, tmp_path / "out2").kept == 2


def test_equal_pictures_are_stored_once(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", {"a.png": FILES["coco/0.png"], "b.png": FILES["coco/0.png"]})
    source = write_records(tmp_path / "in", [record("a.png"), record("b.png"), record("./a.png")])
    report = run(source, tmp_path / "out")
    assert (report.kept, report.picture_files) == (3, 1)
    assert len({row["images"][0] for row in read(tmp_path / "out")}) == 1


def test_the_suffix_is_that_of_the_true_format(tmp_path: Path) -> None:
    """JPEG files named .png are common in collected sets."""
    write_pictures(tmp_path / "in", {"a.png": picture(1, "JPEG"), "b": picture(2, "WEBP")})
    source = write_records(tmp_path / "in", [record("a.png"), record("b")])
    run(source, tmp_path / "out")
    assert [Path(r["images"][0]).suffix for r in read(tmp_path / "out")] == [".jpg", ".webp"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (None, b"", "does not exist"),
        ("x.rar", b"x", "is neither an archive"),
        ("x.zip", b"x", "cannot be read"),
        ("x.zip.part-aa", b"x", "cannot be read"),
        ("x.tar.gz", b"\x1f\x8bx", "cannot be unpacked"),
    ],
)
def test_unusable_sources(name: str | None, content: bytes, message: str, tmp_path: Path) -> None:
    source = write_records(tmp_path / "in", [record("a.png")])
    path = tmp_path / (name or "nothing")
    if name is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"--pictures: .*{message}"):
        run(source, tmp_path / "out", pictures=path)
    assert {p.name for p in tmp_path.iterdir()} == {"in"} | ({name} if name else set())


def test_hub_ids_need_pictures_and_other_sets_refuse_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"comes without pictures.*LLaVA-CoT-100k.*--pictures"):
        prepare("wethink", "org/name", tmp_path / "out")
    (tmp_path / "x.jsonl").write_text("{}\n")
    with pytest.raises(ConfigError, match="'ultrafeedback' has no pictures"):
        prepare("ultrafeedback", str(tmp_path / "x.jsonl"), tmp_path / "o", pictures=tmp_path)


# ---------------------------------------------------------------- refused pictures


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header declares this size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 10_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows)


def flipped(data: bytes, path: int) -> bytes:
    return data[:path] + bytes([data[path] ^ 0xFF]) + data[path + 1 :]


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (picture(1), "PNG"),
        (picture(1, "JPEG"), "JPEG"),
        (picture(1)[:-2000], "corrupt picture"),
        (picture(1, "JPEG")[:-700], "corrupt picture"),
        (flipped(picture(1), 2000), "corrupt picture"),
        (b"", "corrupt picture"),
        (b"GIF89a", "corrupt picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "corrupt picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "corrupt picture"),
        (bomb(100, 5_000_000), "oversized picture"),
        (bomb(6000, 6000), "oversized picture"),
        (bomb(60_000, 60_000), "oversized picture"),
    ],
)
def test_decode(data: bytes, verdict: str) -> None:
    result = decode(data)
    assert (result.reason if isinstance(result, Dropped) else result) == verdict


def test_hostile_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each bad picture is counted under its reason; the good one is kept."""
    files = {"good.png": picture(0), "cut.png": picture(1)[:-2000], "text.jpg": b"no picture"}
    folder = write_pictures(tmp_path / "in", {**files, "bomb.png": bomb(60_000, 60_000)})
    with (folder / "large.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    (tmp_path / "secret.png").write_bytes(picture(5))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.png").write_bytes(picture(6))
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "dir").symlink_to(tmp_path / "outside")
    (folder / "in.png").symlink_to("good.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    names = ["good.png", "in.png", "cut.png", "text.jpg", "bomb.png", "large.png", "out.png",
             "dir/a.png", "loop.png", "folder.png", "pipe.png", "nowhere.png", "x" * 300 + ".png",
             "../secret.png", str(tmp_path / "secret.png")]  # fmt: skip
    source = write_records(folder, [record(name) for name in names])
    report = run(source, tmp_path / "out")
    assert report.kept == 2
    assert report.dropped == {
        "corrupt picture": 2,
        "missing picture": 5,
        "oversized picture": 2,
        "picture path escapes its folder": 4,
    }
    stored = {p.read_bytes() for p in (tmp_path / "out/pictures").rglob("*") if p.is_file()}
    assert stored == {picture(0)}


def test_hostile_zip(tmp_path: Path) -> None:
    (tmp_path / "evil.png").write_bytes(picture(9))
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/good.png", picture(0))
        archive.writestr("../evil.png", picture(1))
        archive.writestr("/evil.png", picture(1))
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a/zeros.png", b"\0" * (MAX_BYTES + 1))
        archive.writestr("a/broken.png", picture(2))
        archive.writestr("a/liar.png", picture(3) + b"\0" * 100_000)
    data = bytearray((tmp_path / "p.zip").read_bytes())
    path = data.index(picture(2)[100:120])  # noise: stored as it is
    data[path] ^= 0xFF
    directory = data.rindex(b"a/liar.png") - 46
    data[directory + 24 : directory + 28] = struct.pack("<I", 50)  # its size, declared
    (tmp_path / "p.zip").write_bytes(data)
    names = ["a/good.png", "../evil.png", "/evil.png", "evil.png", "link.png", "a/zeros.png",
             "a/broken.png", "a/liar.png"]  # fmt: skip
    source = write_records(tmp_path / "in", [record(name) for name in names])
    report = run(source, tmp_path / "out", pictures=tmp_path / "p.zip")
    assert report.kept == 1
    assert report.dropped == {
        "corrupt picture": 2,
        "missing picture": 1,
        "oversized picture": 1,
        "picture is a link in an archive": 1,
        "picture path escapes its folder": 2,
    }


def test_hostile_tar(tmp_path: Path) -> None:
    """Nothing is written outside the work folder, and links are not followed."""
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as archive:

        def add(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(data), to
            archive.addfile(member, io.BytesIO(data))

        add("good.png", picture(0))
        add("../../evil.png", picture(1))
        add(str(tmp_path / "absolute.png"), picture(1))
        add("dir", kind=tarfile.SYMTYPE, to=str(tmp_path))
        add("dir/evil.png", picture(2))
        add("link.png", kind=tarfile.SYMTYPE, to="/etc/passwd")
        add("hard.png", kind=tarfile.LNKTYPE, to="good.png")
        add("zeros.png", b"\0" * (MAX_BYTES + 1))
        add("other/unwanted.png", picture(3))
    names = ["good.png", "evil.png", "absolute.png", "dir/evil.png", "link.png", "hard.png",
             "zeros.png"]  # fmt: skip
    source = write_records(tmp_path / "in", [record(name) for name in names])
    report = run(source, tmp_path / "out", pictures=tmp_path / "p.tar.gz")
    assert report.kept == 2, "good.png, and dir/evil.png as a plain file"
    assert report.dropped == {"missing picture": 4, "oversized picture": 1}
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out", "p.tar.gz"}


def test_nothing_kept_names_the_searched_folder(tmp_path: Path) -> None:
    source = write_records(tmp_path / "in", [record("a.png"), {"problem": 1}])
    counts = "2 read; missing picture: 1; missing problem: 1"
    with pytest.raises(ConfigError, match=f"{counts}(.|\n)*--pictures PATH"):
        run(source, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_unknown_fields_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path / "in", {"a.png": picture(0)})
    source = write_records(tmp_path / "in", [{**record("a.png"), "id": 1}, record("./a.png")])
    report = run(source, tmp_path / "out")
    assert report.notes == {
        "<image> marker added": 2,
        "picture path normalised": 1,
        "unknown field 'id'": 1,
    }
    assert "unknown field 'id' in 1 records" in capsys.readouterr().err


# ---------------------------------------------------------------- limit, resuming


def mixed_records(folder: Path, count: int, size: int = 40) -> Path:
    """Records 0, 5, 10, ... have no picture, 1, 6, 11, ... a broken one."""
    for i in range(count):
        data = picture(i, "JPEG" if i % 2 else "PNG", size)
        if i % 5:
            write_pictures(folder, {f"{i}.img": data if i % 5 > 1 else data[:500]})
    return write_records(folder, [record(f"{i}.img", i) for i in range(count)])


def test_limit(tmp_path: Path) -> None:
    """The first records of a seeded shuffle with sound pictures; no other picture is stored."""
    source = mixed_records(tmp_path / "in", 50)
    order = list(range(50))
    random.Random(3).shuffle(order)
    expected = [f"<image>Q{i}" for i in order if i % 5 > 1]
    for limit in (1, 7, 20):
        out = tmp_path / f"out{limit}"
        report = run(source, out, limit=limit, seed=3)
        assert [r["messages"][0]["content"] for r in read(out)] == expected[:limit]
        assert report.picture_files == limit
        assert len([p for p in (out / "pictures").rglob("*") if p.is_file()]) == limit
        assert report.unchecked == 49 - order.index(int(expected[limit - 1].split("Q")[1]))
    report = run(source, tmp_path / "all", limit=99, seed=3)
    assert (report.kept, report.unchecked) == (30, 0)
    assert report.dropped == {"corrupt picture": 10, "missing picture": 10}


def test_overwriting_and_other_settings(tmp_path: Path) -> None:
    source = mixed_records(tmp_path / "in", 10)
    out = tmp_path / "out"
    run(source, out)
    before = tree(out)
    run(source, out)
    assert tree(out) == before
    with pytest.raises(ConfigError, match=r"pictures .* there and"):
        run(source, out, pictures=tmp_path)
    with pytest.raises(ConfigError, match="limit None there and 2 now"):
        run(source, out, limit=2)
    assert tree(out) == before


def test_stored_pictures_are_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop at 20 records the second run looks only for refused or uncommitted ones."""
    monkeypatch.setattr(pictures, "COMMIT_EVERY", 1)
    monkeypatch.setattr(pictures, "AHEAD", 2)
    source = mixed_records(tmp_path / "in", 50)
    run(source, tmp_path / "uninterrupted")
    lookups: list[str] = []
    find = picture_places.Folder.find

    def spy(self: picture_places.Folder, path: str) -> Any:
        lookups.append(path)
        if len(lookups) == 20:
            raise KeyboardInterrupt
        return find(self, path)

    monkeypatch.setattr(picture_places.Folder, "find", spy)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    first, lookups[:] = set(lookups), ["resumed"] * 20
    run(source, tmp_path / "out")
    repeated = first & set(lookups)
    sound = {path for path in repeated if int(path.removesuffix(".img")) % 5 > 1}
    assert len(sound) <= 4, sound
    assert tree(tmp_path / "out") == tree(tmp_path / "uninterrupted")
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out", "uninterrupted"}


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """SIGKILL at ten moments over a run's length, then a full run: the same tree."""
    source = mixed_records(tmp_path / "in", 240, size=120)
    files = {p.name: p.read_bytes() for p in sorted((tmp_path / "in").glob("*.img"))}
    path = tar_of(tmp_path / "p.tar.gz", "w:gz", files)
    code = (
        "import sys; from pathlib import Path; from dft_factory.data.prepare import prepare\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "prepare('wethink', sys.argv[1], Path(sys.argv[2]), limit=120, pictures=Path(sys.argv[3]))"
    )

    def start(out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(source), str(out), str(path)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()  # the imports are done
        process.stdin.write("\n")
        process.stdin.flush()
        return process

    began = time.monotonic()
    assert start(tmp_path / "uninterrupted").wait() == 0
    length = time.monotonic() - began
    killed = 0
    for part in range(10):
        process = start(tmp_path / "out")
        try:
            process.wait(timeout=length * (part + 0.5) / 10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
    assert killed >= 1
    assert start(tmp_path / "out").wait() == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "uninterrupted")
    assert {p.name for p in tmp_path.iterdir()} == {"in", "out", "uninterrupted", "p.tar.gz"}


def test_two_at_once(tmp_path: Path) -> None:
    """The second process gets an error and leaves the first one's work alone."""
    import fcntl

    source = mixed_records(tmp_path / "in", 10)
    work = tmp_path / ".out.work"
    work.mkdir()
    handle = os.open(work, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    (work / "mine").touch()
    with pytest.raises(ConfigError, match="another process"):
        run(source, tmp_path / "out")
    assert (work / "mine").exists()
    os.close(handle)
    run(source, tmp_path / "out")
    assert not work.exists()


def test_settings_and_the_work_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A work folder of another seed is discarded."""
    source = mixed_records(tmp_path / "in", 30)
    run(source, tmp_path / "uninterrupted", limit=5, seed=2)

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dft_factory.data.picture_set._publish", stop)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "out", limit=9, seed=1)
    run(source, tmp_path / "out", limit=5, seed=2)
    assert tree(tmp_path / "out") == tree(tmp_path / "uninterrupted")
