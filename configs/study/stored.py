"""The study's results as ``docs/study/NAME.json`` holds them: read from runs, merged, stored."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from dft_eval.report.collect import read_run
from dft_eval.results import read_items, read_results
from dft_factory.probe.collapse import HEADLINES

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))
from benchmarks.collapse import OUTCOMES, outcomes  # noqa: E402

STORE = ROOT / "docs" / "study"


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
