"""Read run folders. Everything is checked here, so that the rest of the report works on good data.

A run folder holds ``results.json`` and the item files that it names. Optional are
``<benchmark>.completions.jsonl``; ``trainer_state.json`` in the folder, one immediate sub folder,
the model's folder or the one above it; ``token_probabilities.json`` or ``probe.json``.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dft_eval.errors import UsageError
from dft_eval.report.formats import one_line
from dft_eval.results import (
    RESULTS_NAME,
    BenchmarkResult,
    ItemScore,
    ResultFile,
    read_items,
    read_results,
)

TRAINER_STATE = "trainer_state.json"
TOKEN_PROBABILITIES = "token_probabilities.json"
PROBE = "probe.json"
CURVES = ("nll", "mean_token_prob")
"""Logged quantities that are drawn: nats a labelled token, and a probability."""

Key = tuple[str, str]
"""A benchmark and its prompt style: scores of different styles are never compared."""

Model = TypeVar("Model", bound=BaseModel)


class Completion(BaseModel):
    """One line of a completions file. Fields that an adapter adds are allowed and not shown."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    prompt: str
    completion: str
    finish_reason: str | None = None
    n_tokens: int | None = None


class TokenProbabilities(BaseModel):
    """``token_probabilities.json``: how probable one model finds the labelled tokens of a data set.

    ``bin_edges`` has one entry more than ``counts`` (tokens a bin); ``nll`` is in nats a token.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: Literal[1]
    model: str
    label: str
    dataset: str
    n_tokens: int = Field(ge=1)
    bin_edges: tuple[float, ...] = Field(min_length=2)
    counts: tuple[int, ...]
    mean: float
    median: float
    share_below: float = Field(alias="share_below_0.1")
    share_above: float = Field(alias="share_above_0.9")
    nll: float

    @model_validator(mode="after")
    def _is_a_histogram(self) -> TokenProbabilities:
        edges, counts = self.bin_edges, self.counts
        if len(edges) != len(counts) + 1:
            raise ValueError(
                f"{len(counts)} counts need {len(counts) + 1} bin_edges, not {len(edges)}"
            )
        if not all(low < high for low, high in itertools.pairwise(edges)):
            raise ValueError("bin_edges do not rise")
        if min(counts) < 0 or sum(counts) != self.n_tokens:
            raise ValueError(f"the counts add up to {sum(counts)}, n_tokens is {self.n_tokens}")
        return self


class Probe(BaseModel):
    """``probe.json``, as ``dft-factory probe`` writes it."""

    model_config = ConfigDict(extra="ignore")

    models: tuple[TokenProbabilities, ...] = Field(min_length=1)

    def of(self, results: ResultFile) -> TokenProbabilities | None:
        """Those of a run: by its label, else by its model."""
        for model in self.models:
            if model.label == results.label:
                return model
        return next((model for model in self.models if model.model == results.model), None)


class _TrainerState(BaseModel):
    model_config = ConfigDict(extra="ignore")

    log_history: list[dict[str, Any]]


@dataclass(frozen=True)
class Points:
    """One curve: optimizer steps and values, as logged; a value may be NaN or infinite."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class LearningCurves:
    """What a trainer logged, by the names in :data:`CURVES`; a name never logged is absent."""

    path: Path
    train: Mapping[str, Points]
    evaluation: Mapping[str, Points]


@dataclass(frozen=True)
class Evaluation:
    """One benchmark of one run.

    ``problems`` are the scores of whole problems where the benchmark's score is their mean and not
    that of its items (WeMath). ``completions`` is ``None`` where none were kept.
    """

    row: BenchmarkResult
    items: Mapping[str, ItemScore]
    problems: Mapping[str, ItemScore] | None
    completions: Mapping[str, Completion] | None

    @property
    def key(self) -> Key:
        return self.row.benchmark, self.row.prompt_style


@dataclass(frozen=True)
class Run:
    """Everything known of one evaluated model."""

    folder: Path
    results: ResultFile
    evaluations: Mapping[Key, Evaluation]
    curves: LearningCurves | None
    probabilities: TokenProbabilities | None

    @property
    def label(self) -> str:
        return self.results.label


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from error


def _parse(model: type[Model], text: str, where: str) -> Model:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(f"{where} is malformed: {error}") from error


def _by_id(rows: Sequence[ItemScore], path: Path) -> dict[str, ItemScore]:
    twice = [name for name, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        raise UsageError(f"{path}: {len(twice)} item ids occur more than once, first {twice[0]!r}.")
    return {row.id: row for row in rows}


def _read_items(folder: Path, row: BenchmarkResult) -> dict[str, ItemScore]:
    if not row.items or Path(row.items).name != row.items:
        raise UsageError(
            f"{folder}: the items file of {row.benchmark} must lie beside results.json, "
            f"but is named {row.items!r}."
        )
    path = folder / row.items
    if not path.is_file():
        raise UsageError(
            f"No {path}, which {folder / 'results.json'} names as the items of {row.benchmark}: "
            f"run `dft-factory eval {row.benchmark} ... --out {folder}` again."
        )
    try:
        return _by_id(read_items(path), path)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from error


def _read_problems(folder: Path, row: BenchmarkResult) -> dict[str, ItemScore] | None:
    path = folder / f"{row.items.removesuffix('.items.jsonl')}.problems.jsonl"
    return _by_id(read_items(path), path) if path.is_file() else None


def _read_completions(path: Path) -> dict[str, Completion] | None:
    if not path.is_file():
        return None
    found: dict[str, Completion] = {}
    # Not splitlines(): JSON may hold U+2028 and its like unescaped.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        row = _parse(Completion, line, f"{path}, line {number}")
        if row.id in found:
            raise UsageError(f"{path}, line {number}: a second completion of item {row.id!r}.")
        found[row.id] = row
    return found


def _completions_path(folder: Path, row: BenchmarkResult, rows: Sequence[BenchmarkResult]) -> Path:
    """``x.completions.jsonl`` beside ``x.items.jsonl``, else ``<benchmark>.completions.jsonl``.

    The latter only where the benchmark was run in one prompt style: of two it could be either's.
    """
    beside = folder / f"{row.items.removesuffix('.items.jsonl')}.completions.jsonl"
    if beside.is_file() or sum(other.benchmark == row.benchmark for other in rows) > 1:
        return beside
    # A benchmark's name comes from a file: it must not lead out of the folder.
    return folder / f"{Path(row.benchmark).name}.completions.jsonl"


def _points(history: Sequence[Mapping[str, Any]], name: str, path: Path) -> Points | None:
    steps: list[int] = []
    values: list[float] = []
    for entry in history:
        if name not in entry:
            continue
        step, value = entry.get("step"), entry[name]
        if not isinstance(step, int) or not isinstance(value, int | float):
            raise UsageError(f"{path}: log entry without a number for step and {name}: {entry!r}")
        steps.append(step)
        values.append(float(value))
    return Points(tuple(steps), tuple(values)) if steps else None


def _trainer_state(folder: Path, model: str) -> Path | None:
    """In the run folder or a folder in it, else in the model's folder or the one above that."""
    # The run folder itself may be called checkpoint-*; the checkpoints within it do not count.
    places = [path for path in folder.iterdir() if not path.name.startswith("checkpoint-")]
    paths = [path / TRAINER_STATE for path in (folder, *sorted(places))]
    paths = [path for path in paths if path.is_file()]
    if len(paths) > 1:
        names = ", ".join(str(path) for path in paths)
        raise UsageError(f"{folder} holds {len(paths)} trainer states, keep one: {names}")
    for place in (Path(model), folder / model):
        if place.is_dir():
            paths += [each / TRAINER_STATE for each in (place, place.resolve().parent)]
    return next((path for path in paths if path.is_file()), None)


def _read_curves(folder: Path, model: str) -> LearningCurves | None:
    path = _trainer_state(folder, model)
    if path is None:
        return None
    history = _parse(_TrainerState, _text(path), str(path)).log_history
    train = {name: _points(history, name, path) for name in CURVES}
    evaluation = {name: _points(history, f"eval_{name}", path) for name in CURVES}
    return LearningCurves(
        path=path,
        train={name: points for name, points in train.items() if points},
        evaluation={name: points for name, points in evaluation.items() if points},
    )


def _read_probabilities(folder: Path, results: ResultFile) -> TokenProbabilities | None:
    path = folder / TOKEN_PROBABILITIES
    if path.is_file():
        return _parse(TokenProbabilities, _text(path), str(path))
    path = folder / PROBE
    if not path.is_file():
        return None
    probe = _parse(Probe, _text(path), str(path))
    return probe.of(results) or (probe.models[0] if len(probe.models) == 1 else None)


def _add_probe(folder: Path, runs: Sequence[Run]) -> list[Run]:
    """``runs`` with the token probabilities of a folder that ``dft-factory probe`` wrote."""
    path = folder / PROBE
    probe = _parse(Probe, _text(path), str(path))
    with_probe = [
        run if run.probabilities else replace(run, probabilities=probe.of(run.results))
        for run in runs
    ]
    if all(probe.of(run.results) is None for run in runs):
        raise UsageError(
            f"{path} holds {', '.join(repr(model.label) for model in probe.models)}, the runs are "
            f"{', '.join(repr(run.label) for run in runs)}: run `dft-factory probe ... --model "
            "LABEL=PATH` with the label of a run."
        )
    return with_probe


def read_run(folder: Path) -> Run:
    """Read one run folder.

    Raises:
        UsageError: ``results.json`` or an items file is missing, or any file is malformed.
    """
    if folder.is_file():
        raise UsageError(f"{folder} is a file: name the run folder, {folder.parent}.")
    results = read_results(folder)
    results = results.model_copy(update={"label": one_line(results.label)})
    evaluations: dict[Key, Evaluation] = {}
    for row in results.results:
        evaluation = Evaluation(
            row=row,
            items=_read_items(folder, row),
            problems=_read_problems(folder, row),
            completions=_read_completions(_completions_path(folder, row, results.results)),
        )
        if evaluation.key in evaluations:
            name = " in style ".join(evaluation.key)
            raise UsageError(f"{folder / 'results.json'} holds {name} twice.")
        evaluations[evaluation.key] = evaluation
    return Run(
        folder=folder,
        results=results,
        evaluations=evaluations,
        curves=_read_curves(folder, results.model),
        probabilities=_read_probabilities(folder, results),
    )


def read_runs(folders: Sequence[Path]) -> tuple[Run, ...]:
    """Read run folders, in the order given; a folder may also be one of ``dft-factory probe``.

    Raises:
        UsageError: no folder, two runs of one label, token-probability histograms of different
            bins, or whatever :func:`read_run` refuses.
    """
    if not folders:
        raise UsageError("No run folder given: `dft-factory report RUN_DIR... --out DIR`.")
    probes = [
        folder
        for folder in folders
        if (folder / PROBE).is_file() and not (folder / RESULTS_NAME).is_file()
    ]
    runs = [read_run(folder) for folder in folders if folder not in probes]
    for folder in probes:
        runs = _add_probe(folder, runs)
    seen: dict[str, Path] = {}
    for run in runs:
        if run.label in seen:
            raise UsageError(
                f"Both {seen[run.label]} and {run.folder} are labelled {run.label!r}: give one of "
                "them another `label` in its results.json."
            )
        seen[run.label] = run.folder
    if not runs:
        raise UsageError(
            f"{folders[0]} holds a probe and no results: name the run folders too, "
            "`dft-factory report RUN_DIR... PROBE_DIR --out DIR`."
        )
    drawn = [(run.folder, run.probabilities) for run in runs if run.probabilities]
    for folder, histogram in drawn[1:]:
        if not _same_edges(drawn[0][1].bin_edges, histogram.bin_edges):
            raise UsageError(
                f"{drawn[0][0] / TOKEN_PROBABILITIES} and {folder / TOKEN_PROBABILITIES} have "
                "different bin_edges and cannot share a histogram: probe both with the same bins."
            )
    return tuple(runs)


def _same_edges(first: Sequence[float], second: Sequence[float]) -> bool:
    return len(first) == len(second) and all(
        math.isclose(a, b, rel_tol=0.0, abs_tol=1e-9) for a, b in zip(first, second, strict=True)
    )
