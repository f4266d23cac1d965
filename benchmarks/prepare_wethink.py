"""Speed and memory of ``dft-factory data prepare wethink`` on generated records and pictures.

    python benchmarks/prepare_wethink.py                       # 10,000 records, 10,000 pictures
    python benchmarks/prepare_wethink.py --records 1000 100000 --pictures 1000
    python benchmarks/prepare_wethink.py --places zip tar.gz --forms jsonl json parquet

Each point runs in a new process. Pictures are drawn, half of them JPEG and half PNG, 640 x 480; the
text of a record has about 2,500 characters. Time is the wall time of ``prepare`` without imports;
memory is the peak of the process (VmHWM), also shown for the imports alone.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

CHILD = """
import json, sys, time
from pathlib import Path
from dft_factory.data.prepare import prepare
from PIL import Image
import pyarrow.parquet

def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024

before = peak()
began = time.perf_counter()
report = prepare("wethink", sys.argv[1], Path(sys.argv[2]), pictures=Path(sys.argv[3]))
seconds = time.perf_counter() - began
print(json.dumps([seconds, before, peak(), report.read, report.kept, report.picture_files]))
"""


def pictures(count: int) -> Iterator[tuple[str, bytes]]:
    """Names and bytes."""
    from PIL import Image, ImageDraw

    for number in range(count):
        rng = random.Random(number)
        image = Image.effect_noise((160, 120), 30).resize((640, 480)).convert("RGB")
        draw = ImageDraw.Draw(image)
        for _ in range(12):
            x, y = rng.randrange(560), rng.randrange(400)
            colour = tuple(rng.randrange(256) for _ in range(3))
            draw.ellipse((x, y, x + 20 + rng.randrange(60), y + 60), fill=colour)
        stream = io.BytesIO()
        image.save(stream, "JPEG" if number % 2 else "PNG", compress_level=1)
        yield f"set{number % 18}/{number}.{'jpg' if number % 2 else 'png'}", stream.getvalue()


def write_place(folder: Path, kind: str, count: int) -> Path:
    """The same pictures as a folder, a zip or a tar archive."""
    place = folder / ("image" if kind == "folder" else f"image.{kind}")
    if kind == "zip":
        with zipfile.ZipFile(place, "w") as archive:
            for name, data in pictures(count):
                archive.writestr(name, data)
    elif kind == "tar.gz":
        with tarfile.open(place, "w:gz", compresslevel=1) as archive:
            for name, data in pictures(count):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        for name, data in pictures(count):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
    return place


def records(count: int, n_pictures: int) -> Iterator[dict[str, str]]:
    """Records with WeThink's fields that use the pictures in turn."""
    for number in range(count):
        picture = number % n_pictures
        yield {
            "problem": f"<image>\nQuestion {number}: how many circles are there?",
            "answer": str(number % 12),
            "category": "counting",
            "abilities": "perception, counting",
            "refined_cot": f"Look at each circle in turn, {number}. " * 60,
            "image_path": f"set{picture % 18}/{picture}.{'jpg' if picture % 2 else 'png'}",
            "reward": "rule",
        }


def write_records(folder: Path, form: str, count: int, n_pictures: int) -> Path:
    path = folder / f"records-{count}.{form}"
    rows = records(count, n_pictures)
    if form == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
        return path
    with path.open("w") as file:
        lines = (json.dumps(row) for row in rows)
        if form == "json":
            file.write("[")
            for number, line in enumerate(lines):
                file.write((",\n" if number else "") + line)
            file.write("]")
        else:
            file.writelines(line + "\n" for line in lines)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=[10_000])
    parser.add_argument("--pictures", type=int, help="number of pictures (default: one per record)")
    parser.add_argument("--places", nargs="+", default=["folder"],
                        choices=["folder", "zip", "tar.gz"])  # fmt: skip
    parser.add_argument("--forms", nargs="+", default=["jsonl"],
                        choices=["jsonl", "json", "parquet"])  # fmt: skip
    options = parser.parse_args()
    n_pictures = options.pictures or max(options.records)
    print(f"{'place':8}{'form':9}{'records':>9}{'pictures':>10}{'seconds':>9}{'records/s':>11}"
          f"{'imports MiB':>13}{'peak MiB':>10}")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in options.places:
            place = write_place(folder, kind, n_pictures)
            for form in options.forms:
                for count in options.records:
                    source = write_records(folder, form, count, n_pictures)
                    command = [sys.executable, "-c", CHILD, source, folder / "out", place]
                    result = subprocess.run(command, capture_output=True, text=True, check=True)
                    seconds, before, peak, read, kept, files = json.loads(result.stdout)
                    assert read == kept == count, result.stdout
                    assert files == min(count, n_pictures), result.stdout
                    print(f"{kind:8}{form:9}{count:9,}{files:10,}{seconds:9.1f}"
                          f"{count / seconds:11,.0f}{before:13.0f}{peak:10.0f}")  # fmt: skip
                    subprocess.run(["rm", "-rf", folder / "out", source], check=True)


if __name__ == "__main__":
    main()
