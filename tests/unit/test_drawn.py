"""Drawn pictures: their content, disjoint splits, and the tables' columns."""

from __future__ import annotations

import base64
import io
import itertools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dft_factory.data.drawn import KINDS, SIDE, Drawing, draw, drawings, split_of, write_records
from dft_factory.data.drawn_tables import STEPS, VERSIONS, write_tables
from dft_factory.data.prepare import prepare
from dft_factory.data.wethink import convert
from dft_factory.errors import ConfigError


def first(count: int, split: Any = "train", seed: int = 0) -> list[Drawing]:
    return list(itertools.islice(drawings(split, seed), count))


def patches(picture: Image.Image) -> int:
    """Number of connected patches that are not white."""
    dark = {i for i, grey in enumerate(picture.convert("L").tobytes()) if grey < 255}
    around = (-SIDE - 1, -SIDE, -SIDE + 1, -1, 1, SIDE - 1, SIDE, SIDE + 1)
    count = 0
    while dark:
        count += 1
        edge = [dark.pop()]
        while edge:
            here = edge.pop()
            near = dark.intersection(here + step for step in around)
            dark -= near
            edge += near
    return count


def heights(picture: Image.Image) -> list[int]:
    """Dark pixels in the middle column of each of the four bars."""
    grey = picture.convert("L").tobytes()
    columns = [8 + 26 * number + 8 for number in range(4)]
    return [sum(value < 255 for value in grey[x::SIDE]) for x in columns]


def test_pictures_show_their_answers() -> None:
    """Counted and measured in the pixels."""
    for drawing in first(64):
        if drawing.kind.name == "counts":
            assert patches(drawing.picture) == drawing.answer + 1
        else:
            assert patches(drawing.picture) == (4 if drawing.kind.name == "bars" else 1)
        if drawing.kind.name == "bars":
            bars = heights(drawing.picture)
            assert bars.index(max(bars)) == drawing.answer
            assert sorted(bars)[-1] - sorted(bars)[-2] >= 14
    # Share of the bounding box: circle pi/4, upright square 1, triangle 1/2, star about 0.35.
    for answer, share in enumerate((0.785, 1.0, 0.5, 0.35)):
        for seed in range(5):
            picture = draw(KINDS[0], answer, random.Random(seed)).picture
            dark = picture.convert("L").point(lambda value: 255 * (value < 255))
            left, top, right, bottom = dark.getbbox() or (0, 0, 1, 1)
            count = dark.histogram()[255]
            assert count / ((right - left) * (bottom - top)) == pytest.approx(share, abs=0.07)


def test_answers_are_balanced_and_pictures_seeded() -> None:
    counts = Counter((d.kind.name, d.answer) for d in first(160))
    assert set(counts.values()) == {10}
    assert len(counts) == 16

    def pngs(seed: int) -> list[bytes]:
        return [d.png() for d in first(20, seed=seed)]

    assert pngs(1) == pngs(1)
    assert pngs(1) != pngs(2)


def test_splits_are_disjoint() -> None:
    """The split follows from a picture's pixels."""
    train, held_out = (
        {d.picture.tobytes() for seed in (0, 1) for d in first(100, split, seed)}
        for split in ("train", "held-out")
    )
    assert not train & held_out
    assert all(split_of(d.picture) == "held-out" for d in first(50, "held-out", 5))
    assert len({d.picture.tobytes() for d in first(150)}) == 150


def test_records_go_through_the_converter(tmp_path: Path) -> None:
    source = write_records(tmp_path / "drawn", 32, seed=0)
    report = prepare("wethink", str(source), tmp_path / "out")
    assert (report.kept, report.dropped) == (32, {})
    rows = [json.loads(line) for line in (tmp_path / "out/wethink.jsonl").read_text().splitlines()]
    for drawing, row in zip(first(32), rows, strict=True):
        assert (tmp_path / "out" / row["images"][0]).read_bytes() == drawing.png()
        user, assistant = (turn["content"] for turn in row["messages"])
        assert user == f"<image>{drawing.kind.lettered}".strip()
        assert assistant.endswith(f"<answer> {drawing.letter} </answer>")
        assert drawing.word in assistant
        assert f"{drawing.letter}. {drawing.word}\n" in f"{user}\n"
    assert convert(json.loads(source.read_text().splitlines()[0])).notes == ()  # type: ignore[union-attr]


def read_table(path: Path) -> list[dict[str, Any]]:
    import pandas

    rows = pandas.read_csv(path, sep="\t").to_dict("records")
    return [{k: v for k, v in row.items() if v == v} for row in rows]


def picture_of(row: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(row["image"]))).convert("RGB")


def test_tables(tmp_path: Path) -> None:
    """Columns as in VLMEvalKit; answers and options agree with the pictures."""
    mathverse, mathvision, wemath = map(read_table, write_tables(tmp_path / "a", 40, seed=0))
    assert set(mathverse[0]) == {
        "index", "image", "problem_index", "problem_version", "question", "answer",
        "question_type", "metadata", "query_wo", "query_cot", "question_for_eval",
    }  # fmt: skip
    assert Counter(row["problem_version"] for row in mathverse) == dict.fromkeys(VERSIONS, 8)
    assert set(mathvision[0]) == {
        "index", "image", "question", "choices", "answer", "category", "level"
    }  # fmt: skip
    assert set(wemath[0]) == {
        "index", "ID", "split", "key", "question", "A", "B", "C", "D", "answer",
        "knowledge concept", "image",
    }  # fmt: skip
    by_problem: dict[int, list[str]] = {}
    for row in wemath:
        by_problem.setdefault(row["ID"], []).append(row["key"])
    assert sorted(map(tuple, by_problem.values())) == sorted([STEPS[2]] * 6 + [STEPS[3]] * 5)
    counts = 0
    for row in wemath:
        if row["knowledge concept"] == "counts":
            word = row[row["answer"]]
            assert ("one", "two", "three", "four")[patches(picture_of(row)) - 1] == word
            counts += 1
    assert counts
    pictures = [picture_of(row).tobytes() for t in (mathverse, mathvision, wemath) for row in t]
    assert len(set(pictures)) == len(pictures)
    assert {split_of(picture_of(row)) for row in mathverse} == {"held-out"}


def test_blank_tables_differ_only_in_the_pictures(tmp_path: Path) -> None:
    tables = write_tables(tmp_path / "a", 20, seed=0)
    blanks = write_tables(tmp_path / "b", 20, seed=0, blank=True)
    for drawn, blank in zip(tables, blanks, strict=True):
        assert drawn.name == blank.name
        for row, blank_row in zip(read_table(drawn), read_table(blank), strict=True):
            assert picture_of(blank_row).getextrema() == ((255, 255),) * 3
            assert picture_of(blank_row).size == picture_of(row).size
            assert row["image"] != blank_row["image"]
            assert {**row, "image": ""} == {**blank_row, "image": ""}


def test_tables_through_vlmevalkits_reader(tmp_path: Path) -> None:
    """By our reader of VLMEvalKit's tables."""
    from dft_eval.vlm import tables

    write_tables(tmp_path / "a", 20, seed=0)
    for published in (tables.MATHVERSE_MINI, tables.MATHVISION_MINI, tables.WEMATH):
        places: Any = {"data": tmp_path / "a", "pictures": tmp_path / "p", "limit": None}
        table = tables.read_table([published], ["question", "answer"], **places)
        assert 17 <= len(table.rows) <= 20


def test_the_small_model_needs_few_tokens(tmp_path: Path) -> None:
    """A tokenizer trained on the texts needs less than two thirds of the tokens."""
    from transformers import AutoProcessor

    from dft_factory.data.drawn import texts
    from dft_factory.tiny import make_tiny

    stock = make_tiny("qwen2.5-vl", tmp_path / "plain", size="small")
    fitted = make_tiny("qwen2.5-vl", tmp_path / "fitted", size="small", corpus=texts() * 3)
    lengths = [
        sum(len(AutoProcessor.from_pretrained(p).tokenizer.encode(text)) for text in texts())
        for p in (stock, fitted)
    ]
    assert lengths[1] < lengths[0] * 2 / 3
    with pytest.raises(ConfigError, match=r"size: 'huge' is unknown. Choose from: tiny, small"):
        make_tiny("qwen2.5-vl", tmp_path / "x", size="huge")
