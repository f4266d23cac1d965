"""Writes `docs/study.md` from the results of the study's experiments.

    python configs/study/make_document.py                              # from docs/study/*.json
    python configs/study/make_document.py runs/demo runs/study/python  # takes up these runs first

`docs/study/NAME.json` holds the scores of every problem in every evaluation of an experiment, so
that the document and its intervals can be made again without the models. Seeds that are run later,
or elsewhere, are added to those stored if their recipe is the same.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import yaml
from claims import CLAIMS, Claim, Where
from stored import Cell, Row, Stored, Table, collect, load, merged, store

from benchmarks.collapse import confusion
from dft_eval.report.formats import p_value
from dft_eval.seed_statistics import PairedDifference, crossed, paired_difference, score_interval

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXPERIMENTS = ROOT / "configs" / "experiments"
CONFIRMED, OPEN, CONTRADICTED = "confirmed", "not confirmed", "contradicted"
COLLAPSE = (
    "A DFT training has collapsed where its greedy score lies below the base model's by more than "
    "the 95 % interval. The advice is that of `dft-factory probe` on its settings (for token "
    "weights alone), the watch the warning during training."
)


def score_text(rows: Sequence[Row]) -> str:
    """The mean over seeds with its 95 % interval."""
    seeds = [[[(row.templates[id], score) for id, score in row.scores.items()]] for row in rows]
    estimate = crossed(seeds)
    if estimate is None:
        return "not scored"
    clusters = len({row.templates[id] for row in rows for id in row.scores})
    low, high = score_interval(estimate, len(rows[0].scores), clusters)
    return f"{estimate.mean:.1%} ({low:.1%} to {high:.1%})"


def difference(first: Sequence[Row], second: Sequence[Row]) -> PairedDifference | None:
    """First less second, paired by problem and by seed; a base without seeds is paired with all."""
    seeds = []
    for one in first:
        for other in second:
            if None in (one.seed, other.seed) or one.seed == other.seed:
                shared = one.scores.keys() & other.scores.keys()
                pairs = [
                    (one.templates[id], one.scores[id] - other.scores[id]) for id in sorted(shared)
                ]
                seeds.append(pairs)
    return paired_difference(seeds)


def result_table(table: Table) -> list[str]:
    """Scores of all models on one benchmark, a column a decoding."""
    lines: list[str] = []
    for benchmark in dict.fromkeys(cell.benchmark for cell in table):
        decodings = sorted({cell.decoding for cell in table if cell.benchmark == benchmark})
        lines += [
            "",
            f"| {benchmark} | " + " | ".join(decodings) + " | entropy |",
        ]
        lines += ["|---" * (len(decodings) + 2) + "|"]
        for label in dict.fromkeys(cell.label for cell in table if cell.benchmark == benchmark):
            cells = [table.get(Cell(label, benchmark, each), []) for each in decodings]
            texts = [score_text(rows) if rows else "" for rows in cells]
            sampled = [row for rows in cells for row in rows if row.temperature > 0]
            hottest = max((row.temperature for row in sampled), default=0.0)
            entropies = [row.mean_entropy for row in sampled if row.temperature == hottest]
            known = [value for value in entropies if value is not None]
            entropy = f"{fmean(known):.2f} (T {hottest:.2f})" if known else ""
            lines.append(f"| {label} | " + " | ".join(texts) + f" | {entropy} |")
    return lines


def points(table: Table, claim: Claim, where: Where) -> list[tuple[str, list[Row], list[Row]]]:
    """Both sides of a claim at every point of the experiment's grid."""
    sides = []
    first = claim.first if where.step is None else f"{claim.first} at step {where.step}"
    for cell in table:
        variant, comma, point = cell.label.partition(", ")
        if (variant, cell.decoding) != (first, claim.decoding) or where.grid not in point:
            continue
        if not cell.benchmark.startswith(where.benchmark):
            continue
        for label in (f"{claim.second}{comma}{point}", claim.second):
            other = table.get(cell._replace(label=label))
            if other:
                sides.append((point, table[cell], other))
                break
    return sides


@dataclass(frozen=True)
class Evidence:
    """One comparison that tests a claim.

    Attributes:
        where: experiment and point of its grid.
        text: both sides, the difference and its interval.
    """

    where: str
    verdict: str
    text: str


def verdict(result: PairedDifference, expected: int) -> str:
    """``expected``: 1 where the claim is that the first side scores higher, -1 lower."""
    low, high = (expected * end for end in result.interval)
    if min(low, high) > 0:
        return CONFIRMED
    return CONTRADICTED if max(low, high) < 0 else OPEN


def evidence(claim: Claim, tables: Mapping[str, Table]) -> Iterator[Evidence]:
    """Every comparison that was run of a claim."""
    for place in claim.where:
        name = place.experiment
        for point, first, second in points(tables[name], claim, place):
            result = difference(first, second)
            if result is None:
                continue
            low, high = result.interval
            yield Evidence(
                where=f"`{name}`" + (f", {point}" if point else ""),
                verdict=verdict(result, claim.expected),
                text=f"{first[0].label.partition(', ')[0]} less {claim.second} ({claim.decoding}) "
                f"{100 * result.estimate.mean:+.1f} points "
                f"({100 * low:+.1f} to {100 * high:+.1f}), "
                f"{p_value(result.p)}, {len(first)} seed{'s' * (len(first) > 1)}, "
                f"{len(first[0].scores)} problems.",
            )


def summary(tables: Mapping[str, Table]) -> list[str]:
    """How many comparisons confirm each claim, and how many do not."""
    verdicts = (CONFIRMED, OPEN, CONTRADICTED)
    lines = [f"| claim | {' | '.join(verdicts)} |", "|---" * (len(verdicts) + 1) + "|"]
    for claim in CLAIMS:
        counts = Counter(each.verdict for each in evidence(claim, tables))
        cells = [str(counts[name]) for name in verdicts] if counts else ["not run", "", ""]
        lines.append(f"| {claim.text} | {' | '.join(cells)} |")
    return lines


def claim_section(claim: Claim, tables: Mapping[str, Table]) -> list[str]:
    """One claim: verdict, difference and interval at every point, and what would settle it."""
    lines = [
        f"- {each.where}: **{each.verdict} here**: {each.text}" for each in evidence(claim, tables)
    ]
    if not lines:
        names = dict.fromkeys(place.experiment for place in claim.where)
        experiments = " or ".join(f"`dft-factory run {name}`" for name in names)
        lines = [f"- **not run**: {experiments}"]
    heading = ["", f"### {claim.text}", ""]
    return [*heading, *lines, "", f"What would settle it: {claim.settle}"]


def experiment_section(name: str, table: Table) -> list[str]:
    """What was run of one experiment, and its scores."""
    about = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8"))
    lines = ["", f"### {name}", "", f"{about['description'].rstrip('.')}."]
    planned = about["train"].get("seeds", [0])
    seeds = sorted({row.seed for rows in table.values() for row in rows if row.seed is not None})
    problems = max(len(row.scores) for rows in table.values() for row in rows)
    lines += [f"Run: seeds {seeds} of {planned}, {problems} held-out problems."]
    return lines + result_table(table)


def collapse_section(stored: Mapping[str, Stored]) -> list[str]:
    """DFT's trainings against the base, and what advice and watch said of them."""
    advice, watch, rows = [], [], []
    for name, results in stored.items():
        table = results.table
        for training in results.trainings:
            cell = Cell(training.label, training.benchmark, "greedy")
            tuned = [row for row in table[cell] if row.seed == training.seed]
            result = difference(tuned, table[cell._replace(label="base")])
            if result is None:
                continue
            low, high = (100 * end for end in result.interval)
            advice.append((training.risk, high < 0))
            watch.append((training.watch, high < 0))
            rows.append(
                f"| {name} | {training.label} | {training.seed} | "
                f"{100 * result.estimate.mean:+.1f} ({low:+.1f} to {high:+.1f})"
                f"{' **collapsed**' if high < 0 else ''} | {training.risk} | {training.watch} |"
            )
    return [
        *("", COLLAPSE, "", confusion("advice of `probe`", advice)),
        *("", confusion("watch in training", watch), ""),
        "| experiment | training | seed | less base, greedy, points | advice | watch |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def main() -> None:
    """Take up the results of the experiments' folders given, then write the document."""
    for folder in map(Path, sys.argv[1:]):
        name = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["name"]
        store(name, merged(load(name), collect(folder)))
    names = ["demo", *sorted(f"study/{path.stem}" for path in EXPERIMENTS.glob("study/*.yaml"))]
    stored = {name: load(name) for name in names}
    tables = {name: stored[name].table for name in names}
    run = [name for name in names if tables[name]]
    lines = [(HERE / "introduction.md").read_text(encoding="utf-8"), "## What was run", ""]
    lines += [f"- run, wholly or in part: {', '.join(run) or 'nothing yet'}"]
    lines += [f"- not run: {', '.join(name for name in names if name not in run) or 'nothing'}"]
    lines += ["", "## In short", ""]
    lines += ["Comparisons that were run, each at one point of an experiment's grid:", ""]
    lines += summary(tables)
    lines += ["", "## Claims"]
    for claim in CLAIMS:
        lines += claim_section(claim, tables)
    lines += ["", "## Collapse"]
    lines += collapse_section(stored)
    lines += ["", "## Results"]
    for name in run:
        lines += experiment_section(name, tables[name])
    (ROOT / "docs" / "study.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
