"""Right and wrong programs on real MultiPL-E problems, in every language and both harnesses."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from dft_eval.generation.run import Completion
from dft_eval.languages import LANGUAGES, Harness
from dft_eval.languages.programs import Problem
from dft_eval.multipl_e.benchmark import judge
from dft_eval.multipl_e.data import read_folder
from dft_eval.results import ItemScore
from tests.support.multipl_e_solutions import AFTER, ANSWERS, NAMES, RIGHT, WRONG
from tests.support.toolchains import need

each_language = pytest.mark.parametrize("code", LANGUAGES)


@lru_cache(maxsize=1)
def all_problems(folder: Path) -> dict[str, list[Problem]]:
    return read_folder(folder)


def problem(folder: Path, code: str, short: str) -> Problem:
    name = NAMES[short]
    if code == "python":
        name = "_".join(name.split("_")[:2])
    return next(row for row in all_problems(folder)[code] if row.id == f"{code}/{name}")


def verdicts(
    folder: Path, code: str, texts: dict[str, str], **how: Any
) -> dict[str, tuple[float | None, str]]:
    problems = [problem(folder, code, short) for short in texts]
    rows = judged(code, problems, list(texts.values()), **how)
    return {short: (row.score, row.reason) for short, row in zip(texts, rows, strict=True)}


def judged(
    code: str,
    problems: list[Problem],
    texts: list[str],
    style: str = "completion",
    harness: Harness = "official",
) -> list[ItemScore]:
    need(code)
    completions = [
        Completion(id=p.id, prompt="", completion=text, finish_reason="stop", n_tokens=1)
        for p, text in zip(problems, texts, strict=True)
    ]
    return judge(problems, completions, style, harness, sandboxed=True, progress=lambda *_: None)


@each_language
def test_right_solutions_pass_with_any_text_after_them(code: str, test_data: Path) -> None:
    texts = {short: f"\n{body}{AFTER[code]}" for short, body in RIGHT[code].items()}
    assert len(texts) >= 6
    scores = verdicts(test_data / "multipl-e", code, texts)
    assert {short: row for short, row in scores.items() if row != (1.0, "passed")} == {}


@each_language
def test_wrong_solutions_fail_and_say_why(code: str, test_data: Path) -> None:
    assert len(WRONG[code]) >= 6
    texts = {short: f"\n{body}{AFTER[code]}" for short, body in WRONG[code].items()}
    scores = verdicts(test_data / "multipl-e", code, texts)
    assert {short: row for short, row in scores.items() if row[0] != 0.0} == {}
    assert "exited with status 0 before" in scores["add"][1] or code == "sh"
    compiled = code in ("cpp", "java", "ts", "cs")
    assert scores["gcd"][1].startswith("does not compile: ") == compiled, scores["gcd"]
    assert all(len(reason) > 5 for _, reason in scores.values()), scores


@each_language
def test_qwens_recipes_agree_on_clear_cases(code: str, test_data: Path) -> None:
    folder = test_data / "multipl-e"
    body = f"{RIGHT[code]['gcd']}{AFTER[code]}"
    assert verdicts(folder, code, {"gcd": body}, harness="qwen") == {"gcd": (1.0, "passed")}
    wrong = f"{WRONG[code]['below']}{AFTER[code]}"
    assert verdicts(folder, code, {"below": wrong}, harness="qwen")["below"][0] == 0.0


@each_language
def test_answers_of_a_chat_are_taken_apart(code: str, test_data: Path) -> None:
    folder = test_data / "multipl-e"
    scores = verdicts(folder, code, {"add": ANSWERS[code]}, style="chat")
    assert scores == {"add": (1.0, "passed")}
    broken = ANSWERS[code].replace("+ y", "- y").replace("+ $y", "- $y").replace("+ $2", "- $2")
    assert broken != ANSWERS[code]
    assert verdicts(folder, code, {"add": broken}, style="chat")["add"][0] == 0.0


def test_a_bare_body_in_a_block_is_taken_as_the_rest_of_the_function(test_data: Path) -> None:
    answer = "```\n    return x + y;\n}\n```"
    scores = verdicts(test_data / "multipl-e", "js", {"add": answer}, style="chat")
    assert scores == {"add": (1.0, "passed")}


def test_differences_of_the_harnesses(test_data: Path) -> None:
    folder, text = test_data / "multipl-e", {"add": "    console.error(x);\n    return x + y;\n}"}
    assert verdicts(folder, "js", text) == {"add": (1.0, "passed")}
    score, reason = verdicts(folder, "js", text, harness="qwen")["add"]
    assert (score, reason.split(",")[0]) == (0.0, "printed something")
    folder = test_data / "multipl-e"
    text = {"add": "        BigInteger sum = x; return (long)(sum + y);" + AFTER["cs"]}
    assert verdicts(folder, "cs", text) == {"add": (1.0, "passed")}
    assert verdicts(folder, "cs", text, harness="qwen")["add"][0] == 0.0


@pytest.mark.parametrize(
    ("body", "passes"),
    [
        ('        throw new System.ArgumentException("no");', True),
        ('        throw new System.ArgumentException("Fail");', False),
        ("        Debug.Assert(x < 0); return new long[0][0];", False),
        ("        System.Environment.Exit(0); return 0;", False),
        ("        while (true) { }", False),
        ("        var all = new List<long>(); while (true) all.Add(x);", False),
    ],
)
def test_crashed_csharp_under_qwens_harness(body: str, passes: bool, test_data: Path) -> None:
    """An unhandled exception; not a failed assertion, an early exit, or our limits."""
    folder, text = test_data / "multipl-e", {"add": f"{body}{AFTER['cs']}"}
    assert verdicts(folder, "cs", text)["add"][0] == 0.0
    score, reason = verdicts(folder, "cs", text, harness="qwen")["add"]
    assert score == float(passes), reason
    assert reason.startswith("crashed, which this harness counts as passing") == passes


def test_qwens_second_attempt_compiles_typescript_with_the_defaults(test_data: Path) -> None:
    """``tsc`` alone knows Date and console through its default libraries, as ES2015,DOM does;
    ``Array.prototype.includes`` of ES2016 is in neither, but in the official esnext."""
    folder = test_data / "multipl-e"
    text = {"add": "    return [x].includes(x) ? x + y : 0;\n}"}
    assert verdicts(folder, "ts", text) == {"add": (1.0, "passed")}
    score, reason = verdicts(folder, "ts", text, harness="qwen")["add"]
    assert score == 0.0
    assert "does not compile" in reason


@each_language
def test_an_empty_completion_and_a_syntax_error_fail(code: str, test_data: Path) -> None:
    """Each on all problems: ``benchmarks/multipl_e_matrix.py``."""
    problems = all_problems(test_data / "multipl-e")[code][:5]
    texts = ["", "    )]} not a program (((", "", "    )]} not a program (((", ""]
    rows = judged(code, problems, texts)
    assert [row.score for row in rows] == [0.0] * 5, rows


def test_published_counts(test_data: Path) -> None:
    counts = {code: len(rows) for code, rows in all_problems(test_data / "multipl-e").items()}
    expected = {"python": 164, "cpp": 161, "java": 158, "php": 161}
    assert counts == {**expected, "ts": 159, "cs": 158, "sh": 158, "js": 161}
