"""WeMath: 525 problems of two or three steps, each step asked for by itself too (arXiv 2407.01284).

A problem is three or four items: its steps and the whole. Right steps and a right whole are
complete mastery (CM); right steps and a wrong whole inadequate generalization (IG); a wrong step
and a wrong whole insufficient knowledge (IK); a wrong step and a right whole rote memorization
(RM). 'Loose' forgives: one right step is enough for CM. The score is CM + IG / 2 over the problems,
strict, as VLMEvalKit's 'Score (Strict)'; its rate of RM is RM / (CM + RM).

The items file has one line an item, right or wrong; the score and its standard error come from the
problems, which lie beside it. VLMEvalKit divides by 525 whatever it is given, and counts problems
with missing rows as mastered; here a problem counts when all its rows are there and scored.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dft_eval.benchmark import Request
from dft_eval.errors import UsageError
from dft_eval.results import ItemScore, write_items
from dft_eval.statistics import mean_and_stderr
from dft_eval.vlm import openai_scoring, prompts, tables
from dft_eval.vlm.run import Summary, Task, declare
from dft_eval.vlm.tables import Row

PUBLISHED_PROBLEMS = 525
PARTS = {
    2: ("2steps_1", "2steps_2", "2steps_multi"),
    3: ("3steps_1", "3steps_2", "3steps_3", "3steps_multi"),
}
POINTS = {"CM": 1.0, "IG": 0.5, "IK": 0.0, "RM": 0.0}
_KEY = re.compile(r"([23])steps_(?:[123]|multi)")


@dataclass(frozen=True)
class Problem:
    """One problem with all its answers: ``steps`` and the ``whole``, right or not."""

    id: str
    steps: tuple[bool, ...]
    whole: bool

    def kind(self, *, strict: bool) -> str:
        """CM, IG, IK or RM."""
        if not self.whole:
            return "IG" if all(self.steps) else "IK"
        mastered = all(self.steps) if strict else any(self.steps)
        return "CM" if mastered else "RM"


def problem_id(id: str, key: str) -> str:
    """Of a problem, from a row's ``ID`` and ``key``: two problems may share an ID."""
    return f"{key.split('_')[0]} {id}"


def problems(rows: Sequence[Row], items: Sequence[ItemScore]) -> tuple[list[Problem], int]:
    """The problems of which every row is there and scored, and the number of the others.

    Raises:
        UsageError: a ``key`` that names no step, or a row that stands there twice.
    """
    parts: dict[tuple[str, int], dict[str, float | None]] = defaultdict(dict)
    for row, item in zip(rows, items, strict=True):
        key = row.text("key")
        match = _KEY.fullmatch(key)
        if match is None or key not in PARTS[int(match[1])]:
            raise UsageError(
                f"row {row.id}: key {key!r} is none of {', '.join(PARTS[2] + PARTS[3])}."
            )
        group = parts[row.text("ID"), int(match[1])]
        if key in group:
            raise UsageError(f"row {row.id}: problem {row.text('ID')} has {key} already.")
        group[key] = item.score
    whole = []
    for (id, steps), answers in parts.items():
        verdicts = [answers.get(key) for key in PARTS[steps]]
        if None not in verdicts:
            whole.append(
                Problem(
                    problem_id(id, PARTS[steps][0]),
                    tuple(map(bool, verdicts[:-1])),
                    bool(verdicts[-1]),
                )
            )
    return whole, len(parts) - len(whole)


def check(rows: Sequence[Row]) -> None:
    """Refuse rows whose place in a problem is not clear, or whose right answer is no option.

    Raises:
        UsageError: naming the row.
    """
    problems(rows, [ItemScore(id=row.id) for row in rows])
    for row in rows:
        gold, choices = row.text("answer").strip(), prompts.option_texts(row)
        if gold not in choices:
            raise UsageError(
                f"row {row.id}: answer {gold!r} is none of its options {list(choices)}."
            )


def dimensions(whole: Sequence[Problem]) -> dict[str, float | None]:
    """The breakdown: loose score, and the four dimensions strict and loose.

    IK, IG and CM over all problems; RM over those whose whole was solved with mastery or by rote,
    None where there is none.
    """
    breakdown: dict[str, float | None] = {
        "loose": mean_and_stderr([POINTS[problem.kind(strict=False)] for problem in whole])[0]
    }
    for strict in (True, False):
        counts = Counter(problem.kind(strict=strict) for problem in whole)
        name = "strict" if strict else "loose"
        for kind in ("IK", "IG", "CM"):
            breakdown[f"{kind}_{name}"] = _share(counts[kind], len(whole))
        breakdown[f"RM_{name}"] = _share(counts["RM"], counts["CM"] + counts["RM"])
    return breakdown


def steps_accuracy(rows: Sequence[Row], items: Sequence[ItemScore]) -> Mapping[str, float | None]:
    """Accuracy of single steps, and of whole problems of two and three."""
    kinds: dict[str, list[float]] = {"one_step": [], "two_step": [], "three_step": []}
    for row, item in zip(rows, items, strict=True):
        key = row.text("key")
        kind = "one_step"
        if key.endswith("_multi"):
            kind = "two_step" if key.startswith("2") else "three_step"
        if item.score is not None:
            kinds[kind].append(item.score)
    return {kind: mean_and_stderr(scores)[0] for kind, scores in kinds.items()}


def _share(part: int, of: int) -> float | None:
    return part / of if of else None


def _summary(request: Request, rows: Sequence[Row], items: Sequence[ItemScore]) -> Summary:
    """The strict score over problems, which are written beside the items."""
    whole, incomplete = problems(rows, items)
    by_problem = [
        ItemScore(
            id=problem.id,
            score=POINTS[problem.kind(strict=True)],
            reason=f"{problem.kind(strict=True)} strict, {problem.kind(strict=False)} loose",
        )
        for problem in whole
    ]
    file = request.out / "wemath.chat.problems.jsonl"
    write_items(file, by_problem)
    notes = [f"score over {len(whole)} problems ({file.name}), not the mean of the items"]
    if incomplete:
        notes.append(f"{incomplete} problems left out: rows missing or unscored")
    if len(whole) != PUBLISHED_PROBLEMS:
        notes.append(f"problems: {len(whole)} of {PUBLISHED_PROBLEMS}")
    return Summary(
        breakdown={**dimensions(whole), **steps_accuracy(rows, items)},
        notes=notes,
        metric="strict",
        score=mean_and_stderr([problem.score or 0.0 for problem in by_problem]),
    )


TASK = Task(
    tables=(tables.WEMATH,),
    columns=("ID", "key", "question", "answer", "A", "B"),
    check=check,
    prompt=prompts.multiple_choice,
    options=prompts.option_texts,
    question="question",
    judged=openai_scoring.wemath,
    needs_judge=False,
    requests_an_item=1,
    category=lambda row: row.text("key"),
    summarise=_summary,
    cluster=lambda row: problem_id(row.text("ID"), row.text("key")),
    cluster_name="problem",
)
WEMATH = declare(
    "wemath", "WeMath testmini: 525 problems with their steps, 1,740 items (arXiv 2407.01284)", TASK
)
