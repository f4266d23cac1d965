"""Variants against each other: pairs on every benchmark, corrected for how many there are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dft_eval.report.comparison import PairedComparison, Scores, compare, seeds_or_items, verdict
from dft_eval.report.formats import p_value, percent, plural, points, points_between, size
from dft_eval.report.runs import Key, Pooled, Variant, benchmarks, key_name, paired_seeds
from dft_eval.report.scores import Table, score_text
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
        """The comparison as a sentence."""
        words = verdict(self.result, self.first, self.second, self.adjusted)
        effect = self.result.effect
        cause = seeds_or_items(effect.estimate) if effect else ""
        return f"{words}. {cause}" if cause else words


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
        """Heading: ``second against first``."""
        return f"{self.second} against {self.first}"


def objective(label: str) -> str | None:
    """``dft`` or ``sft`` if the label names one of the two as a word, else None."""
    names = {"dft", "sft"} & set(re.split(r"[^a-z0-9]+", label.casefold()))
    return names.pop() if len(names) == 1 else None


def _ordered(variants: Sequence[Variant]) -> list[tuple[Variant, Variant]]:
    """All pairs, DFT against SFT first (never SFT against DFT)."""
    pairs = []
    for later, second in enumerate(variants):
        for first in variants[:later]:
            swap = (objective(first.label), objective(second.label)) == ("dft", "sft")
            pairs.append((second, first) if swap else (first, second))
    names = [(objective(first.label), objective(second.label)) for first, second in pairs]
    order = sorted(range(len(pairs)), key=lambda index: names[index] != ("sft", "dft"))
    return [pairs[index] for index in order]


def _compare(
    pairs: Sequence[tuple[Mapping[str, ItemScore], Mapping[str, ItemScore]]],
) -> PairedComparison:
    def scores(items: Mapping[str, ItemScore]) -> Scores:
        return {item.id: item.score for item in items.values()}

    items = [item for pair in pairs for side in pair for item in side.values()]
    return compare(
        [(scores(first), scores(second)) for first, second in pairs],
        {item.id: item.cluster for item in items if item.cluster},
    )


def compare_pooled(first: Pooled, second: Pooled) -> PairedComparison:
    """Compare the units that the score averages, over the seeds that both have."""
    pairs = paired_seeds(first.by_seed, second.by_seed)
    if all(a.problems and b.problems for a, b in pairs):
        return _compare([(a.units, b.units) for a, b in pairs])
    return _compare([(a.items, b.items) for a, b in pairs])


def _comparisons(first: Variant, second: Variant, keys: Sequence[Key]) -> list[Comparison]:
    rows = []
    for key in keys:
        if key not in first.evaluations or key not in second.evaluations:
            continue
        one, other = first.evaluations[key], second.evaluations[key]
        pairs = paired_seeds(one.by_seed, other.by_seed)
        unlike = tuple(dict.fromkeys(text for a, b in pairs for text in a.unlike(b).values()))
        results = {key_name(key): compare_pooled(one, other)}
        if pairs and all(a.problems and b.problems for a, b in pairs):
            # The score is that of whole problems; their single questions come second.
            name = f"{key_name(key)}, single questions"
            results[name] = _compare([(a.items, b.items) for a, b in pairs])
        rows += [
            Comparison(first.label, second.label, key, name, result, 1.0, unlike)
            for name, result in results.items()
        ]
    return rows


def compare_variants(
    variants: Sequence[Variant], chosen: Sequence[tuple[str, str]] | None = None
) -> tuple[Pair, ...]:
    """Pairs of variants on all benchmarks.

    The verdicts follow p-values that Holm's method corrects for the number of comparisons.

    Args:
        chosen: labels, ("dft", "sft") for DFT against SFT; None for all pairs, DFT against SFT
            first.
    """
    keys = benchmarks(variants)
    by_label = {variant.label: variant for variant in variants}
    if chosen is None:
        pairs = _ordered(variants)
    else:
        pairs = [(by_label[second], by_label[first]) for first, second in chosen]
    rows = [_comparisons(first, second, keys) for first, second in pairs]
    tested = [row.result.effect.p for of_pair in rows for row in of_pair if row.result.effect]
    adjusted = iter(holm(tested))
    return tuple(
        _pair(
            first,
            second,
            tuple(
                replace(row, adjusted=next(adjusted)) if row.result.effect else row
                for row in of_pair
            ),
            keys,
        )
        for (first, second), of_pair in zip(pairs, rows, strict=True)
    )


def _pair(first: Variant, second: Variant, rows: Sequence[Comparison], keys: Sequence[Key]) -> Pair:
    remarks = _seed_remarks(first, second)
    for key in keys:
        run_by = [variant.label for variant in (first, second) if key in variant.evaluations]
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
            of = f" (of {row.result.n_seeds} seeds)" if row.result.n_seeds > 1 else ""
            remarks.append(f"{row.name}: left out {', '.join(parts)}{of}.")
        if row.unlike and row.name == key_name(row.key):
            remarks.append(f"{row.name}: not like for like, {'; '.join(row.unlike)}.")
    return Pair(first.label, second.label, tuple(rows), _table(rows), tuple(remarks))


def _seed_remarks(first: Variant, second: Variant) -> list[str]:
    """Remark on the seeds that are paired, unless all seeds of both are."""
    if first.seeds == second.seeds or not (first.seeded or second.seeded):
        if first.seeds != second.seeds and None not in (*first.seeds, *second.seeds):
            return [f"Different training seeds: {first.seeds[0]} and {second.seeds[0]}."]
        return []
    common = [seed for seed in first.seeds if seed in second.seeds]
    for one, other in ((first, second), (second, first)):
        if not common and not one.seeded:
            return [
                f"{one.label} is one run, compared with each seed of {other.label}: the interval "
                f"does not cover another training of {one.label}."
            ]
    listed = ", ".join(map(str, common)) or "none, so there is no comparison"
    seeds = (
        f"{variant.label} has {', '.join(map(str, variant.seeds))}" for variant in (first, second)
    )
    return [f"Seeds that both have: {listed} ({'; '.join(seeds)})."]


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
        if result.n_seeds > 1:
            items += f", {result.n_seeds} seeds"
        lines.append(
            (
                row.name,
                items,
                percent(effect.mean_first),
                percent(effect.mean_second),
                points(effect.difference, effect.estimate.stderr),
                points_between(effect.interval),
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


def seed_table(
    variants: Sequence[Variant], pairs: Sequence[Pair], reference: str | None
) -> Table | None:
    """Each score by seed, its two errors, and the difference from ``reference``.

    None where there are neither seeds nor a reference.
    """
    if reference is None and not any(variant.seeded for variant in variants):
        return None
    against = {
        (row.key, row.second): row
        for pair in pairs
        for row in pair.comparisons
        if row.first == reference and row.name == key_name(row.key)
    }
    rows = []
    for key in benchmarks(variants):
        for variant in variants:
            if pooled := variant.evaluations.get(key):
                cells = (key_name(key), variant.label, score_text(pooled), *_seed_cells(pooled))
                row = against.get((key, variant.label))
                rows.append((*cells, *_against(row)) if reference else cells)
    head = (
        *("benchmark", "run", "score, 95 % interval", "by seed", "SD between seeds (points)"),
        *("error over items (points)", "interval mostly from"),
        *((f"against {reference} (points)", "p", "p, corrected") if reference else ()),
    )
    return Table(head, tuple(rows)) if rows else None


def _seed_cells(pooled: Pooled) -> tuple[str, str, str, str]:
    """Cells: scores by seed, SD between seeds, error over items, and which is larger."""
    scores = [
        f"{seed}: {'unscored' if one.row.score is None else percent(one.row.score)}"
        for seed, one in pooled.by_seed.items()
    ]
    listed = ", ".join(scores) if len(scores) > 1 else "one run"
    estimate = pooled.estimate
    if estimate is None:
        return listed, "undefined", "undefined", "undefined"
    items = size(estimate.items)
    if estimate.spread is None:
        return listed, "", items, "items"
    spread = size(estimate.spread)
    return listed, spread, items, "seeds" if estimate.seeds_dominate else "items"


def _against(row: Comparison | None) -> tuple[str, str, str]:
    if row is None or row.result.effect is None:
        return "", "", ""
    effect = row.result.effect
    interval = points_between(effect.interval)
    difference = f"{points(effect.difference)} ({interval})"
    return difference, _bare_p(effect.p), _bare_p(row.adjusted)
