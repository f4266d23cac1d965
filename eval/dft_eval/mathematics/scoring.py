"""From verdicts on single completions to scores of problems and what stands in the breakdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dft_eval.generation.run import Completion, Failure
from dft_eval.generation.samples import combine
from dft_eval.mathematics.data import Problem
from dft_eval.mathematics.verdicts import Verdict
from dft_eval.results import ItemScore
from dft_eval.statistics import mean_and_stderr

SHOWN = 120
"""Characters of an answer that an item's reason shows."""
Row = tuple[Completion | Failure, Verdict | None]
"""A completion and its verdict; None for a failure."""


def score_problems(
    problems: Sequence[Problem], rows: Sequence[Row], samples: int
) -> tuple[list[ItemScore], dict[str, float | None]]:
    """One item a problem, its score the mean over its samples; and pass@N with several samples.

    Args:
        rows: ``samples`` of each problem, one after the other.
    """
    verdicts = [
        _item(problem.id, problem.answer, *rows[place * samples + sample])
        for place, problem in enumerate(problems)
        for sample in range(samples)
    ]
    ks = (samples,) if samples > 1 else ()
    return combine([problem.id for problem in problems], verdicts, samples, ks=ks)


def _item(id: str, gold: str, row: Completion | Failure, verdict: Verdict | None) -> ItemScore:
    if isinstance(row, Failure):
        return ItemScore(id=id, score=None, reason=row.reason)
    assert verdict is not None
    if verdict.correct is None:
        return ItemScore(id=id, score=None, reason=verdict.problem)
    answer = "no answer" if verdict.answer is None else f"answer {_shown(verdict.answer)}"
    reason = f"{verdict.problem or answer}, right is {_shown(gold)}"
    if row.finish_reason == "length":
        reason = f"{reason} (cut at max_new_tokens)"
    return ItemScore(id=id, score=float(verdict.correct), reason=reason)


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}...")


def breakdown(rows: Sequence[Row], samples: int) -> dict[str, float | None]:
    """Shares over all completions, the majority's accuracy and the mean of rounded accuracies."""
    judged = [
        (row, verdict)
        for row, verdict in rows
        if isinstance(row, Completion) and verdict is not None and verdict.correct is not None
    ]
    cut = [float(row.finish_reason == "length") for row, _ in judged]
    silent = [float(verdict.answer is None) for _, verdict in judged]
    values = {
        "truncated": mean_and_stderr(cut)[0],
        "no answer": mean_and_stderr(silent)[0],
        "mean of rounded accuracies": rounded_mean([verdict for _, verdict in rows], samples),
    }
    if samples > 1:
        groups = [
            [verdict for _, verdict in rows[start : start + samples]]
            for start in range(0, len(rows), samples)
        ]
        shares = [share for share in map(majority, groups) if share is not None]
        return {f"maj@{samples}": mean_and_stderr(shares)[0], **values}
    return values


def majority(verdicts: Sequence[Verdict | None]) -> float | None:
    """Share of the most frequent answers that are right (with ties, of those tied).

    Completions without an answer do not vote; without any vote it is 0. None where a sample of the
    problem is unscored.
    """
    votes: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict is None or verdict.correct is None:
            return None
        if verdict.answer is not None:
            votes.setdefault(_spelling(verdict.answer), []).append(verdict)
    if not votes:
        return 0.0
    most = max(map(len, votes.values()))
    first = [group[0] for group in votes.values() if len(group) == most]
    return sum(bool(verdict.correct) for verdict in first) / len(first)


def _spelling(answer: str) -> str:
    """Spaces and sizes of fractions and brackets do not make another answer."""
    return re.sub(r"\\left(?![a-z])|\\right(?![a-z])|\\[,;!]|[\s$]", "", answer).replace(
        "dfrac", "frac"
    )


def rounded_mean(verdicts: Sequence[Verdict | None], samples: int) -> float | None:
    """Mean over samples of each one's accuracy in per cent rounded to one decimal, as a fraction.

    The paper's cells are made so; with 30 problems and 16 samples they need not be k / 480. None
    where anything is unscored.
    """
    if not verdicts or any(verdict is None or verdict.correct is None for verdict in verdicts):
        return None
    correct = [bool(verdict and verdict.correct) for verdict in verdicts]
    columns = [correct[sample::samples] for sample in range(samples)]
    rounded = [round(100 * sum(column) / len(column), 1) for column in columns]
    return sum(rounded) / samples / 100
