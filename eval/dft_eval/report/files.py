"""Optional files of a run folder: completions, learning curves, scores, token probabilities."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dft_eval.errors import UsageError
from dft_eval.results import BenchmarkResult, ItemScore, ResultFile, read_utf8
from dft_eval.training_file import TRAINER_STATE, is_checkpoint

TOKEN_PROBABILITIES = "token_probabilities.json"
PROBE = "probe.json"
TRAINING_SCORES = "scores.jsonl"
_OF_RESULT = BenchmarkResult.model_fields.keys() - {"items", "notes"}
"""Fields of a result in a line of ``scores.jsonl``."""
CURVES = ("nll", "mean_token_prob")
"""Logged quantities to plot: nats per labelled token, and a probability."""

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
        """Token probabilities of a run, matched by label, else by model."""
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
    """Logged values by the names in :data:`CURVES`; names that were never logged are absent."""

    path: Path
    train: Mapping[str, Points]
    evaluation: Mapping[str, Points]


class _Item(ItemScore):
    model_config = ConfigDict(extra="ignore")


class _ScoredStep(BaseModel):
    """A line of ``scores.jsonl``; of a scoring that failed it has only ``step`` and ``problem``."""

    model_config = ConfigDict(extra="ignore")

    step: int = Field(ge=0)
    score: float | None = None
    problem: str | None = None
    items: tuple[_Item, ...] = ()


@dataclass(frozen=True)
class TrainingScores:
    """What a training scored of itself (``score_task``), by step.

    Attributes:
        results: each score with its items by id.
        problems: why a step has no score.
    """

    path: Path
    results: Mapping[int, tuple[BenchmarkResult, Mapping[str, ItemScore]]]
    problems: Mapping[int, str]


def _parse(model: type[Model], text: str, where: str) -> Model:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(f"{where} is malformed: {error}") from error


def read_completions(path: Path) -> dict[str, Completion] | None:
    """Completions by item id; None if there is no such file."""
    if not path.is_file():
        return None
    by_id: dict[str, Completion] = {}
    # Not splitlines(): JSON may hold U+2028 and its like unescaped.
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        if not line.strip():
            continue
        row = _parse(Completion, line, f"{path}, line {number}")
        if row.id in by_id:
            raise UsageError(f"{path}, line {number}: a second completion of item {row.id!r}.")
        by_id[row.id] = row
    return by_id


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


def _of_training(name: str, folder: Path, model: str) -> Path | None:
    """A file in the run folder or a sub folder, else in the model's folder or its parent."""
    # The run folder itself may be called checkpoint-*; the checkpoints within it do not count.
    places = [path for path in folder.iterdir() if not path.name.startswith("checkpoint-")]
    paths = [path / name for path in (folder, *sorted(places))]
    paths = [path for path in paths if path.is_file()]
    if len(paths) > 1:
        names = ", ".join(str(path) for path in paths)
        raise UsageError(f"{folder} holds {len(paths)} files {name}, keep one: {names}")
    for place in (Path(model), folder / model):
        if place.is_dir():
            paths += [parent / name for parent in (place, place.resolve().parent)]
    return next((path for path in paths if path.is_file()), None)


def read_curves(folder: Path, model: str) -> LearningCurves | None:
    """Learning curves of the model of a run folder; None if there is no trainer state."""
    path = _of_training(TRAINER_STATE, folder, model)
    if path is None:
        return None
    history = _parse(_TrainerState, read_utf8(path), str(path)).log_history
    train = {name: _points(history, name, path) for name in CURVES}
    evaluation = {name: _points(history, f"eval_{name}", path) for name in CURVES}
    return LearningCurves(
        path=path,
        train={name: points for name, points in train.items() if points},
        evaluation={name: points for name, points in evaluation.items() if points},
    )


def read_training_scores(folder: Path, model: str) -> TrainingScores | None:
    """Scores during the training of a run folder's model, of a checkpoint those until its step.

    None if there is no such file. A last line without an end was cut short by a kill, and does not
    count.

    Raises:
        UsageError: a line is malformed.
    """
    path = _of_training(TRAINING_SCORES, folder, model)
    if path is None:
        return None
    place = Path(model)
    last = int(place.name.rpartition("-")[2]) if is_checkpoint(place) else None
    results: dict[int, tuple[BenchmarkResult, Mapping[str, ItemScore]]] = {}
    problems: dict[int, str] = {}
    for number, text in enumerate(read_utf8(path).split("\n")[:-1], start=1):
        where = f"{path}, line {number}"
        line = _parse(_ScoredStep, text, where)
        if last is not None and line.step > last:
            continue
        if line.score is None:
            problems[line.step] = line.problem or "no reason recorded"
            continue
        fields = {key: value for key, value in json.loads(text).items() if key in _OF_RESULT}
        result = _parse(BenchmarkResult, json.dumps({**fields, "items": path.name}), where)
        results[line.step] = result, {item.id: item for item in line.items}
    return TrainingScores(path, results, problems)


def read_probabilities(folder: Path, results: ResultFile) -> TokenProbabilities | None:
    """Token probabilities of the model of a run folder; None if there are none."""
    path = folder / TOKEN_PROBABILITIES
    if path.is_file():
        return _parse(TokenProbabilities, read_utf8(path), str(path))
    if not (folder / PROBE).is_file():
        return None
    probe = read_probe(folder)
    return probe.of(results) or (probe.models[0] if len(probe.models) == 1 else None)


def read_probe(folder: Path) -> Probe:
    """The ``probe.json`` of a folder."""
    path = folder / PROBE
    return _parse(Probe, read_utf8(path), str(path))
