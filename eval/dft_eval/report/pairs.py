"""Runs against each other: every pair on every benchmark, corrected for how many there are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dft_eval.report.collect import Evaluation, Key, Run
from dft_eval.report.comparison import PairedComparison, compare, verdict
from dft_eval.report.formats import p_value, percent, plural, points
from dft_eval.report.tables import Table, benchmarks, key_name
from dft_eval.results import ItemScore
from dft_eval.statistics import holm


@dataclass(frozen=True)
class Comparison:
    """``second`` minus ``first`` on one benchmark; ``adjusted`` is Holm's p-value in this report.

    ``name`` is the benchmark and its prompt style; ``unlike`` lists settings in which the two
    evaluations differ.
    """

    first: str
    second: str
    key: Key
    name: str
    result: PairedComparison
    adjusted: float
    unlike: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """In plain words."""
        return verdict(self.result, self.first, self.second, self.adjusted)


@dataclass(frozen=True)
class Pair:
    """Two runs: their comparisons, the numbers as a table, and remarks."""

    first: str
    second: str
    comparisons: tuple[Comparison, ...]
    table: Table | None
    remarks: tuple[str, ...]

    @property
    def title(self) -> str:
        """Which run against which."""
        return f"{self.second} against {self.first}"


def objective(label: str) -> str | None:
    """``dft`` or ``sft`` if the label names one of the two as a word, else None."""
    names = {"dft", "sft"} & set(re.split(r"[^a-z0-9]+", label.casefold()))
    return names.pop() if len(names) == 1 else None


def _ordered(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Each run with every later one; DFT against SFT first, and never SFT against DFT."""
    pairs = []
    for later, second in enumerate(runs):
        for first in runs[:later]:
            swap = (objective(first.label), objective(second.label)) == ("dft", "sft")
            pairs.append((second, first) if swap else (first, second))
    names = [(objective(first.label), objective(second.label)) for first, second in pairs]
    order = sorted(range(len(pairs)), key=lambda index: names[index] != ("sft", "dft"))
    return [pairs[index] for index in order]


def _unlike(first: Evaluation, second: Evaluation) -> tuple[str, ...]:
    """Settings other than the model in which two evaluations differ."""
    fields = {"metric", "harness", "judge", "seed"}
    a, b = (one.row.model_dump(include=fields) | one.row.decoding for one in (first, second))
    return tuple(
        f"{field} {a.get(field)!r} and {b.get(field)!r}"
        for field in {**a, **b}
        if a.get(field) != b.get(field)
    )


def _compare(first: Mapping[str, ItemScore], second: Mapping[str, ItemScore]) -> PairedComparison:
    return compare(
        {item.id: item.score for item in first.values()},
        {item.id: item.score for item in second.values()},
        {item.id: item.cluster for item in (*first.values(), *second.values()) if item.cluster},
    )


def _comparisons(first: Run, second: Run, keys: Sequence[Key]) -> list[Comparison]:
    rows = []
    for key in keys:
        a, b = first.evaluations.get(key), second.evaluations.get(key)
        if a is None or b is None:
            continue
        results = {key_name(key): _compare(a.items, b.items)}
        if a.problems and b.problems:
            # The score is that of whole problems; their single questions come second.
            single = results[key_name(key)]
            results = {key_name(key): _compare(a.problems, b.problems)}
            results[f"{key_name(key)}, single questions"] = single
        rows += [
            Comparison(
                first.label, second.label, key, name, result, adjusted=1.0, unlike=_unlike(a, b)
            )
            for name, result in results.items()
        ]
    return rows


def compare_runs(
    runs: Sequence[Run], chosen: Sequence[tuple[str, str]] | None = None
) -> tuple[Pair, ...]:
    """Pairs of runs on all benchmarks.

    The verdicts follow p-values that Holm's method corrects for the number of comparisons.

    Args:
        chosen: labels, ("dft", "sft") for DFT against SFT; None for all pairs, DFT against SFT
            first.
    """
    keys = benchmarks(runs)
    by_label = {run.label: run for run in runs}
    if chosen is None:
        pairs = _ordered(runs)
    else:
        pairs = [(by_label[second], by_label[first]) for first, second in chosen]
    rows = [row for first, second in pairs for row in _comparisons(first, second, keys)]
    tested = [row for row in rows if row.result.effect is not None]
    adjusted = holm([row.result.effect.p for row in tested if row.result.effect is not None])
    by_row = dict(zip(map(id, tested), adjusted, strict=True))
    rows = [replace(row, adjusted=by_row.get(id(row), 1.0)) for row in rows]
    return tuple(
        _pair(
            first,
            second,
            tuple(row for row in rows if (row.first, row.second) == (first.label, second.label)),
            keys,
        )
        for first, second in pairs
    )


def _pair(first: Run, second: Run, rows: Sequence[Comparison], keys: Sequence[Key]) -> Pair:
    remarks = []
    for key in keys:
        run_by = [run.label for run in (first, second) if key in run.evaluations]
        if len(run_by) == 1:
            remarks.append(f"{key_name(key)}: not compared, only {run_by[0]} has run it.")
    for row in rows:
        left_out = {
            f"only in {row.first}": row.result.only_first,
            f"only in {row.second}": row.result.only_second,
            "in both but unscored in at least one": row.result.unscored,
        }
        parts = [f"{plural(count, 'item')} {where}" for where, count in left_out.items() if count]
        if parts:
            remarks.append(f"{row.name}: left out {', '.join(parts)}.")
        if row.unlike and row.name == key_name(row.key):
            remarks.append(f"{row.name}: not like for like, {'; '.join(row.unlike)}.")
    return Pair(first.label, second.label, tuple(rows), _table(rows), tuple(remarks))


def _bare_p(p: float) -> str:
    return p_value(p).removeprefix("p = ").removeprefix("p ")


def _table(rows: Sequence[Comparison]) -> Table | None:
    lines = []
    for row in rows:
        result, effect = row.result, row.result.effect
        if effect is None:
            continue
        items = f"{result.n_paired:,}"
        if result.n_clusters != result.n_paired:
            items += f" ({result.n_clusters:,} problems)"
        lines.append(
            (
                row.name,
                items,
                percent(effect.mean_first),
                percent(effect.mean_second),
                points(effect.difference, effect.stderr),
                " to ".join(map(points, effect.interval)),
                f"{effect.won} / {effect.lost} / {effect.tied}",
                _bare_p(effect.p),
                _bare_p(row.adjusted),
            )
        )
    if not lines:
        return None
    head = (
        *("benchmark", "items in both", rows[0].first, rows[0].second),
        *("difference (points)", "95 % interval (points)", "won / lost / tied", "p"),
        "p, corrected",
    )
    return Table(head, tuple(lines))
