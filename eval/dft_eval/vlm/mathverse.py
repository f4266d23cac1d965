"""MathVerse: 788 geometry and function problems in five versions (arXiv 2403.14624).

From Text Dominant to Vision Only more and more of a problem stands in the picture alone. The score
is the accuracy over all 3,940 items; the breakdown has the versions, as VLMEvalKit's column
'Overall' of each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dft_eval.benchmark import Benchmark, Request, finish
from dft_eval.errors import UsageError
from dft_eval.generation.run import Completion
from dft_eval.progress import Progress
from dft_eval.results import BenchmarkResult, ItemScore
from dft_eval.vlm import openai_scoring, prompts, tables
from dft_eval.vlm.mathvision import mean_by
from dft_eval.vlm.rules import by_rules
from dft_eval.vlm.run import Scoring, Task, declare
from dft_eval.vlm.tables import Row

VERSIONS = {
    "Vision Only": "vision_only",
    "Vision Intensive": "vision_intensive",
    "Vision Dominant": "vision_dominant",
    "Text Dominant": "text_dominant",
    "Text Lite": "text_lite",
}
QUESTION_TYPES = ("multi-choice", "free-form")
_CHOICE = re.compile(r"^\s*([A-Z])\s*[:.：]\s*(.*?)\s*$", re.MULTILINE)


def version(row: Row) -> str:
    """The key of the row's version in the breakdown.

    Raises:
        UsageError: an unknown one.
    """
    name = row.text("problem_version")
    if name not in VERSIONS:
        raise UsageError(
            f"row {row.id}: problem_version {name!r} is none of {', '.join(VERSIONS)}."
        )
    return VERSIONS[name]


def options(row: Row) -> dict[str, str]:
    """Letter to text, as they stand under 'Choices:'; empty for a free answer.

    Raises:
        UsageError: an unknown question type, or a right answer that is no letter.
    """
    kind = row.text("question_type")
    if kind not in QUESTION_TYPES:
        raise UsageError(
            f"row {row.id}: question_type {kind!r} is none of {', '.join(QUESTION_TYPES)}."
        )
    if kind == "free-form":
        return {}
    listed = row.text("question_for_eval").partition("Choices:")[2]
    choices = dict(_CHOICE.findall(listed))
    gold = row.text("answer").strip()
    if not re.fullmatch("[A-Z]", gold):
        raise UsageError(f"row {row.id}: answer {gold!r} of a {kind} is no letter.")
    # Choices that are not listed line by line are known by their letters alone.
    return choices if gold in choices else dict.fromkeys("ABCD", "") | {gold: ""}


def check(rows: Sequence[Row]) -> None:
    """Refuse rows without version, answer or known question type.

    Raises:
        UsageError: naming the row.
    """
    for row in rows:
        version(row)
        options(row)
        row.text("answer")
        row.text("question_for_eval")


def score(
    rows: Sequence[Row], completions: Sequence[Completion], scoring: Scoring
) -> list[ItemScore]:
    """Item scores by the judge, or by rules."""
    pairs = list(zip(rows, completions, strict=True))
    if scoring.asking is not None:
        graded = [
            openai_scoring.Graded(completion, row.text("answer"), {}, row.text("question_for_eval"))
            for row, completion in pairs
        ]
        return openai_scoring.mathverse(graded, scoring.asking)
    items = []
    with Progress(f"{scoring.title}: answers compared") as progress:
        for row, completion in pairs:
            items.append(by_rules(completion, row.text("answer"), options(row), scoring.equality))
            progress(len(items), len(pairs))
    return items


def _result(
    benchmark: Benchmark,
    request: Request,
    rows: Sequence[Row],
    items: Sequence[ItemScore],
    notes: Sequence[str],
    **settings: Any,
) -> BenchmarkResult:
    if any("problem_index" not in row.cells for row in rows):
        notes = [*notes, "rows without problem_index: each counts as a problem of its own"]
    means = mean_by([version(row) for row in rows], items)
    return finish(
        benchmark,
        request,
        items,
        metric="accuracy",
        style="chat",
        breakdown={key: means.get(key) for key in VERSIONS.values()},
        notes=notes,
        **settings,
    )


TASK = Task(
    tables=(tables.MATHVERSE_MINI,),
    columns=(
        "problem_version",
        "question",
        "answer",
        "question_type",
        "question_for_eval",
    ),
    check=check,
    prompt=prompts.question,
    needs_judge=True,
    requests_an_item=2,
    category=version,
    score=score,
    result=_result,
    cluster=lambda row: str(row.cells.get("problem_index", row.id)),
    cluster_name="problem_index",
)
MATHVERSE = declare(
    "mathverse",
    "MathVerse testmini: 788 problems in five versions, 3,940 items (arXiv 2403.14624)",
    TASK,
)
