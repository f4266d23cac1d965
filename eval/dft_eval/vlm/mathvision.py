"""MathVision: 3,040 competition problems with a picture (arXiv 2402.14804).

The score is the accuracy over all items, as the row 'Overall' of VLMEvalKit's table; the breakdown
is by subject.
"""

from __future__ import annotations

from collections.abc import Sequence

from dft_eval.benchmark import Request
from dft_eval.errors import UsageError
from dft_eval.results import ItemScore
from dft_eval.statistics import mean_and_stderr
from dft_eval.vlm import openai_scoring, prompts, tables
from dft_eval.vlm.run import Summary, Task, declare
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


def mean_by(names: Sequence[str], items: Sequence[ItemScore]) -> dict[str, float | None]:
    """Mean of the scored items under each name."""
    return {
        name: mean_and_stderr(
            [
                item.score
                for other, item in zip(names, items, strict=True)
                if other == name and item.score is not None
            ]
        )[0]
        for name in sorted(set(names))
    }


def _summary(request: Request, rows: Sequence[Row], items: Sequence[ItemScore]) -> Summary:
    return Summary(mean_by([row.text("category") for row in rows], items))


TASK = Task(
    tables=(tables.MATHVISION, tables.MATHVISION_MINI),
    columns=("question", "choices", "answer", "category"),
    check=check,
    prompt=prompts.question,
    options=options,
    question="question",
    judged=openai_scoring.mathvision,
    needs_judge=True,
    requests_an_item=1,
    category=lambda row: row.text("category"),
    summarise=_summary,
)
MATHVISION = declare(
    "mathvision", "MathVision: 3,040 competition problems with a picture (arXiv 2402.14804)", TASK
)
