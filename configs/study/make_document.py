"""Writes `docs/study.md` from the results of the study's experiments.

    python configs/study/make_document.py                              # from docs/study/*.json
    python configs/study/make_document.py runs/demo runs/study/python  # takes up these runs first

`docs/study/NAME.json` holds the scores of every problem in every evaluation of an experiment, so
that the document and its intervals can be made again without the models.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import yaml
from claims import CLAIMS, Claim

from dft_eval.results import read_items, read_results
from dft_eval.seed_statistics import PairedDifference, crossed, paired_difference, score_interval

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STORE = ROOT / "docs" / "study"
EXPERIMENTS = ROOT / "configs" / "experiments"
BASE = "base"


@dataclass(frozen=True)
class Row:
    """One evaluation of one model.

    Attributes:
        label: as in the report: ``dft, learning_rate 1e-05``.
        seed: of the training; None for the base.
        decoding: ``greedy``, ``temperature 1``; of a matched base that of what it matches.
        scores: of every problem.
        templates: of every problem; items of one are a cluster.
    """

    label: str
    seed: int | None
    benchmark: str
    decoding: str
    temperature: float
    samples: int
    mean_entropy: float | None
    breakdown: Mapping[str, float | None]
    scores: Mapping[str, float]
    templates: Mapping[str, str]


class Cell(NamedTuple):
    """What is one row of a table: the seeds of one label, benchmark and decoding."""

    label: str
    benchmark: str
    decoding: str


Table = dict[Cell, list[Row]]


def collect(folder: Path) -> list[Row]:
    """All evaluations below an experiment's folder."""
    rows = []
    for file in sorted(folder.rglob("results.json")):
        results = read_results(file)
        for each in results.results:
            items = [row for row in read_items(file.parent / each.items) if row.score is not None]
            rows.append(
                Row(
                    label=results.label,
                    seed=results.training.seed if results.training else None,
                    benchmark=each.benchmark,
                    decoding=each.decoding_name,
                    temperature=each.decoding.get("temperature", 0.0),
                    samples=each.decoding.get("samples", 1),
                    mean_entropy=each.mean_entropy,
                    breakdown={k: v for k, v in each.breakdown.items() if k.startswith("pass@")},
                    scores={row.id: round(row.score or 0.0, 4) for row in items},
                    templates={row.id: row.cluster or row.id for row in items},
                )
            )
    return rows


def store(name: str, rows: Sequence[Row]) -> None:
    """Write ``docs/study/NAME.json``; templates once."""
    templates = {id: template for row in rows for id, template in row.templates.items()}
    values = [{**asdict(row), "templates": None} for row in rows]
    STORE.mkdir(exist_ok=True)
    text = json.dumps({"templates": templates, "rows": values}, ensure_ascii=False)
    (STORE / f"{Path(name).name}.json").write_text(f"{text}\n", encoding="utf-8")


def load(name: str) -> Table:
    """What was stored of an experiment; empty where nothing was."""
    table: Table = defaultdict(list)
    path = STORE / f"{Path(name).name}.json"
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        for values in stored["rows"]:
            row = Row(**{**values, "templates": stored["templates"]})
            table[Cell(row.label, row.benchmark, row.decoding)].append(row)
    return table


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


def points(table: Table, claim: Claim) -> list[tuple[str, list[Row], list[Row]]]:
    """Both sides of a claim at every point of the experiment's grid."""
    sides = []
    for cell in table:
        variant, comma, point = cell.label.partition(", ")
        if (variant, cell.decoding) != (claim.first, claim.decoding):
            continue
        if not cell.benchmark.startswith(claim.benchmark):
            continue
        for label in (f"{claim.second}{comma}{point}", claim.second):
            other = table.get(cell._replace(label=label))
            if other:
                sides.append((point, table[cell], other))
                break
    return sides


def verdict(result: PairedDifference, expected: int) -> str:
    """``expected``: 1 where the claim is that the first side scores higher, -1 lower."""
    low, high = (expected * end for end in result.interval)
    if min(low, high) > 0:
        return "**confirmed here**"
    return "**contradicted here**" if max(low, high) < 0 else "**not confirmed here**"


def claim_section(claim: Claim, tables: Mapping[str, Table]) -> list[str]:
    """One claim: verdict, difference and interval at every point, and what would settle it."""
    lines = ["", f"### {claim.text}", ""]
    is_run = False
    for name in claim.experiments:
        for point, first, second in points(tables[name], claim):
            result = difference(first, second)
            if result is None:
                continue
            low, high = result.interval
            where = f"`{name}`" + (f", {point}" if point else "")
            lines.append(
                f"- {where}: {verdict(result, claim.expected)}: {claim.first} less {claim.second} "
                f"({claim.decoding}) "
                f"{100 * result.estimate.mean:+.1f} points "
                f"({100 * low:+.1f} to {100 * high:+.1f}), "
                f"p = {result.p:.3f}, {len(first)} seed{'s' * (len(first) > 1)}, "
                f"{len(first[0].scores)} problems."
            )
            is_run = True
    if not is_run:
        experiments = " or ".join(f"`dft-factory run {name}`" for name in claim.experiments)
        lines.append(f"- **not run**: {experiments}")
    return [*lines, "", f"What would settle it: {claim.settle}"]


def experiment_section(name: str, table: Table) -> list[str]:
    """What was run of one experiment, and its scores."""
    about = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8"))
    lines = ["", f"### {name}", "", f"{about['description'].rstrip('.')}."]
    planned = about["train"].get("seeds", [0])
    seeds = sorted({row.seed for rows in table.values() for row in rows if row.seed is not None})
    problems = max(len(row.scores) for rows in table.values() for row in rows)
    lines += [f"Run: seeds {seeds} of {planned}, {problems} held-out problems."]
    return lines + result_table(table)


def main() -> None:
    """Take up the results of the experiments' folders given, then write the document."""
    for folder in map(Path, sys.argv[1:]):
        name = json.loads((folder / "plan.json").read_text(encoding="utf-8"))["name"]
        store(name, collect(folder))
    names = ["demo", *sorted(f"study/{path.stem}" for path in EXPERIMENTS.glob("study/*.yaml"))]
    tables = {name: load(name) for name in names}
    run = [name for name in names if tables[name]]
    lines = [(HERE / "introduction.md").read_text(encoding="utf-8"), "## What was run", ""]
    lines += [f"- run, wholly or in part: {', '.join(run) or 'nothing yet'}"]
    lines += [f"- not run: {', '.join(name for name in names if name not in run) or 'nothing'}"]
    lines += ["", "## Claims"]
    for claim in CLAIMS:
        lines += claim_section(claim, tables)
    lines += ["", "## Results"]
    for name in run:
        lines += experiment_section(name, tables[name])
    (ROOT / "docs" / "study.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
