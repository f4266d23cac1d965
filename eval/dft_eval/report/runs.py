"""Data of a report: evaluations, runs, and variants (all runs of one label)."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from dft_eval.report.files import (
    Completion,
    LearningCurves,
    TokenProbabilities,
    TrainingScores,
)
from dft_eval.results import BenchmarkResult, ItemScore, ResultFile
from dft_eval.seed_statistics import Crossed, Scored, crossed, score_interval

BASE = "base"
"""Label of the model before training."""
Seed = int | None
"""Training seed; None if unknown."""
MODELS_OWN = ("server_fingerprint",)
"""Entries of ``decoding`` that identify the model, not the way of decoding."""


_DATA_HASH = re.compile(r"\b(?:sha256|md5) [0-9a-f]{32,64}\b")
"""How the notes of a result name the file that its items come from."""


class Key(NamedTuple):
    """Benchmark, prompt style and decoding. Scores with different keys are never compared.

    Attributes:
        decoding: ``greedy``, ``temperature 0.7``; empty where results.json does not say.
    """

    benchmark: str
    style: str
    decoding: str = ""


@dataclass(frozen=True)
class Evaluation:
    """One benchmark of one run.

    Attributes:
        problems: scores of whole problems where the benchmark's score is their mean and not that
            of its items (WeMath).
        completions: by item, the first of several samples; None if there is no completions file.
    """

    folder: Path
    row: BenchmarkResult
    items: Mapping[str, ItemScore]
    problems: Mapping[str, ItemScore] | None
    completions: Mapping[str, Completion] | None

    @property
    def key(self) -> Key:
        return Key(self.row.benchmark, self.row.prompt_style, self.row.decoding_name)

    @property
    def samples(self) -> int:
        """Number of completions per item."""
        samples = self.row.decoding.get("samples")
        return samples if isinstance(samples, int) else 1

    @property
    def units(self) -> Mapping[str, ItemScore]:
        """The units that the score averages: whole problems if there are any, else items."""
        return self.problems or self.items

    @property
    def scored(self) -> list[Scored]:
        """Cluster and score of each scored unit."""
        return [
            (unit.cluster or unit.id, unit.score)
            for unit in self.units.values()
            if unit.score is not None
        ]

    @property
    def settings(self) -> dict[str, object]:
        """Everything that a score depends on except the model."""
        fields = self.row.model_dump(include={"metric", "harness", "judge", "seed"})
        decoding = self.row.decoding.items()
        # Items of another file may have the same ids.
        hashes = [match[0] for note in self.row.notes if (match := _DATA_HASH.search(note))]
        if hashes:
            fields["data"] = ", ".join(hashes)
        return fields | {name: value for name, value in decoding if name not in MODELS_OWN}

    def unlike(self, other: Evaluation) -> dict[str, str]:
        """Settings in which the two differ, with both values: ``'qwen' and 'official'``."""
        a, b = self.settings, other.settings
        return {
            name: f"{name} {a.get(name)!r} and {b.get(name)!r}"
            for name in {**a, **b}
            if a.get(name) != b.get(name)
        }


@dataclass(frozen=True)
class Pooled:
    """One benchmark of one variant: its evaluations by training seed, at least one."""

    by_seed: Mapping[Seed, Evaluation]

    @property
    def evaluations(self) -> tuple[Evaluation, ...]:
        return tuple(self.by_seed.values())

    @property
    def rows(self) -> tuple[BenchmarkResult, ...]:
        return tuple(evaluation.row for evaluation in self.evaluations)

    @property
    def row(self) -> BenchmarkResult:
        """Result of the first seed; metric, harness and decoding are the same for all seeds."""
        return self.rows[0]

    @property
    def score(self) -> float | None:
        """Mean score over the seeds that have one."""
        scores = [row.score for row in self.rows if row.score is not None]
        return math.fsum(scores) / len(scores) if scores else None

    @functools.cached_property
    def estimate(self) -> Crossed | None:
        """Score with its errors; None if the score is not the mean of its items or problems."""
        scored = [evaluation for evaluation in self.evaluations if evaluation.scored]
        estimate = crossed([[evaluation.scored] for evaluation in scored])
        if estimate is None:
            return None
        for mean, evaluation in zip(estimate.by_seed, scored, strict=True):
            if evaluation.row.score is None or not math.isclose(
                mean, evaluation.row.score, abs_tol=1e-6
            ):
                return None
        return estimate

    @functools.cached_property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval over items and seeds; None without an estimate."""
        if self.estimate is None:
            return None
        scored = [evaluation.scored for evaluation in self.evaluations]
        clusters = {cluster for rows in scored for cluster, _ in rows}
        return score_interval(self.estimate, max(map(len, scored)), len(clusters))

    @property
    def n_total(self) -> int:
        return sum(row.n_total for row in self.rows)

    @property
    def n_scored(self) -> int:
        return sum(row.n_scored for row in self.rows)

    @property
    def is_partial(self) -> bool:
        """Whether items of the published set, or their scores, are missing."""
        return self.n_scored != self.n_total or any(
            note.lower().startswith("partial") for row in self.rows for note in row.notes
        )


@dataclass(frozen=True)
class Run:
    """All data of one evaluated model; ``folder`` is the first of its run folders."""

    folder: Path
    results: ResultFile
    evaluations: Mapping[Key, Evaluation]
    curves: LearningCurves | None
    training_scores: TrainingScores | None
    probabilities: TokenProbabilities | None

    @property
    def label(self) -> str:
        return self.results.label

    @property
    def seed(self) -> Seed:
        """Training seed from results.json, else from a (parent) folder named ``seed0``."""
        if self.results.training is not None and self.results.training.seed is not None:
            return self.results.training.seed
        folder = self.folder.resolve()
        matches = [re.fullmatch(r"seed[-_]?(\d+)", path.name) for path in (folder, folder.parent)]
        return next((int(match[1]) for match in matches if match), None)

    @property
    def name(self) -> str:
        """Label and, where known, the seed."""
        return self.label if self.seed is None else f"{self.label}, seed {self.seed}"


@dataclass(frozen=True)
class Variant:
    """The runs of one label, by training seed: one row of the report."""

    label: str
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> tuple[Seed, ...]:
        return tuple(run.seed for run in self.runs)

    @property
    def seeded(self) -> bool:
        """Whether there are several seeds."""
        return len(self.runs) > 1

    @functools.cached_property
    def evaluations(self) -> Mapping[Key, Pooled]:
        """By benchmark, prompt style and decoding."""
        keys = dict.fromkeys(key for run in self.runs for key in run.evaluations)
        return {
            key: Pooled(
                {run.seed: run.evaluations[key] for run in self.runs if key in run.evaluations}
            )
            for key in keys
        }

    def run_name(self, run: Run) -> str:
        """Name of one of its runs, with the seed if there are several."""
        return run.name if self.seeded else run.label


T = TypeVar("T")


def paired_seeds(first: Mapping[Seed, T], second: Mapping[Seed, T]) -> list[tuple[T, T]]:
    """Pairs of values with the same training seed; a single value is paired with each of the other.

    Empty where both have several seeds and none in common.
    """
    if common := [seed for seed in first if seed in second]:
        return [(first[seed], second[seed]) for seed in common]
    pairs = [(a, b) for a in first.values() for b in second.values()]
    return pairs if 1 in (len(first), len(second)) else []


def benchmarks(variants: Sequence[Variant]) -> tuple[Key, ...]:
    """All benchmarks of all variants in the order of first appearance, decodings side by side."""
    keys = list(dict.fromkeys(key for variant in variants for key in variant.evaluations))
    groups = list(dict.fromkeys(key[:2] for key in keys))
    return tuple(sorted(keys, key=lambda key: groups.index(key[:2])))


def key_name(key: Key) -> str:
    """A benchmark, its prompt style and, where known, decoding."""
    return f"{key.benchmark} ({', '.join(filter(None, key[1:]))})"


def short_names(keys: Sequence[Key]) -> dict[Key, str]:
    """Shortest unambiguous name of each benchmark, for use in a sentence."""
    names = {}
    for key in keys:
        alike = [other for other in keys if other.benchmark == key.benchmark]
        name = key.benchmark
        if len({other.style for other in alike}) > 1:
            name += f" ({key.style})"
        if len({other.decoding for other in alike}) > 1 and key.decoding:
            name += f", {key.decoding}"
        names[key] = name
    return names
