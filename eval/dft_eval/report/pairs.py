"""Each run against each earlier one, in words and in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dft_eval.report.collect import Evaluation, Key, Run
from dft_eval.report.comparison import compare, verdict
from dft_eval.report.formats import p_value, percent, plural, points
from dft_eval.report.tables import Table, key_name


@dataclass(frozen=True)
class Pair:
    """One run against an earlier one: verdicts in words as (benchmark, verdict), then numbers."""

    title: str
    verdicts: tuple[tuple[str, str], ...]
    table: Table | None
    remarks: tuple[str, ...]


def _unlike(first: Evaluation, second: Evaluation) -> list[str]:
    """Settings other than the model in which two evaluations differ."""
    fields = {"metric", "harness", "judge", "seed"}
    a, b = (one.row.model_dump(include=fields) | one.row.decoding for one in (first, second))
    return [
        f"{field} {a.get(field)!r} and {b.get(field)!r}"
        for field in {**a, **b}
        if a.get(field) != b.get(field)
    ]


def pair(first: Run, second: Run, keys: Sequence[Key]) -> Pair:
    """Compare ``second`` with ``first`` on the benchmarks ``keys``."""
    rows, verdicts, remarks = [], [], []
    for key in keys:
        a, b = first.evaluations.get(key), second.evaluations.get(key)
        name = key_name(key)
        if a is None or b is None:
            for run in (first, second):
                if key in run.evaluations:
                    remarks.append(f"{name}: not compared, only {run.label} has run it.")
            continue
        result = compare(
            {item.id: item.score for item in a.items.values()},
            {item.id: item.score for item in b.items.values()},
        )
        verdicts.append((name, verdict(result, first.label, second.label)))
        left_out = {
            f"only in {first.label}": result.only_first,
            f"only in {second.label}": result.only_second,
            "in both but unscored in at least one": result.unscored,
        }
        parts = [f"{plural(count, 'item')} {where}" for where, count in left_out.items() if count]
        if parts:
            remarks.append(f"{name}: left out {', '.join(parts)}.")
        if unlike := _unlike(a, b):
            remarks.append(f"{name}: not like for like, {'; '.join(unlike)}.")
        effect = result.effect
        if effect is None:
            continue
        interval = "undefined"
        if effect.interval:
            interval = " to ".join(map(points, effect.interval))
        rows.append(
            (
                name,
                f"{result.n_paired:,}",
                percent(effect.mean_first),
                percent(effect.mean_second),
                points(effect.difference, effect.stderr),
                interval,
                f"{effect.won} / {effect.lost} / {effect.tied}",
                f"{p_value(effect.p).removeprefix('p = ').removeprefix('p ')} ({effect.method})",
            )
        )
    head = (
        *("benchmark", "items in both", first.label, second.label),
        *("difference (points)", "95 % interval (points)", "won / lost / tied", "p"),
    )
    table = Table(head, tuple(rows)) if rows else None
    title = f"{second.label} against {first.label}"
    return Pair(title, tuple(verdicts), table, tuple(remarks))
