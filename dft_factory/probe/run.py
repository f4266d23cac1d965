"""``dft-factory probe``: measure, advise, write the four files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dft_factory.errors import ConfigError
from dft_factory.losses.histogram import bin_edges
from dft_factory.probe.advice import (
    COVERAGE,
    EVIDENCE,
    RESAMPLES,
    THRESHOLDS,
    Advice,
    advise,
    estimate,
)
from dft_factory.probe.measure import Measured, Progress, measure, override, read_config
from dft_factory.probe.segments import CONTENT, END_OF_TURN, RULE, SEGMENTS
from dft_factory.probe.statistics import Numbers, TokenProbabilities, numbers_of
from dft_factory.probe.words import Ignored, Word, ignored, lowest_bin

if TYPE_CHECKING:
    from dft_factory.probe.render import ProbePaths

BASE = "base"
DEFAULT_LIMIT = 128
POLARISATION = "share of tokens with p < 0.1 or p >= 0.9"


@dataclass(frozen=True)
class ModelProbe:
    """What is shown of one model."""

    probabilities: TokenProbabilities
    segments: Mapping[str, Numbers | None]
    lowest_bin: tuple[Word, ...]
    ignored: tuple[Ignored, ...]
    advice: Advice


@dataclass(frozen=True)
class Probe:
    """One probe of one training set; the advice is that of the first model."""

    config: str
    seed: int
    models: tuple[ModelProbe, ...]
    notes: tuple[str, ...]

    @property
    def advice(self) -> Advice:
        """For a training that starts from the first model."""
        return self.models[0].advice

    def to_json(self) -> dict[str, object]:
        """As ``probe.json`` holds it."""
        return {
            "schema_version": 1,
            "config": self.config,
            "seed": self.seed,
            "bin_edges": bin_edges(),
            "polarisation": POLARISATION,
            "segment_rule": RULE,
            "bootstrap": {"resamples": RESAMPLES, "coverage": COVERAGE, "unit": "example"},
            "advice": {**self.advice.to_json(), "for": self.models[0].probabilities.label},
            "thresholds": [vars(each) for each in THRESHOLDS],
            "evidence": [vars(each) for each in EVIDENCE],
            "models": [
                {
                    **model.probabilities.to_json(),
                    "segments": {
                        name: None if row is None else row.to_json()
                        for name, row in model.segments.items()
                    },
                    "lowest_bin": [word.to_json() for word in model.lowest_bin],
                    "ignored": [each.to_json() for each in model.ignored],
                }
                for model in self.models
            ],
            "notes": list(self.notes),
        }


def parse_models(given: Sequence[str]) -> dict[str, str | None]:
    """Label -> model of ``--model PATH`` and ``--model LABEL=PATH``; without any, the YAML's own.

    Raises:
        ConfigError: an empty part, or two models with one label.
    """
    models: dict[str, str | None] = {}
    for each in given:
        label, equals, path = each.partition("=")
        if not equals or "/" in label:  # a path may hold a '='
            label, path = Path(each).name, each
        if not (label and path):
            raise ConfigError(f"--model {each!r}: write --model PATH or --model LABEL=PATH.")
        if label in models:
            raise ConfigError(
                f"--model {each!r}: another model is labelled {label!r}. Write --model LABEL=PATH "
                "with a label of its own."
            )
        models[label] = path
    return models or {BASE: None}


def examine(measured: Measured) -> ModelProbe:
    """Segments, words and advice of what was measured under one model."""
    p = measured.logps.double().exp()
    where = {name: torch.tensor([x == name for x in measured.segments]) for name in SEGMENTS}
    content = where[CONTENT[0]] | where[CONTENT[1]]
    if not content.any():
        content = torch.ones_like(content)
    ends = where[END_OF_TURN]
    of_content = estimate(p[content], measured.example[content])
    assert of_content is not None
    return ModelProbe(
        probabilities=measured.probabilities,
        segments={name: numbers_of(measured.logps[mask]) for name, mask in where.items()},
        lowest_bin=tuple(lowest_bin(measured)),
        ignored=tuple(ignored(measured)),
        advice=advise(of_content, estimate(p[ends], measured.example[ends])),
    )


def _notes(config: Mapping[str, object], found: Sequence[Measured], limit: int) -> list[str]:
    notes = []
    packed = [key for key in ("packing", "neat_packing") if config.get(key)]
    if packed:
        notes.append(f"{' and '.join(packed)}: examples were measured one by one, not packed.")
    n_examples = found[0].probabilities.n_examples
    if n_examples < limit:
        notes.append(f"{n_examples} examples, fewer than --limit {limit}: there are no more.")
    if len({tuple(each.tokens.tolist()) for each in found}) > 1:
        notes.append(
            "The models cut the text into different tokens: compare their shapes with care."
        )
    return notes


def probe(
    config_path: Path,
    out: Path,
    *,
    models: Sequence[str] = (),
    overrides: Sequence[str] = (),
    limit: int = DEFAULT_LIMIT,
    seed: int = 0,
    progress: Progress,
) -> tuple[Probe, ProbePaths]:
    """Probe a training set; write ``probe.json``, ``probe.md``, ``probe.html`` and ``probe.png``.

    Nothing is written unless all of it could be made.

    Args:
        models: as :func:`parse_models` takes them.
        overrides: ``KEY=VALUE``, put over the YAML.
        limit: examples, sampled with ``seed``.

    Raises:
        ConfigError: what was asked for cannot be done.
        MissingDependencyError: a model or package is not here.
    """
    from dft_factory.probe.render import write

    labelled = parse_models(models)
    config = override(read_config(config_path), overrides)
    found = measure(config, labelled, limit=limit, seed=seed, progress=progress)
    made = Probe(
        config=str(config_path),
        seed=seed,
        models=tuple(examine(each) for each in found),
        notes=tuple(_notes(config, found, limit)),
    )
    return made, write(made, out, json.dumps(made.to_json(), indent=2) + "\n")
