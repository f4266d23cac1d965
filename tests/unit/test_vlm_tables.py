"""VLMEvalKit's tables: read, checked, and fetched from a server."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.vlm import mathvision, tables
from dft_eval.vlm.tables import Published, Row, Table, fetch, read_table
from tests.support.openai_server import http_server
from tests.support.vlm_tables import mathvision_row, picture, write_table

COLUMNS = mathvision.TASK.columns


def read(folder: Path, rows: list[dict[str, Any]], limit: int | None = None) -> Table:
    write_table(folder / "MathVision.tsv", rows)
    return read_table(
        mathvision.TASK.tables, COLUMNS, data=folder, limit=limit, pictures=folder / "pictures"
    )


def test_rows_pictures_and_counts(tmp_path: Path) -> None:
    table = read(tmp_path, [mathvision_row(i, "8") for i in range(5)], limit=3)
    assert [row.id for row in table.rows] == ["0", "1", "2"]
    assert table.available == 5
    md5 = hashlib.md5((tmp_path / "MathVision.tsv").read_bytes()).hexdigest()
    assert table.source == f"MathVision.tsv: 5 rows, md5 {md5}, not the published file"
    (path,) = table.rows[1].pictures
    expected = base64.b64decode(picture(1))
    with Image.open(path) as ours:
        assert ours.size == (64, 48)
        (tmp_path / "expected.png").write_bytes(expected)
        with Image.open(tmp_path / "expected.png") as theirs:
            assert ours.tobytes() == theirs.tobytes()


def test_pictures_that_are_shared_or_several(tmp_path: Path) -> None:
    """A short cell names the row whose picture it shares; a list holds several."""
    rows = [mathvision_row(i, "8") for i in range(3)]
    rows[1]["image"] = "0"
    rows[2]["image"] = str([picture(7), picture(0)])
    first, second, third = read(tmp_path, rows).rows
    assert first.pictures == second.pictures
    assert len(third.pictures) == 2
    assert third.pictures[1] == first.pictures[0]


def test_the_published_file_is_known_by_its_hash(tmp_path: Path) -> None:
    write_table(tmp_path / "MathVision.tsv", [mathvision_row(1, "8")])
    md5 = hashlib.md5((tmp_path / "MathVision.tsv").read_bytes()).hexdigest()
    table = read_table(
        [replace(tables.MATHVISION, md5=md5)],
        COLUMNS,
        data=tmp_path,
        limit=None,
        pictures=tmp_path / "pictures",
    )
    assert table.source == "MathVision.tsv: 1 rows, as published"


def test_the_mini_table_is_taken_where_the_whole_is_not_there(tmp_path: Path) -> None:
    write_table(tmp_path / "MathVision_MINI.tsv", [mathvision_row(1, "8")])
    table = read_table(
        mathvision.TASK.tables, COLUMNS, data=tmp_path, limit=None, pictures=tmp_path / "pictures"
    )
    assert table.source.startswith("MathVision_MINI.tsv: 1 rows")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image": ""}, "row 1: there is no picture"),
        ({"image": "9"}, "row 1: there is no picture"),
        ({"image": "x" * 100}, "row 1: not a readable picture"),
        ({"image": base64.b64encode(b"no picture" * 20).decode()}, "row 1: not a readable picture"),
        ({"image": "[" + "1," * 50 + "x]"}, "row 1: no list of pictures"),
        ({"index": 0}, "index 0 stands there more than once"),
    ],
)
def test_malformed_rows_are_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    rows = [mathvision_row(0, "8"), {**mathvision_row(1, "8"), **change}]
    with pytest.raises(UsageError, match=named):
        read(tmp_path, rows)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no tab-separated table"),
        ("index\timage\n1\tx\n", "lacks the columns question, choices, answer, category"),
        ("index\timage\tquestion\tchoices\tanswer\tcategory\n", "holds no row"),
    ],
)
def test_malformed_tables_are_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "MathVision.tsv").write_text(text)
    with pytest.raises(UsageError, match=named):
        read_table(
            mathvision.TASK.tables, COLUMNS, data=tmp_path, limit=None, pictures=tmp_path / "p"
        )


def test_missing_tables_and_malformed_cells(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"MathVision\.tsv or MathVision_MINI\.tsv"):
        read_table(
            mathvision.TASK.tables, COLUMNS, data=tmp_path, limit=None, pictures=tmp_path / "p"
        )
    row = Row("7", {"choices": "A, B"}, ())
    with pytest.raises(UsageError, match="row 7: column 'choices' is no list"):
        tables.literal_list(row, "choices")
    with pytest.raises(UsageError, match="row 7: column 'answer' is empty"):
        row.text("answer")


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http_server(functools.partial(Quiet, directory=str(folder))) as url:
        yield url.removesuffix("/v1")


def test_a_table_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public, cache = tmp_path / "public", tmp_path / "cache"
    path = write_table(public / "X.tsv", [mathvision_row(1, "8")])
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setenv("LMUData", str(cache))
    with serving(public) as address:
        found = fetch(Published("X", 1, md5, f"{address}/X.tsv"))
        assert found.read_bytes() == path.read_bytes()
        with pytest.raises(PrerequisiteError, match=r"not the published file.*--data FOLDER"):
            fetch(Published("Y", 1, md5[::-1], f"{address}/X.tsv"))
        with pytest.raises(PrerequisiteError, match=r"404.*--data FOLDER"):
            fetch(Published("Z", 1, md5, f"{address}/Z.tsv"))
    assert fetch(Published("X", 1, md5, f"{address}/X.tsv")) == found  # the server is gone
    assert [each.name for each in cache.iterdir()] == ["X.tsv"]


def test_a_users_table_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VLMEvalKit downloads over it."""
    public, cache = tmp_path / "public", tmp_path / "cache"
    path = write_table(public / "X.tsv", [mathvision_row(1, "8")])
    own = write_table(cache / "X.tsv", [mathvision_row(2, "9")])
    before = own.read_bytes()
    monkeypatch.setenv("LMUData", str(cache))
    with serving(public) as address:
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        found = fetch(Published("X", 1, md5, f"{address}/X.tsv"))
    assert own.read_bytes() == before
    assert found.read_bytes() == path.read_bytes()
