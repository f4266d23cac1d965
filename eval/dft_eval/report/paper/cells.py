"""Our figure for a column of the paper, with a standard error made for just that figure."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dft_eval.report.collect import Evaluation
from dft_eval.report.paper.tables import Column
from dft_eval.report.tables import unit_scores
from dft_eval.results import ItemScore
from dft_eval.statistics import mean_and_stderr

Group = Mapping[str, tuple[str, float]]
"""Problem and score by item id."""

_PROBLEM = re.compile(r"HumanEval[_/](\d+)")
"""In the ids of MultiPL-E, for results that do not name the problem of each item."""


@dataclass(frozen=True)
class Cell:
    """Our figure: a fraction.

    Attributes:
        stderr: None where it is undefined, or the items do not tell.
        groups: scored items; the mean of the groups' means is the figure. Empty where the items
            do not give it.
        n_total, n_scored: items behind it.
        parts: of a mean of benchmarks: theirs.
    """

    value: float
    stderr: float | None
    groups: tuple[Group, ...]
    n_total: int
    n_scored: int
    parts: tuple[Cell, ...] = ()


def group(items: Iterable[ItemScore]) -> Group:
    """The scored items; those without a problem's name are a problem each."""

    def problem(item: ItemScore) -> str:
        match = _PROBLEM.search(item.id)
        return item.cluster or (match[1] if match else item.id)

    return {item.id: (problem(item), item.score) for item in items if item.score is not None}


def mean_of_groups(groups: Sequence[Group]) -> tuple[float | None, float | None]:
    """The mean of the groups' means, and its standard error over problems; None where undefined.

    With g groups of n_k items each item moves the figure by d = (score - mean_k) / (n_k g).
    Items of one problem are one draw: D is the sum of their d, and the variance is
    P / (P - 1) Σ D² over the P problems. For one group of different problems that is the
    variance of the mean.
    """
    means = [mean_and_stderr([score for _, score in group.values()])[0] for group in groups]
    known = [mean for mean in means if mean is not None]
    if not known or len(known) < len(means):
        return None, None
    moved: defaultdict[str, float] = defaultdict(float)
    for group, mean in zip(groups, known, strict=True):
        for problem, score in group.values():
            moved[problem] += (score - mean) / (len(group) * len(groups))
    count = len(moved)
    value = math.fsum(known) / len(known)
    if count < 2:
        return value, None
    squares = math.fsum(each * each for each in moved.values())
    return value, math.sqrt(count / (count - 1) * squares)


def cell_of(evaluation: Evaluation, column: Column) -> Cell | str:
    """Our figure for a column of this benchmark, or in words why there is none."""
    if column.part is None:
        return _score(evaluation)
    row = evaluation.row
    if column.part not in row.breakdown:
        return f"its result has no part {column.part!r}"
    value = row.breakdown[column.part]
    if value is None:
        return f"its part {column.part!r} is unscored"
    if column.prefixes:
        return _of_groups(evaluation, column, value)
    stderr = _binary_stderr(evaluation, column, value)
    return Cell(value, stderr, (), row.n_total, row.n_scored)


def mean_of_cells(cells: Sequence[Cell]) -> Cell:
    """The mean of benchmarks that share no problem."""
    return Cell(
        value=math.fsum(cell.value for cell in cells) / len(cells),
        stderr=_stderr_of_mean([cell.stderr for cell in cells]),
        groups=(),
        n_total=sum(cell.n_total for cell in cells),
        n_scored=sum(cell.n_scored for cell in cells),
        parts=tuple(cells),
    )


def change(first: Cell, second: Cell) -> tuple[float, float | None, bool]:
    """The second figure minus the first, its standard error, and whether it is one of pairs.

    Paired over the items that both have scored, where the items give both figures; else the two
    standard errors are added as those of independent draws. A mean of benchmarks changes by the
    mean of their changes.
    """
    if first.parts:
        each = [change(a, b) for a, b in zip(first.parts, second.parts, strict=True)]
        difference = math.fsum(value for value, _, _ in each) / len(each)
        stderr = _stderr_of_mean([spread for _, spread, _ in each])
        return difference, stderr, all(paired for _, _, paired in each)
    if first.groups and second.groups:
        pairs = [
            {id: (a[id][0], b[id][1] - a[id][1]) for id in a if id in b}
            for a, b in zip(first.groups, second.groups, strict=True)
        ]
        mean, stderr = mean_of_groups(pairs)
        if mean is not None:
            return mean, stderr, True
    stderr = None
    if first.stderr is not None and second.stderr is not None:
        stderr = math.hypot(first.stderr, second.stderr)
    return second.value - first.value, stderr, False


def _stderr_of_mean(spreads: Sequence[float | None]) -> float | None:
    """Of independent values that weigh alike: the root of their summed squares over n."""
    known = [spread for spread in spreads if spread is not None]
    if len(known) < len(spreads):
        return None
    return math.sqrt(math.fsum(each * each for each in known)) / len(known)


def _score(evaluation: Evaluation) -> Cell | str:
    row = evaluation.row
    if row.score is None:
        return "unscored"
    scored = group(unit_scores(evaluation).values())
    mean, _ = mean_and_stderr([score for _, score in scored.values()])
    own = mean is not None and math.isclose(mean, row.score, abs_tol=1e-6)
    return Cell(row.score, row.stderr, (scored,) if own else (), row.n_total, row.n_scored)


def _of_groups(evaluation: Evaluation, column: Column, value: float) -> Cell:
    items = [
        [item for id, item in evaluation.items.items() if id.startswith(prefix)]
        for prefix in column.prefixes
    ]
    groups = tuple(map(group, items))
    mean, stderr = mean_of_groups(groups)
    if mean is None or not math.isclose(mean, value, abs_tol=1e-6):
        groups, stderr = (), None
    n_total = sum(map(len, items))
    n_scored = sum(item.score is not None for group in items for item in group)
    return Cell(value, stderr, groups, n_total, n_scored)


def _binary_stderr(evaluation: Evaluation, column: Column, value: float) -> float | None:
    """Of a part of a whole set, all of it scored 0 or 1: sqrt(p (1 - p) / (n - 1))."""
    whole = len(evaluation.items) == evaluation.row.n_total == column.items
    binary = all(item.score in (0.0, 1.0) for item in evaluation.items.values())
    if column.part_items is None or not (whole and binary):
        return None
    return math.sqrt(value * (1 - value) / (column.part_items - 1))
