"""``tests/data/vlm_answers.jsonl``: answers as models write them, judged by hand."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dft_eval.generation.run import Completion
from dft_eval.vlm import mathverse, mathvision, wemath
from dft_eval.vlm.equality import Equality
from dft_eval.vlm.openai_scoring import Scoring
from dft_eval.vlm.rules import by_rules
from dft_eval.vlm.run import Task
from dft_eval.vlm.tables import Row

LAYOUTS = (
    "{}",
    "<answer>{}</answer>",
    "\\boxed{{{}}}",
    "**Answer:** {}",
    "The answer is {}.",
    "We add them up.\n\nThe final answer is ${}$",
)
FILE = Path(__file__).parents[1] / "data" / "vlm_answers.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
TASKS = {"mathverse": mathverse.TASK, "mathvision": mathvision.TASK, "wemath": wemath.TASK}


@pytest.fixture(scope="module")
def equality() -> Iterator[Equality]:
    with Equality() as compare:
        yield compare


def row(case: dict[str, Any]) -> Row:
    """The case as a row of its benchmark's table."""
    options = case["options"]
    cells = {"answer": case["gold"], "question": "Which?", "choices": str(list(options.values()))}
    if case["benchmark"] == "mathverse":
        listed = "\n".join(f"{letter}:{text}" for letter, text in options.items())
        cells["question_for_eval"] = f"Which?\nChoices:\n{listed}" if options else "Which?"
        cells["question_type"] = "multi-choice" if options else "free-form"
    if case["benchmark"] == "wemath":
        cells |= options
    return Row("1", cells, ())


def completion(text: str) -> Completion:
    return Completion(id="1", prompt="", completion=text, finish_reason="stop", n_tokens=1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['benchmark']} {case['answer']}")
def test_rules_agree_with_a_careful_reader(case: dict[str, Any], equality: Equality) -> None:
    task: Task = TASKS[case["benchmark"]]
    (item,) = task.score([row(case)], [completion(case["answer"])], Scoring("test", equality))
    assert item.score == case["score"], item.reason


def test_only_published_answers_are_right(test_data: Path, equality: Equality) -> None:
    """48 items of MATH-Vision and 60 of MathVerse, in six layouts."""
    lines = (test_data / "mathvision" / "testmini_sample.jsonl").read_text("utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    answers = [
        (item["answer"], dict(zip("ABCDE", item["options"], strict=False))) for item in items
    ]
    file = test_data / "mathverse" / "testmini_text_only_sample.json"
    for item in json.loads(file.read_text("utf-8")):
        cells = {**item, "question_for_eval": item["question"]}
        answers.append((item["answer"], mathverse.options(Row("1", cells, ()))))
    wrong = []
    for gold, options in answers:
        texts = {gold: 1.0} | {text: float(key == gold) for key, text in options.items() if text}
        texts |= {key: float(key == gold) for key in options}
        for layout, (text, score) in itertools.product(LAYOUTS, texts.items()):
            answer = completion(layout.format(text))
            if by_rules(answer, gold, options, equality).score != score:
                wrong.append((answer.completion, gold, options))
    assert len(answers) == 108
    assert not wrong


def test_every_benchmark_has_right_and_wrong_answers() -> None:
    for benchmark in TASKS:
        scores = [case["score"] for case in CASES if case["benchmark"] == benchmark]
        assert len(scores) >= 60
        assert min(scores.count(0), scores.count(1)) >= 12
