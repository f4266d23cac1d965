"""Writes `docs/study.md` from the results of the study's experiments.

    python configs/study/make_document.py                              # from docs/study/*.json
    python configs/study/make_document.py runs/demo runs/study/python  # takes up these runs first

`docs/study/NAME.json` holds the scores of every problem in every evaluation of an experiment, so
that the document and its intervals can be made again without the models. Seeds that are run later,
or elsewhere, are added to those stored if their recipe is the same.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import yaml
from claims import CLAIMS, Claim, Where

from dft_eval.report.collect import read_run
from dft_eval.report.formats import p_value
from dft_eval.results import read_items, read_results
from dft_eval.seed_statistics import PairedDifference, crossed, paired_difference, score_interval
from dft_factory.probe.collapse import HEADLINES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.append(str(ROOT))
from benchmarks.collapse import OUTCOMES, confusion, outcomes  # noqa: E402

STORE = ROOT / "docs" / "study"
EXPERIMENTS = ROOT / "configs" / "experiments"
COLLAPSE = (
    "A DFT training has collapsed where its greedy score lies below the base model's by more than "
    "the 95 % interval. The advice is that of `dft-factory probe` on its settings (for token "
    "weights alone), the watch the warning during training."
)


@dataclass(frozen=True)
class Row:
    """One evaluation of one model.

    Attributes:
        label: as in the report: ``dft, learning_rate 1e-05``.
        seed: of the training; None for the base.
        decoding: ``greedy``, ``temperature 1``; of a matched base that of what it matches.
        scores: of every problem.
        templates: of every problem; items of one are a cluster.
        recipe: SHA-256 of the training's settings without its seed and folders; None for the base.
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
    recipe: str | None


@dataclass(frozen=True)
class Training:
    """A DFT training that is evaluated greedily.

    Attributes:
        risk: the advice of ``probe`` on its settings.
        watch: what the watch said during the training.
    """

    label: str
    seed: int
    benchmark: str
    risk: str
    watch: str


class Cell(NamedTuple):
    """What is one row of a table: the seeds of one label, benchmark and decoding."""

    label: str
    benchmark: str
    decoding: str


Table = dict[Cell, list[Row]]


@dataclass(frozen=True)
class Stored:
    """What ``docs/study/NAME.json`` holds of an experiment."""

    rows: Sequence[Row] = ()
    trainings: Sequence[Training] = ()

    @property
    def table(self) -> Table:
        """The rows of each label, benchmark and decoding."""
        table: Table = defaultdict(list)
        for row in self.rows:
            table[Cell(row.label, row.benchmark, row.decoding)].append(row)
        return table


def collect(folder: Path) -> Stored:
    """All evaluations and DFT trainings below an experiment's folder."""
    rows: list[Row] = []
    trainings: list[Training] = []
    for file in sorted(folder.rglob("results.json")):
        rows += evaluations(file)
        if (file.parent / "model").is_dir() and (folder / "base" / "results.json").is_file():
            trainings += dft_trainings(folder / "base", file.parent)
    return Stored(rows, trainings)


def evaluations(file: Path) -> Iterator[Row]:
    """The evaluations in one results.json."""
    results = read_results(file)
    for result in results.results:
        items = [row for row in read_items(file.parent / result.items) if row.score is not None]
        yield Row(
            label=results.label,
            seed=results.training.seed if results.training else None,
            benchmark=result.benchmark,
            decoding=result.decoding_name,
            temperature=result.decoding.get("temperature", 0.0),
            samples=result.decoding.get("samples", 1),
            mean_entropy=result.mean_entropy,
            breakdown={k: v for k, v in result.breakdown.items() if k.startswith("pass@")},
            scores={row.id: round(row.score or 0.0, 4) for row in items},
            templates={row.id: row.cluster or row.id for row in items},
            recipe=recipe_hash(file.parent) if results.training else None,
        )


def recipe_hash(folder: Path) -> str | None:
    """Of the settings of the training whose results are in or below ``folder``'s parents."""
    file = next(
        (
            each / "train.yaml"
            for each in (folder, *folder.parents)
            if (each / "train.yaml").is_file()
        ),
        None,
    )
    if file is None:
        return None
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    for name in ("seed", "output_dir", "model_name_or_path", "dataset_dir"):
        values.pop(name, None)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def dft_trainings(base: Path, run: Path) -> Iterator[Training]:
    """The training of one run, if it is DFT's."""
    results = read_results(run / "results.json")
    for outcome in outcomes(read_run(base), read_run(run)):
        if outcome.dft and results.training is not None:
            yield Training(
                label=results.label,
                seed=results.training.seed or 0,
                benchmark=outcome.benchmark,
                risk=HEADLINES[outcome.risk],
                watch=OUTCOMES[outcome.warned],
            )


def merged(old: Stored, new: Stored) -> Stored:
    """Both, the newer where both have it. Another recipe replaces all seeds of a label."""
    recipes = {row.label: row.recipe for row in new.rows}
    same = {row.label for row in old.rows if recipes.get(row.label, row.recipe) == row.recipe}
    done = {(row.label, row.seed, row.benchmark, row.decoding) for row in new.rows}
    rows = [
        row
        for row in old.rows
        if row.label in same and (row.label, row.seed, row.benchmark, row.decoding) not in done
    ]
    trained = {(row.label, row.seed, row.benchmark) for row in new.trainings}
    trainings = [
        row
        for row in old.trainings
        if row.label in same and (row.label, row.seed, row.benchmark) not in trained
    ]
    return Stored([*rows, *new.rows], [*trainings, *new.trainings])


def path_of(name: str) -> Path:
    """Where the results of the experiment ``name`` are stored."""
    return STORE / f"{Path(name).name}.json"


def store(name: str, stored: Stored) -> None:
    """Write ``docs/study/NAME.json``; templates once."""
    templates = {id: template for row in stored.rows for id, template in row.templates.items()}
    values = {
        "templates": templates,
        "rows": [{**asdict(row), "templates": None} for row in stored.rows],
        "trainings": [asdict(row) for row in stored.trainings],
    }
    STORE.mkdir(exist_ok=True)
    path_of(name).write_text(f"{json.dumps(values, ensure_ascii=False)}\n", encoding="utf-8")


def load(name: str) -> Stored:
    """What was stored of an experiment; empty where nothing was."""
    if not path_of(name).is_file():
        return Stored()
    values = json.loads(path_of(name).read_text(encoding="utf-8"))
    templates = values["templates"]
    rows = [
        Row(**{**row, "templates": {id: templates[id] for id in row["scores"]}})
        for row in values["rows"]
    ]
    return Stored(rows, [Training(**row) for row in values["trainings"]])


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
    for place in claim.where:
        name = place.experiment
        for point, first, second in points(tables[name], claim, place):
            result = difference(first, second)
            if result is None:
                continue
            low, high = result.interval
            where = f"`{name}`" + (f", {point}" if point else "")
            lines.append(
                f"- {where}: {verdict(result, claim.expected)}: "
                f"{first[0].label.partition(', ')[0]} less {claim.second} ({claim.decoding}) "
                f"{100 * result.estimate.mean:+.1f} points "
                f"({100 * low:+.1f} to {100 * high:+.1f}), "
                f"{p_value(result.p)}, {len(first)} seed{'s' * (len(first) > 1)}, "
                f"{len(first[0].scores)} problems."
            )
            is_run = True
    if not is_run:
        names = dict.fromkeys(place.experiment for place in claim.where)
        experiments = " or ".join(f"`dft-factory run {name}`" for name in names)
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
