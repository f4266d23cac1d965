"""``data prepare nq``: closed-book questions, each once, none that was excluded by name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from dft_eval.natural_questions.prompts import chat_prompt
from dft_factory.data.natural_questions import convert, question_key
from dft_factory.data.prepare import prepare
from dft_factory.data.records import Dropped
from dft_factory.data.report import OnceReport
from dft_factory.errors import ConfigError
from tests.support.jsonl import read_lines, write_lines


def row(question: object, *answers: object) -> dict[str, Any]:
    return {"question": question, "answer": list(answers)}


def test_target_and_field_names() -> None:
    """The target is the first answer; DPR names the field ``answers``."""
    assert convert(row("who was it ", " Lee", "Ann Lee")) == {
        "instruction": chat_prompt("who was it"),
        "input": "",
        "output": "Lee",
    }
    assert convert({"question": "q", "answers": ["x"], "positive_ctxs": []}) == convert(
        row("q", "x")
    )
    assert convert({"question": "q", "answer": None, "answers": ["x"]}) == convert(row("q", "x"))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"answer": ["x"]}, "missing question"),
        (row(None, "x"), "missing question"),
        (row(" \n", "x"), "empty question"),
        (row(" ?", "x"), "empty question"),
        ({"question": "q"}, "missing answer"),
        ({"question": "q", "answer": "x"}, "missing answer"),
        (row("q"), "no answer"),
        (row("q", None), "missing first answer"),
        (row("q", ["x"]), "missing first answer"),
        (row("q", " ", "x"), "empty first answer"),
        (row("q\ud800", "x"), "invalid Unicode"),
        (row("q", "\udfff"), "invalid Unicode"),
    ],
)
def test_dropped_with_a_reason(broken: dict[str, Any], reason: str) -> None:
    assert convert(broken) == Dropped(reason)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Who was it?", "who was it", True),
        ("who  was\tit", "who was it ?", True),
        ("victoria 's secret", "victoria's secret", True),
        ("cafe\u0301", "CAFÉ", True),
        ("who wrote c++", "who wrote c", False),
        ("who was it", "who was he", False),
        ("10.5 miles", "105 miles", False),
    ],
)
def test_when_two_questions_are_one(one: str, other: str, same: bool) -> None:
    assert (question_key(row(one)) == question_key(row(other))) == same


SOURCE = [
    row("who was it", "Ann", "Anna"),
    row("no answer here"),
    row("when was it", "1999"),
    row("Who was it ?", "Bea"),
    {"question": "x", "answer": "text"},
    row("where was it", "Oslo"),
    row("no answer here", "but here"),
]


def test_folder_and_report(tmp_path: Path) -> None:
    """A question is a duplicate only of one that was kept, not of one dropped for its answer."""
    source = write_lines(tmp_path / "in.jsonl", SOURCE)
    out = tmp_path / "out"
    report = prepare("nq", str(source), out)
    assert [(row["instruction"], row["output"]) for row in read_lines(out / "nq.jsonl")] == [
        (chat_prompt("who was it"), "Ann"),
        (chat_prompt("when was it"), "1999"),
        (chat_prompt("where was it"), "Oslo"),
        (chat_prompt("no answer here"), "but here"),
    ]
    written = json.loads((out / "report.json").read_text())
    assert written["dropped"] == {"duplicate question": 1, "missing answer": 1, "no answer": 1}
    assert written["exclude"] is None
    assert report == OnceReport.model_validate(written)
    prepare("nq", str(source), out)  # same settings: overwritten


def test_repetitions_do_not_count_towards_the_limit(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [row(f"q{i // 2}", f"a{i}") for i in range(20)])
    report = prepare("nq", str(source), tmp_path / "out", limit=4, seed=3)
    expected = [f"a{i}" for i in range(0, 20, 2)]
    random.Random(3).shuffle(expected)
    assert [r["output"] for r in read_lines(tmp_path / "out" / "nq.jsonl")] == expected[:4]
    assert (report.kept, report.dropped) == (10, {"duplicate question": 10})


# ---------------------------------------------------------------- what must not come in


def test_excluded_questions_never_come_in(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", SOURCE)
    dev = write_lines(tmp_path / "dev.jsonl", [row("WHO was it?", "x"), row("not there", "y")])
    out = tmp_path / "out"
    report = prepare("nq", str(source), out, exclude=str(dev))
    answers = [r["output"] for r in read_lines(out / "nq.jsonl")]
    assert answers == ["1999", "Oslo", "but here"]
    assert report.dropped == {"excluded question": 2, "missing answer": 1, "no answer": 1}
    assert json.loads((out / "report.json").read_text())["exclude"] == str(dev)
    with pytest.raises(ConfigError, match=r"other settings: exclude '.*dev.jsonl' there and None"):
        prepare("nq", str(source), out)


def test_the_published_questions_for_training(test_data: Path, tmp_path: Path) -> None:
    """All of DPR's 8,757 are kept; with the development set excluded as well, for none is in it."""
    folder = test_data / "natural_questions"
    dev, source = folder / "nq_open_dev.jsonl", folder / "dpr_nq_dev_8757.jsonl"
    report = prepare("nq", str(source), tmp_path / "out", exclude=str(dev))
    assert (report.read, report.kept, report.dropped) == (8757, 8757, {})
    with pytest.raises(ConfigError, match="3610 read; excluded question: 3610"):
        prepare("nq", str(dev), tmp_path / "none", exclude=str(dev))
