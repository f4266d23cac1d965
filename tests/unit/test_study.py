"""The study's tasks: what the generators write is what is committed, and is right."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

STUDY = Path(__file__).parents[2] / "configs" / "study"
STYLES = ("arithmetic", "notation", "arithmetic_noisy")


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (STUDY / name).read_text().splitlines()]


@pytest.fixture
def generators(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[ModuleType]]:
    """Both modules, which then write into ``tmp_path``."""
    names = ("common", "make_arithmetic", "make_python")
    monkeypatch.syspath_prepend(str(STUDY))
    common, *modules = [__import__(name) for name in names]
    monkeypatch.setattr(common, "HERE", tmp_path)
    yield modules
    for name in names:
        del sys.modules[name]


def test_files_and_prompts_of_the_generators(generators: list[ModuleType], tmp_path: Path) -> None:
    for module in generators:
        module.main()
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in STUDY.glob("*.jsonl")}
    for module, name in zip(generators, ("arithmetic", "python"), strict=True):
        task = yaml.safe_load((STUDY / f"{name}.yaml").read_text())
        assert task["prompt"] == module.PROMPT


def test_held_out_problems_and_templates_are_not_trained_on() -> None:
    for style in STYLES:
        trained = {row["instruction"].partition("\n")[0] for row in rows(f"{style}.train.jsonl")}
        assert len(trained) == 1500
        held_out = [row["question"] for row in rows("arithmetic.held_out.jsonl")]
        assert len(set(held_out)) == 300
        assert trained.isdisjoint(held_out)
    functions = [row["instruction"].split("def ")[1] for row in rows("python.train.jsonl")]
    held_out = [row["stub"].split("def ")[1] + "```" for row in rows("python.held_out.jsonl")]
    assert (len(set(functions)), len(set(held_out))) == (1500, 300)
    assert set(functions).isdisjoint(held_out)
    for name in ("arithmetic", "python"):
        parts: dict[str, set[str]] = {"seen": set(), "unseen": set()}
        for row in rows(f"{name}.held_out.jsonl"):
            parts[row["id"].split("-")[0]].add(row["template"])
        assert parts["seen"].isdisjoint(parts["unseen"])
    for row in rows("python.train.jsonl"):
        assert not re.search(r"def (any|remove|each_kept)_", row["instruction"])


@pytest.mark.parametrize("style", STYLES)
def test_worked_answers_are_right(style: str) -> None:
    """Python's own arithmetic on the calculation; the noisy ones are wrong in three of ten."""
    right = 0
    for row in rows(f"{style}.train.jsonl"):
        infix = re.search(r"(\d+) ([-+*]) (\d+) = (\d+)", row["output"])
        prefix = re.search(r"\(([-+*]) (\d+) (\d+)\) = (\d+)", row["output"])
        assert (infix is None) != (prefix is None)
        if infix:
            a, sign, b, result = infix.groups()
        elif prefix:
            sign, a, b, result = prefix.groups()
        assert {a, b} <= set(re.findall(r"\d+", row["instruction"]))
        right += eval(f"{a} {sign} {b}") == int(result)
    assert right == (1050 if style == "arithmetic_noisy" else 1500)


def test_answers_and_functions_are_right() -> None:
    """Each answer is sum, difference or product of the question's two numbers."""
    for row in rows("arithmetic.held_out.jsonl"):
        a, b = map(int, re.findall(r"\d+", row["question"]))
        assert int(row["answer"]) in (a + b, a - b, a * b)
    # Training functions compile; functions written by hand pass the held-out tests, no others.
    for row in rows("python.train.jsonl"):
        compile(row["output"].removeprefix("```python\n").removesuffix("```"), "f", "exec")
    by_hand: dict[str, Any] = {
        "is_even": lambda x: not x % 2,
        "get_without_e": lambda x: "".join(c for c in x if c != "e"),
        "keep_starting_with_n": lambda xs: list(filter(lambda x: x[0] == "n", xs)),
        "count_odd": lambda xs: len([x for x in xs if x % 2]),
        "find_starting_with_t": lambda xs: ([x for x in xs if x[0] == "t"] or [None])[0],
        "all_negative": lambda xs: max(xs) < 0,
        "each_square": lambda xs: [x**2 for x in xs],
        "change_upper_containing_e": lambda x: x.upper() if x.count("e") else x,
        "any_positive": lambda xs: max(xs) > 0,
        "remove_containing_a": lambda xs: [x for x in xs if x.count("a") == 0],
        "each_kept_square_positive": lambda xs: [x**2 for x in xs if x > 0],
    }
    tests = {
        row["stub"].split("(")[0].removeprefix("def "): row["tests"]
        for row in rows("python.held_out.jsonl")
    }
    for name, function in by_hand.items():
        exec(tests[name], {name: function})
        with pytest.raises(AssertionError):
            exec(tests[name], {name: lambda x: x})
