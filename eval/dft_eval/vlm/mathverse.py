"""MathVerse: 788 geometry and function problems in five versions (arXiv 2403.14624).

From Text Dominant to Vision Only more and more of a problem stands in the picture alone. The score
is the accuracy over all 3,940 items; the breakdown has the versions, as VLMEvalKit's column
'Overall' of each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dft_eval.benchmark import Request
from dft_eval.errors import UsageError
from dft_eval.results import ItemScore
from dft_eval.vlm import openai_scoring, prompts, tables
from dft_eval.vlm.mathvision import mean_by
from dft_eval.vlm.run import Summary, Task, declare
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


def _summary(request: Request, rows: Sequence[Row], items: Sequence[ItemScore]) -> Summary:
    means = mean_by([version(row) for row in rows], items)
    notes = []
    if any("problem_index" not in row.cells for row in rows):
        notes = ["rows without problem_index: each counts as a problem of its own"]
    return Summary({key: means.get(key) for key in VERSIONS.values()}, notes)


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
    options=options,
    question="question_for_eval",
    judged=openai_scoring.mathverse,
    needs_judge=True,
    requests_an_item=2,
    category=version,
    summarise=_summary,
    cluster=lambda row: str(row.cells.get("problem_index", row.id)),
    cluster_name="problem_index",
)
MATHVERSE = declare(
    "mathverse",
    "MathVerse testmini: 788 problems in five versions, 3,940 items (arXiv 2403.14624)",
    TASK,
)
