"""``data prepare nq``: closed-book questions, each once, none that was excluded by name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft_eval.natural_questions.prompts import chat_prompt
from dft_factory.data.natural_questions import convert, question_key
from dft_factory.data.prepare import prepare
from dft_factory.data.records import Dropped
from dft_factory.data.report import OnceReport
from dft_factory.errors import ConfigError
from tests.unit.test_data_prepare import (
    as_folder,
    as_gzip,
    as_list,
    as_parquet,
    read_lines,
    write_lines,
)


def row(question: object, *answers: object) -> dict[str, Any]:
    return {"question": question, "answer": list(answers)}


def test_the_first_answer_is_the_target() -> None:
    assert convert(row("who was it ", " Lee", "Ann Lee")) == {
        "instruction": chat_prompt("who was it"),
        "input": "",
        "output": "Lee",
    }


def test_dprs_other_field_name() -> None:
    assert convert({"question": "q", "answers": ["x"], "positive_ctxs": []}) == convert(
        row("q", "x")
    )
    assert convert({"question": "q", "answer": None, "answers": ["x"]}) == convert(row("q", "x"))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("text", "record is not an object"),
        ([1], "record is not an object"),
        ({"answer": ["x"]}, "missing question"),
        (row(None, "x"), "missing question"),
        (row(" \n", "x"), "empty question"),
        (row(" ?", "x"), "empty question"),
        ({"question": "q"}, "missing answer"),
        ({"question": "q", "answer": "x"}, "missing answer"),
        (row("q"), "no answer"),
        (row("q", None), "malformed answer"),
        (row("q", ["x"]), "malformed answer"),
        (row("q", " ", "x"), "empty first answer"),
        (row("q\ud800", "x"), "invalid Unicode"),
        (row("q", "\udfff"), "invalid Unicode"),
    ],
)
def test_dropped_with_a_reason(broken: object, reason: str) -> None:
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


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(JSON | st.dictionaries(st.sampled_from(["question", "answer", "answers", "x"]), JSON))
def test_no_json_value_raises(value: object) -> None:
    converted = convert(value)
    if not isinstance(converted, Dropped):
        assert converted["output"].strip()
        assert question_key(value)


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
    """Seven records and a line that is none: four kept, the fourth a repetition of the first. A
    question counts as seen when it was kept, not when it was dropped for want of an answer."""
    source = write_lines(tmp_path / "in.jsonl", SOURCE)
    source.write_text(source.read_text() + "{\n")
    out = tmp_path / "out"
    report = prepare("nq", str(source), out)
    kept = [
        ("who was it", "Ann"), ("when was it", "1999"), ("where was it", "Oslo"),
        ("no answer here", "but here"),
    ]  # fmt: skip
    assert read_lines(out / "nq.jsonl") == [
        {"instruction": chat_prompt(question), "input": "", "output": answer}
        for question, answer in kept
    ]
    assert json.loads((out / "dataset_info.json").read_text()) == {
        "nq": {
            "file_name": "nq.jsonl",
            "columns": {"prompt": "instruction", "query": "input", "response": "output"},
        }
    }
    written = json.loads((out / "report.json").read_text())
    assert (written["read"], written["kept"], written["sampled"]) == (8, 4, 4)
    assert written["dropped"] == {
        "duplicate question": 1,
        "malformed JSON": 1,
        "missing answer": 1,
        "no answer": 1,
    }
    assert written["exclude"] is None
    assert report == OnceReport.model_validate(written)
    prepare("nq", str(source), out)  # the same settings: made anew


@pytest.mark.parametrize("write", [as_gzip, as_list, as_parquet, as_folder])
def test_every_kind_of_source(write: Any, tmp_path: Path) -> None:
    source = write(tmp_path, [row(f"q{i}", f"a{i}", "b") for i in range(7)])
    prepare("nq", str(source), tmp_path / "out")
    answers = [r["output"] for r in read_lines(tmp_path / "out" / "nq.jsonl")]
    assert answers == [f"a{i}" for i in range(7)]


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no record"),
        ('{"question": "q"}\n{"answer": ["x"]}\n', "record 2 has no question"),
        ("{\n", "record 1 has no question"),
    ],
)
def test_a_guard_with_a_hole_is_refused(content: str, message: str, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", SOURCE)
    dev = tmp_path / "dev.jsonl"
    dev.write_text(content)
    with pytest.raises(ConfigError, match=f"^--exclude: .*{message}"):
        prepare("nq", str(source), tmp_path / "out", exclude=str(dev))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("exclude", ["no/such/file.jsonl", "org/name", "", "x.txt"])
def test_a_guard_that_is_not_there_is_refused(exclude: str, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", SOURCE)
    with pytest.raises(ConfigError, match=r"^--exclude: .* does not exist"):
        prepare("nq", str(source), tmp_path / "out", exclude=exclude)


@pytest.mark.parametrize("name", ["ultrafeedback", "wethink"])
def test_sets_without_identity_take_no_guard(name: str, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", SOURCE)
    with pytest.raises(ConfigError, match=f"--exclude: .*{name!r} does not take it"):
        prepare(name, str(source), tmp_path / "out", exclude=str(source))


def test_the_published_questions_for_training(test_data: Path, tmp_path: Path) -> None:
    """All of DPR's 8,757 are kept; with the development set excluded as well, for none is in it."""
    folder = test_data / "natural_questions"
    dev, source = folder / "nq_open_dev.jsonl", folder / "dpr_nq_dev_8757.jsonl"
    report = prepare("nq", str(source), tmp_path / "out", exclude=str(dev))
    assert (report.read, report.kept, report.dropped) == (8757, 8757, {})
    with pytest.raises(ConfigError, match="3610 read; excluded question: 3610"):
        prepare("nq", str(dev), tmp_path / "none", exclude=str(dev))
