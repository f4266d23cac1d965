"""``data prepare`` of mathematics: converters, samples, no problem of an evaluation set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dft_factory.data.decontaminate import EvaluationProblems
from dft_factory.data.mathematics import convert_gsm8k, convert_openr1, convert_problem
from dft_factory.data.prepare import prepare
from dft_factory.data.records import Dropped
from dft_factory.data.report import ProblemReport
from dft_factory.errors import ConfigError
from tests.support.jsonl import read_lines, write_lines

AIME = (
    "The probability that the tray can be turned so that each cup lands on a blue saucer is m/n, "
    "where $m$ and $n$ are relatively prime positive integers. Find $m+n$."
)
OTHER_AIME = (
    "Ann folds a square of paper twice and cuts one corner. The area of what is left can be "
    "written as m/n, where $m$ and $n$ are relatively prime positive integers. Find $m+n$."
)


def problem(number: int, **fields: Any) -> dict[str, Any]:
    return {"problem": f"What is {number} + 1?", "solution": f"It is {number + 1}.", **fields}


# ---------------------------------------------------------------- records


def test_numinamath_is_kept_as_published() -> None:
    """No instruction is added to the problem, and ``messages`` are not used."""
    row = problem(1, problem=" Find $x$.\n", messages=[{"role": "user", "content": "other"}])
    expected = {"instruction": " Find $x$.\n", "input": "", "output": "It is 2."}
    assert convert_problem(row) == expected


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"solution": "x"}, "missing problem"),
        (problem(1, problem=None), "missing problem"),
        (problem(1, problem=" \n"), "empty problem"),
        (problem(1, solution=7), "missing solution"),
        (problem(1, solution=""), "empty solution"),
        (problem(1, solution="\ud800"), "invalid Unicode"),
    ],
)
def test_dropped_with_a_reason(broken: dict[str, Any], reason: str) -> None:
    assert convert_problem(broken) == Dropped(reason)


def openr1(generations: object, verdicts: object, complete: object = None) -> dict[str, Any]:
    verified = {"correctness_math_verify": verdicts, "is_reasoning_complete": complete}
    return {"problem": "p", "solution": "s", "generations": generations, **verified}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (openr1(["a", "b", "c"], [False, True, True]), "b"),
        (openr1(["a", "b"], [True, True], [False, True]), "b"),
        (openr1(["a", "b"], [True, False], [True]), "a"),
        (openr1(["a"], [False]), Dropped("no correct generation")),
        (openr1(["a"], ["true"]), Dropped("no correct generation")),
        (openr1([], []), Dropped("no correct generation")),
        (openr1(["a", "b"], [True]), Dropped("generations and verdicts differ in number")),
        (openr1(None, [True]), Dropped("missing generations or their verdicts")),
        (openr1(["a"], None), Dropped("missing generations or their verdicts")),
        (openr1([None], [True]), Dropped("missing solution")),
        (openr1([" "], [True]), Dropped("empty solution")),
    ],
)
def test_openr1_takes_the_first_correct_generation(row: dict[str, Any], expected: object) -> None:
    converted = convert_openr1(row)
    assert (converted if isinstance(converted, Dropped) else converted["output"]) == expected


WORKED = "He has 48/2 = $<<48/2=24>>24.\nTwice: <<24*2=48>>48.\n#### 1,048"


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "answer": WORKED},
        {"problem": "q", "solution": "He has 48/2 = $24.\nTwice: 48.", "answer": "1048"},
    ],
)  # fmt: skip
def test_gsm8k_ends_in_a_box_without_calculator_marks(row: dict[str, Any]) -> None:
    assert convert_gsm8k(row) == {
        "instruction": "q",
        "input": "",
        "output": "He has 48/2 = $24.\nTwice: 48.\nThe answer is $\\boxed{1048}$.",
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "q", "answer": "no mark"}, "no final answer"),
        ({"question": "q", "answer": "x\n#### "}, "no final answer"),
        ({"question": "q", "answer": "x\n#### 1\nand more"}, "no final answer"),
        ({"question": "q", "answer": "#### 1"}, "empty solution"),
        ({"question": "q"}, "missing solution"),
        ({"question": None, "answer": "x\n#### 1"}, "missing problem"),
        ({"problem": "q", "solution": "x"}, "no final answer"),
    ],
)
def test_gsm8k_dropped_with_a_reason(row: dict[str, Any], reason: str) -> None:
    assert convert_gsm8k(row) == Dropped(reason)


def test_the_published_training_set_of_gsm8k(test_data: Path, tmp_path: Path) -> None:
    """All 7,473 rows give a box and no mark. One problem is a test problem with other numbers, and
    one is nearly a MATH-500 problem."""
    folder = test_data / "mathematics"
    source = folder / "gsm8k_train.jsonl"
    report = prepare("gsm8k", str(source), tmp_path / "all")
    assert (report.read, report.kept) == (7473, 7473)
    text = (tmp_path / "all" / "gsm8k.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n")[:-1]]  # some texts hold U+2028
    assert all(row["output"].count("\\boxed{") == 1 for row in rows)
    assert not any("<<" in row["output"] for row in rows)
    guards = [str(folder / "gsm8k_test.jsonl")]
    report = prepare("gsm8k", str(source), tmp_path / "clean", decontaminate=guards)
    assert report.dropped == {"in evaluation set gsm8k_test.jsonl": 2}


# ---------------------------------------------------------------- samples


def test_first_keeps_the_first_kept_rows_and_reads_no_further(tmp_path: Path) -> None:
    rows = [problem(0), {"problem": "", "solution": "x"}, *(problem(i) for i in range(1, 9))]
    source = write_lines(tmp_path / "in.jsonl", rows)
    out = tmp_path / "out"
    report = prepare("numinamath", str(source), out, limit=3, sample="first")
    outputs = [row["output"] for row in read_lines(out / "numinamath.jsonl")]
    assert outputs == [f"It is {i + 1}." for i in range(3)]
    assert (report.read, report.kept, report.sampled) == (4, 3, 3)
    report_file = json.loads((out / "report.json").read_text())
    assert (report_file["sample"], report_file["limit"]) == ("first", 3)
    with pytest.raises(ConfigError, match=r"sample 'first' there and 'random' now"):
        prepare("numinamath", str(source), out, limit=3)
    prepare("numinamath", str(source), out, limit=3, seed=9, sample="first")  # the seed is unused
    default, random_sample = (
        prepare("numinamath", str(source), tmp_path / str(sample), limit=3, sample=sample)
        for sample in (None, "random")
    )
    assert (default.sha256, default.sample) == (random_sample.sha256, "random")
    assert default.sha256 != report.sha256


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("numinamath", {"sample": "last", "limit": 1}, "'last' is unknown. Choose from: first"),
        ("numinamath", {"sample": "first"}, "needs --limit"),
        ("wethink", {"sample": "first", "limit": 1}, "'wethink' takes 'random' only"),
    ],
)
def test_invalid_samples(name: str, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [problem(1)])
    with pytest.raises(ConfigError, match=f"^--sample: .*{message}"):
        prepare(name, str(source), tmp_path / "out", **settings)


# ---------------------------------------------------------------- decontamination


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        (AIME, True),
        (AIME.upper().replace("$", "").replace("M/N", "\\dfrac{m}{n}"), True),
        (f"Six cups stand on a tray. {AIME}", True),
        # A shared closing sentence, in a problem of 32 words.
        (OTHER_AIME, False),
        (AIME.replace("blue", "red").replace("relatively", "both"), False),
        # Shorter than an n-gram: equal as a whole, but for case and markup.
        ("compute  $\\left( 3 - \\tfrac{1}{2} \\right)$", True),
        ("Compute $(3 + \\frac{1}{2})$.", False),
        ("Compute $(3 - \\frac{1}{4})$.", False),
        ("", False),
    ],
)
def test_when_a_problem_is_in_an_evaluation_set(text: str, is_found: bool) -> None:
    problems = EvaluationProblems({"s": [AIME, "Compute $(3-\\frac{1}{2})$."]})
    assert problems.find(text) == ("s" if is_found else None)


def test_counted_by_set_and_recorded(tmp_path: Path) -> None:
    """A problem of both sets counts for the first; ``question`` is a problem too."""
    rows = [problem(1), problem(2, problem=AIME), problem(3, problem="What is 4 + 4 ?"), problem(5)]
    source = write_lines(tmp_path / "in.jsonl", rows)
    one = write_lines(tmp_path / "one.jsonl", [{"problem": AIME}, {"problem": "What is 4 + 4?"}])
    two = write_lines(tmp_path / "two.jsonl", [{"question": "what is 5+1"}, {"question": AIME}])
    out = tmp_path / "out"
    guards = [str(one), str(two)]
    report = prepare("numinamath", str(source), out, decontaminate=guards)
    assert report.dropped == {"in evaluation set one.jsonl": 2, "in evaluation set two.jsonl": 1}
    report_file = json.loads((out / "report.json").read_text())
    assert report_file["decontaminate"] == guards
    assert report == ProblemReport.model_validate(report_file)
    assert [row["output"] for row in read_lines(out / "numinamath.jsonl")] == ["It is 2."]
    with pytest.raises(ConfigError, match=r"other settings: decontaminate \[.*one.jsonl"):
        prepare("numinamath", str(source), out)
    prepare("numinamath", str(source), out, decontaminate=guards)  # overwritten


def test_two_guards_of_one_name_are_refused(tmp_path: Path) -> None:
    source = str(write_lines(tmp_path / "in.jsonl", [problem(1)]))
    with pytest.raises(ConfigError, match=r"two files are named 'in.jsonl'"):
        prepare("numinamath", source, tmp_path / "out", decontaminate=[source, source])
