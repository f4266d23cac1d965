"""Problems in HumanEval's format; python-basics on right, wrong and cheating programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dft_eval.benchmark import PromptStyle, Request
from dft_eval.code_problems import CodeProblem, read_problems
from dft_eval.generation.run import Completion
from dft_eval.python_programs import PYTHON_BASICS, human_eval, python_basics
from dft_eval.results import BenchmarkResult, ItemScore, read_items
from tests.support.jsonl import write_lines

PROBLEM = CodeProblem(
    task_id="T/0",
    prompt="from typing import List\n\ndef one() -> int:\n    return 1\n\n\n"
    'def total(xs: List[int]) -> int:\n    """Sum."""\n',
    entry_point="total",
    canonical_solution="    return sum(xs)\n",
    test="def check(candidate):\n    assert candidate([1, 2]) == 3\n",
)


Scored = tuple[BenchmarkResult, list[ItemScore]]


def verdicts(
    texts: list[str],
    style: PromptStyle,
    folder: Path,
    problems: Sequence[CodeProblem] = (),
    reason: str = "stop",
) -> Scored:
    """The result and items of python-basics for one completion per problem."""
    rows = [problem.model_dump() for problem in problems]
    path = write_lines(folder / "problems.jsonl", rows) if rows else None
    request = Request(model="m", out=folder, label="base", prompt_style=style, data=path)
    data = PYTHON_BASICS.load(PYTHON_BASICS, request)
    score = PYTHON_BASICS.scorer(PYTHON_BASICS, request, data)
    (part,) = PYTHON_BASICS.parts(PYTHON_BASICS, request, data)
    end: dict[str, Any] = {"finish_reason": reason, "n_tokens": 1}
    rows = [
        Completion(id=prompt.id, prompt=prompt.text, completion=text, **end)
        for prompt, text in zip(part.prompts, texts, strict=True)
    ]
    result = score([rows])
    return result, read_items(folder / result.items)


@pytest.mark.parametrize(
    ("text", "style", "score"),
    [
        ("    return sum(xs)", "completion", 1.0),
        ("    return max(xs)", "completion", 0.0),
        ("", "completion", 0.0),
        ("def total(xs):\n    return sum(xs)\n```\nThis is wrong text", "chat", 1.0),
        ("```python\ndef total(xs):\n    return sum(xs)\n```", "chat", 1.0),
        ("def sum_up(xs):\n    return sum(xs)", "chat", 0.0),
        ("I cannot do that.", "chat", 0.0),
        ("import sys; sys.exit(0)", "chat", 0.0),
        ("def total(xs):\n    raise SystemExit(0)", "chat", 0.0),
    ],
)
def test_verdicts(text: str, style: PromptStyle, score: float, tmp_path: Path) -> None:
    result, (row,) = verdicts([text], style, tmp_path, [PROBLEM])
    assert (row.id, row.score, result.score) == ("T/0", score, score)
    assert row.reason == "passed" or score == 0.0


HOSTILE = {
    "equal to everything": """
class Liar(int):
    def __eq__(self, other): return True
    __hash__ = None
def total(xs):
    return Liar(7)
""",
    "the frame of the tests": """
import os, sys
def total(xs):
    frame = sys._getframe()
    while frame:
        for names in (frame.f_locals, frame.f_globals):
            for descriptor in [v for v in names.values() if type(v) is int]:
                for secret in [v for v in names.values() if isinstance(v, (bytes, str))]:
                    try:
                        os.write(descriptor, secret.encode() if type(secret) is str else secret)
                    except (OSError, OverflowError):
                        pass
        frame = frame.f_back
    os._exit(0)
""",
    "no assertions": """
import sys
def total(xs):
    frame = sys._getframe(1)
    frame.f_globals["check"] = lambda candidate: None
    raise SystemExit(0)
""",
    "a builtin replaced": """
import builtins
class Silent(Exception):
    pass
builtins.AssertionError = Silent
class Answer:
    def __ne__(self, other): return False
    def __eq__(self, other): return self
    def __bool__(self): return True
def total(xs):
    return Answer()
""",
    "the driver's own tools replaced": """
import json, os, pickle
def total(xs):
    json.dumps = lambda *_, **__: "3"
    return 7
""",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_programs_that_cheat_their_tests_fail(name: str, tmp_path: Path) -> None:
    _, (row,) = verdicts([HOSTILE[name]], "chat", tmp_path, [PROBLEM])
    assert row.score == 0.0, row


def test_a_cut_completion_is_noted(tmp_path: Path) -> None:
    _, (row,) = verdicts(["    return"], "completion", tmp_path, [PROBLEM], "length")
    assert row.score == 0.0
    assert "max_new_tokens" in row.reason


def test_canonical_solutions_pass(tmp_path: Path) -> None:
    problems = python_basics()
    result, _ = verdicts([p.prompt + p.canonical_solution for p in problems], "chat", tmp_path)
    assert (result.score, result.n_scored) == (1.0, 60)
    few = problems[::12]
    result, _ = verdicts([p.canonical_solution for p in few], "completion", tmp_path, few)
    assert (result.score, result.n_scored) == (1.0, 5)


def test_the_published_humanevalplus_file_is_read(test_data: Path) -> None:
    """As ``--data``: the same 164 problems, compressed as published."""
    published = read_problems(test_data / "humanevalplus" / "HumanEvalPlus.jsonl.gz")
    ours = human_eval()
    assert [p.task_id for p in published] == [p.task_id for p in ours]
    assert [p.entry_point for p in published] == [p.entry_point for p in ours]
