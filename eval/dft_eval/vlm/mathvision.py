"""MathVision: 3,040 competition problems with a picture (arXiv 2402.14804).

The score is the accuracy over all items, as the row 'Overall' of VLMEvalKit's table; the breakdown
is by subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dft_eval.benchmark import Benchmark, Request, finish
from dft_eval.errors import UsageError
from dft_eval.generation.run import Completion
from dft_eval.progress import Progress
from dft_eval.results import BenchmarkResult, ItemScore
from dft_eval.statistics import mean_and_stderr
from dft_eval.vlm import openai_scoring, prompts, tables
from dft_eval.vlm.rules import by_rules
from dft_eval.vlm.run import Scoring, Task, declare
from dft_eval.vlm.tables import Row, literal_list


def options(row: Row) -> dict[str, str]:
    """Letter to text; empty for a free answer."""
    return {chr(ord("A") + i): text for i, text in enumerate(literal_list(row, "choices"))}


def check(rows: Sequence[Row]) -> None:
    """Refuse rows without an answer, a subject, or the right letter among the options.

    Raises:
        UsageError: naming the row.
    """
    for row in rows:
        row.text("category")
        gold, choices = row.text("answer").strip(), options(row)
        if choices and gold not in choices:
            raise UsageError(
                f"row {row.id}: answer {gold!r} is none of its options {list(choices)}."
            )


def score(
    rows: Sequence[Row], completions: Sequence[Completion], scoring: Scoring
) -> list[ItemScore]:
    """Item scores by the judge, or by rules."""
    pairs = list(zip(rows, completions, strict=True))
    if scoring.asking is not None:
        graded = [
            openai_scoring.Graded(
                completion, row.text("answer"), options(row), row.text("question")
            )
            for row, completion in pairs
        ]
        return openai_scoring.mathvision(graded, scoring.asking, scoring.equality)
    items = []
    with Progress(f"{scoring.title}: answers compared") as progress:
        for row, completion in pairs:
            items.append(by_rules(completion, row.text("answer"), options(row), scoring.equality))
            progress(len(items), len(pairs))
    return items


def mean_by(names: Sequence[str], items: Sequence[ItemScore]) -> dict[str, float | None]:
    """Mean of the scored items under each name."""
    return {
        name: mean_and_stderr(
            [
                item.score
                for each, item in zip(names, items, strict=True)
                if each == name and item.score is not None
            ]
        )[0]
        for name in sorted(set(names))
    }


def _result(
    benchmark: Benchmark,
    request: Request,
    rows: Sequence[Row],
    items: Sequence[ItemScore],
    **settings: Any,
) -> BenchmarkResult:
    return finish(
        benchmark,
        request,
        items,
        metric="accuracy",
        style="chat",
        breakdown=mean_by([row.text("category") for row in rows], items),
        **settings,
    )


TASK = Task(
    tables=(tables.MATHVISION, tables.MATHVISION_MINI),
    columns=("question", "choices", "answer", "category"),
    check=check,
    prompt=prompts.question,
    needs_judge=True,
    requests_an_item=1,
    category=lambda row: row.text("category"),
    score=score,
    result=_result,
)
MATHVISION = declare(
    "mathvision", "MathVision: 3,040 competition problems with a picture (arXiv 2402.14804)", TASK
)
