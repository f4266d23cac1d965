"""The three benchmarks on answers written by hand, with exact scores derived by hand."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dft_eval.benchmark import Benchmark, JudgeChoice
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.generation.run import Decoding
from dft_eval.results import BenchmarkResult, read_items
from dft_eval.statistics import mean_and_stderr
from dft_eval.vlm.mathverse import MATHVERSE, options
from dft_eval.vlm.mathvision import MATHVISION
from dft_eval.vlm.tables import Row
from dft_eval.vlm.wemath import WEMATH
from tests.support.judge_server import Answer, JudgeServer, good_judge, judge_server
from tests.support.vlm_tables import VERSIONS, mathverse_row, mathvision_row, wemath_problem
from tests.support.written import run


def scores(folder: Path, result: BenchmarkResult) -> list[float | None]:
    return [item.score for item in read_items(folder / "out" / result.items)]


RULES = JudgeChoice("rules")
LETTERS = list("ABCDE")
VALUES = ["12", "14", "\\frac{1}{2}"]
MATHVISION_CASES: list[tuple[str, list[str], str, float]] = [
    # the right answer, the options, the model's answer, its score by rules
    ("8", [], "8", 1),
    ("8", [], "So there are 8 of them.", 1),
    ("8", [], "<think>9?</think> <answer>8</answer>", 1),
    ("0.5", [], "\\boxed{\\frac{1}{2}}", 1),
    ("8", [], "\\boxed{9}", 0),
    ("8", [], "", 0),
    ("8", [], "=1+7", 1),
    ("8", [], "x" * 40_000 + "\nAnswer: 8", 1),
    ("B", LETTERS, "<answer>B</answer>", 1),
    ("B", LETTERS, "\\boxed{B}", 1),
    ("B", LETTERS, "**Answer:** B", 1),
    ("B", LETTERS, "Based on the picture", 0),
    ("A", LETTERS, "", 0),
    ("A", LETTERS, "nan", 0),
    ("B", VALUES, "The answer is 14", 1),
    ("C", VALUES, "\\boxed{0.5}", 1),
    ("C", VALUES, "(A) 12", 0),
]


def test_mathvision_by_rules(tmp_path: Path) -> None:
    """11 of 17 right; even rows are of one subject, odd rows of the other."""
    cases = enumerate(MATHVISION_CASES)
    rows = [mathvision_row(i, gold, options) for i, (gold, options, _, _) in cases]
    answers = [answer for *_, answer, _ in MATHVISION_CASES]
    result = run(MATHVISION, tmp_path, rows, answers, judge=RULES)
    assert scores(tmp_path, result) == [score for *_, score in MATHVISION_CASES]
    assert result.score == 11 / 17
    assert result.stderr == pytest.approx(math.sqrt(11 / 17 * 6 / 17 / 16))
    assert result.breakdown == {"algebra": 6 / 9, "counting": 5 / 8}
    assert result.metric == "accuracy"
    assert (result.n_total, result.n_scored) == (17, 17)
    assert "partial: 17 of 3040" in result.notes
    assert result.judge is not None
    assert result.judge.startswith("rules")


def mathverse_rows() -> list[dict[str, Any]]:
    """Four problems in five versions: two with options, two with free answers."""
    kinds = [("B", "A:40°\nB:60°\nC:120°"), ("A", "A:1\nB:2"), ("12",), ("5m",)]
    return [
        mathverse_row(5 * problem + i, version, *kind)
        for problem, kind in enumerate(kinds)
        for i, version in enumerate(VERSIONS)
    ]


RIGHT = ["\\boxed{B}", "Answer: A", "The area is 12", "<answer>5m</answer>"]
WRONG = ["\\boxed{A}", "Answer: B", "The area is 13", "<answer>6m</answer>"]


def mathverse_answers() -> list[str]:
    """Four right answers in the first version, then three, two, one, none."""
    return [(RIGHT if n < 4 - i else WRONG)[n] for n in range(4) for i in range(5)]


MATHVERSE_BREAKDOWN = {name.lower().replace(" ", "_"): 1 - i / 4 for i, name in enumerate(VERSIONS)}


def test_mathverse_by_rules(tmp_path: Path) -> None:
    """Overall is over all five versions: 10 of 20."""
    result = run(MATHVERSE, tmp_path, mathverse_rows(), mathverse_answers(), judge=RULES)
    assert result.score == 0.5
    assert result.breakdown == MATHVERSE_BREAKDOWN
    items = read_items(tmp_path / "out" / result.items)
    assert result.cluster == "problem_index"
    assert [item.cluster for item in items] == [str(n // 5) for n in range(20)]
    assert {item.category for item in items} == set(MATHVERSE_BREAKDOWN)
    by_problem = mean_and_stderr([item.score or 0.0 for item in items], [n // 5 for n in range(20)])
    assert result.stderr == pytest.approx(by_problem[1])
    assert "partial: 20 of 3940" in result.notes


def test_mathverse_accepts_an_option_by_its_text(tmp_path: Path) -> None:
    rows = mathverse_rows()[:2]
    result = run(MATHVERSE, tmp_path, rows, ["\\boxed{60^\\circ}", "120°"], judge=RULES)
    assert scores(tmp_path, result) == [1.0, 0.0]


RIGHT_WRONG = {"r": "<Thought process>: <<A, C>> <Answer>: <<B>>", "w": "A"}
PATTERNS = ["rrr", "rwr", "wwr", "rrw", "wrw", "rrrr", "rwrr", "wwwr", "rrrw", "wwww"]
"""Steps, then the full question, of ten problems."""


def wemath_rows(patterns: Sequence[str]) -> list[dict[str, Any]]:
    return [
        row
        for id, pattern in enumerate(patterns)
        for row in wemath_problem(10 * id, id, "B" * len(pattern))
    ]


def wemath_answers(patterns: Sequence[str]) -> list[str]:
    return [RIGHT_WRONG[letter] for pattern in patterns for letter in pattern]


def run_wemath(folder: Path, patterns: Sequence[str], **changes: Any) -> BenchmarkResult:
    return run(WEMATH, folder, wemath_rows(patterns), wemath_answers(patterns), **changes)


def test_wemath(tmp_path: Path) -> None:
    """Strict: CM rrr rrrr; RM rwr wwr rwrr wwwr; IG rrw rrrw; IK wrw wwww.

    Loose: one right step is enough, so rwr and rwrr are CM. Score = (CM + IG / 2) / 10.
    """
    result = run_wemath(tmp_path, PATTERNS)
    assert result.metric == "strict"
    assert result.score == pytest.approx((2 + 1) / 10)
    points = [1, 1, 0.5, 0.5] + [0] * 6
    spread = sum((x - 0.3) ** 2 for x in points) / 9
    assert result.stderr == pytest.approx(math.sqrt(spread / 10))
    strict = {"IK_strict": 0.2, "IG_strict": 0.2, "CM_strict": 0.2, "RM_strict": 4 / 6}
    loose = {"loose": (4 + 1) / 10, "IK_loose": 0.2, "IG_loose": 0.2}
    loose |= {"CM_loose": 0.4, "RM_loose": 2 / 6}
    steps = {"one_step": (2 + 1 + 0 + 2 + 1 + 3 + 2 + 0 + 3 + 0) / 25}
    steps |= {"two_step": 3 / 5, "three_step": 3 / 5}
    assert result.breakdown == pytest.approx({**strict, **loose, **steps})
    assert (result.n_total, result.n_scored) == (35, 35)
    assert scores(tmp_path, result) == [float(c == "r") for p in PATTERNS for c in p]
    assert result.judge is not None
    assert result.judge.startswith("rules")
    assert "partial: 35 of 1740" in result.notes
    assert "problems: 10 of 525" in result.notes
    by_problem = (tmp_path / "out" / "wemath.chat.problems.jsonl").read_text().splitlines()
    assert [json.loads(line)["score"] for line in by_problem] == [1, 0, 0, 0.5, 0, 1, 0, 0, 0.5, 0]
    items = read_items(tmp_path / "out" / result.items)
    sizes = [sum(item.cluster == json.loads(line)["id"] for item in items) for line in by_problem]
    assert sizes == [len(pattern) for pattern in PATTERNS]
    assert items[0].category == "2steps_1"
    assert (tmp_path / "out" / items[0].pictures[0]).is_file()


def test_wemath_leaves_out_problems_with_missing_rows(tmp_path: Path) -> None:
    """VLMEvalKit counts them as mastered, and divides by 525."""
    rows = wemath_rows(["rrr", "www", "rrrr"])[:-1]
    answers = wemath_answers(["rrr", "www", "rrrr"])[:-1]
    result = run(WEMATH, tmp_path, rows, answers)
    assert result.score == 0.5
    assert result.n_total == 9
    assert "1 problems left out: rows missing or unscored" in result.notes


def test_wemath_without_a_solved_problem(tmp_path: Path) -> None:
    """VLMEvalKit divides by zero."""
    result = run_wemath(tmp_path, ["rrw", "www"])
    assert result.score == 0.25
    assert result.breakdown["RM_strict"] is None


def test_a_missing_answer_is_unscored(tmp_path: Path) -> None:
    answers: list[str | None] = list(wemath_answers(["rrr", "rrr"]))
    answers[0] = None
    result = run(WEMATH, tmp_path, wemath_rows(["rrr", "rrr"]), answers)
    assert (result.n_total, result.n_scored) == (6, 5)
    assert result.score == 1.0
    assert "1 problems left out: rows missing or unscored" in result.notes


def judge_at(server: JudgeServer) -> JudgeChoice:
    return JudgeChoice("openai", "judge-model", server.url)


def test_wemath_with_a_judge(tmp_path: Path) -> None:
    """A plain letter needs no judge; a reply without an option leaves its item unscored."""
    answers = ["It is sixty-five degrees.", "B", "Forty of them.", "", "No idea.", "A"]

    def behave(prompt: str, number: int) -> Answer:
        return Answer("I cannot say") if "No idea." in prompt else good_judge(prompt, number)

    with judge_server(behave) as server:
        result = run(WEMATH, tmp_path, wemath_rows(["rrr", "rrr"]), answers, judge=judge_at(server))
    assert scores(tmp_path, result) == [1.0, 1.0, 0.0, 0.0, None, 0.0]
    assert result.score == 0.5  # the first problem: both steps right, the full question wrong
    assert result.judge is not None
    assert result.judge.startswith(f"openai: judge-model at {server.url}")
    assert len(set(server.judged)) == 3


def test_mathverse_with_a_judge_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items without a verdict are unscored; the next run judges only these, a third none."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    rows, answers = mathverse_rows(), [text or "nothing" for text in mathverse_answers()]
    answers[19] = ""
    failing = [True]

    def behave(prompt: str, number: int) -> Answer:
        if failing[0] and number > 12 and prompt != "hello":
            return Answer(status=500, raw="{}")
        return good_judge(prompt.replace("</answer>", ""), 0)

    with judge_server(behave) as server:
        first_run = run(MATHVERSE, tmp_path, rows, answers, judge=judge_at(server))
        assert first_run.n_total == 20
        assert first_run.n_scored < 20
        judged = scores(tmp_path, first_run)
        assert judged[19] == 0.0  # the empty answer needs no judge
        failing[0] = False
        judged_before = set(server.judged[:11])
        before = len(server.prompts)
        second_run = run(MATHVERSE, tmp_path, rows, answers, judge=judge_at(server))
        assert second_run.n_scored == 20
        assert not judged_before & set(server.prompts[before + 1 :])
        pairs = zip(judged, scores(tmp_path, second_run), strict=True)
        assert all(later == earlier for earlier, later in pairs if earlier is not None)
        before = len(server.prompts)
        assert run(MATHVERSE, tmp_path, rows, answers, judge=judge_at(server)) == second_run
        assert server.prompts[before:] == ["hello"]
    assert second_run.judge == (
        f"openai: judge-model at {server.url} (temperature 0, max_tokens 128), "
        f"prompts of VLMEvalKit {importlib.metadata.version('ms-vlmeval')}"
    )


@pytest.mark.parametrize("benchmark", [MATHVERSE, MATHVISION])
def test_no_judge_names_both_choices(benchmark: Benchmark, tmp_path: Path) -> None:
    rows = mathverse_rows()[:1] if benchmark is MATHVERSE else [mathvision_row(0, "8")]
    with pytest.raises(UsageError, match=r"--judge openai.*--judge rules"):
        run(benchmark, tmp_path, rows, ["8"])


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where it is needed: rules use no judge."""
    monkeypatch.setattr("dft_eval.vlm.run.is_installed", lambda package: package != "ms-vlmeval")
    rows = [mathvision_row(0, "8")]
    assert run(MATHVISION, tmp_path, rows, ["8"], judge=RULES).score == 1.0
    with pytest.raises(PrerequisiteError, match="ms-vlmeval"):
        run(MATHVISION, tmp_path, rows, ["8"], judge=JudgeChoice("openai", "m"))
    (row,) = MATHVISION.missing()
    assert "ms-vlmeval" in row.name
    assert not row.blocks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_style": "completion"}, "chat"),
        ({"min_pixels": 500, "max_pixels": 400}, "--min-pixels 500 --max-pixels 400"),
        ({"min_pixels": 0}, "--min-pixels 0"),
        ({"decoding": Decoding(temperature=0.5)}, "--temperature 0.5"),
    ],
)
def test_invalid_settings(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        run_wemath(tmp_path, ["rrr"], **changes)


def test_a_judge_that_is_down_stops_before_generation(tmp_path: Path) -> None:
    with (
        judge_server(lambda p, n: Answer(status=404, raw="{}")) as server,
        pytest.raises(PrerequisiteError, match="does not work"),
    ):
        run(MATHVISION, tmp_path, [mathvision_row(0, "8")], ["8"], judge=judge_at(server))
    assert not list((tmp_path / "out").glob("*.completions.jsonl"))


def test_every_setting_is_recorded(tmp_path: Path) -> None:
    result = run_wemath(tmp_path, ["rrr"], max_pixels=2_000_000)
    assert result.decoding["strategy"] == "greedy"
    assert result.decoding["min_pixels"] == 1280 * 28 * 28
    assert result.decoding["max_pixels"] == 2_000_000
    assert "VLMEvalKit 0.0.20" in result.harness
    assert any("image_max_pixels 262144" in note for note in result.notes)
    assert any(note.startswith("WeMath.tsv: 3 rows, md5 ") for note in result.notes)


def test_choices_of_published_mathverse_questions(test_data: Path) -> None:
    """All 60: consecutive letters, each with a text, the right answer among them."""
    file = test_data / "mathverse" / "testmini_text_only_sample.json"
    items = json.loads(file.read_text(encoding="utf-8"))
    for item in items:
        cells = {**item, "question_for_eval": item["question"]}
        choices = options(Row(item["sample_index"], cells, ()))
        assert list(choices) == list("ABCDEFG"[: len(choices)])
        assert all(choices.values())
        assert item["answer"] in choices
    assert len(items) == 60


def test_unlisted_choices_have_only_letters() -> None:
    cells = {"question_type": "multi-choice", "answer": "E", "question_for_eval": "Which one?"}
    assert options(Row("1", cells, ())) == dict.fromkeys("ABCDE", "")


@pytest.mark.parametrize(
    ("benchmark", "change", "message"),
    [
        (WEMATH, {"key": "4steps_1"}, "none of 2steps_1"),
        (WEMATH, {"key": "2steps_3"}, "none of 2steps_1"),
        (WEMATH, {"key": "2steps_2"}, "has 2steps_2 already"),
        (WEMATH, {"answer": ""}, "column 'answer' is empty"),
        (WEMATH, {"answer": "G"}, "none of its options"),
        (MATHVISION, {"answer": "F"}, "none of its options"),
        (MATHVISION, {"choices": "A, B"}, "is no list"),
        (MATHVISION, {"category": ""}, "column 'category' is empty"),
        (MATHVERSE, {"problem_version": "Text Only"}, "none of Vision Only"),
        (MATHVERSE, {"question_type": "essay"}, "none of multi-choice, free-form"),
        (MATHVERSE, {"answer": "12"}, "is no letter"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_bad_rows(
    benchmark: Benchmark, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Before anything is generated."""
    rows = {
        "wemath": wemath_rows(["rrr"]),
        "mathvision": [mathvision_row(0, "A", LETTERS), mathvision_row(1, "8")],
        "mathverse": mathverse_rows()[:1],
    }[benchmark.name]
    rows[0].update(change)
    with pytest.raises(UsageError, match=message):
        run(benchmark, tmp_path, rows, ["A"] * len(rows), judge=RULES)
    assert not list((tmp_path / "out").glob("*.completions.jsonl"))
