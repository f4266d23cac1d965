"""``dft-factory probe``: measure, advise, write the four files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from dft_factory.errors import ConfigError
from dft_factory.probe.advice import advise, estimate
from dft_factory.probe.collapse import risk_of
from dft_factory.probe.measure import Measured, Progress, measure
from dft_factory.probe.render import ProbePaths, write
from dft_factory.probe.result import ModelProbe, Probe
from dft_factory.probe.segments import CONTENT, END_OF_TURN, SEGMENTS
from dft_factory.probe.settings import read_config
from dft_factory.probe.statistics import numbers_of
from dft_factory.probe.words import ignored, lowest_bin

BASE = "base"
DEFAULT_LIMIT = 128


def parse_models(texts: Sequence[str]) -> dict[str, str | None]:
    """Label -> model of ``--model PATH`` and ``--model LABEL=PATH``; without any, the YAML's own.

    Raises:
        ConfigError: an empty part, or two models with one label.
    """
    models: dict[str, str | None] = {}
    for text in texts:
        label, equals, path = text.partition("=")
        if not equals or "/" in label:  # a path may hold a '='
            label, path = Path(text).name, text
        if not (label and path):
            raise ConfigError(f"--model {text!r}: write --model PATH or --model LABEL=PATH.")
        if label in models:
            raise ConfigError(
                f"--model {text!r}: another model is labelled {label!r}. Write --model LABEL=PATH "
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


def _notes(config: Mapping[str, object], measured: Sequence[Measured], limit: int) -> list[str]:
    notes = []
    packed = [key for key in ("packing", "neat_packing") if config.get(key)]
    if packed:
        notes.append(f"{' and '.join(packed)}: examples were measured one by one, not packed.")
    n_examples = measured[0].probabilities.n_examples
    if n_examples < limit:
        notes.append(f"{n_examples} examples, fewer than --limit {limit}: there are no more.")
    if len({tuple(model.tokens.tolist()) for model in measured}) > 1:
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
    labelled = parse_models(models)
    config = read_config(config_path, overrides)
    measured = measure(config, labelled, limit=limit, seed=seed, progress=progress)
    result = Probe(
        config=str(config_path),
        seed=seed,
        models=tuple(examine(model) for model in measured),
        collapse=risk_of(measured[0].plan),
        notes=tuple(_notes(config, measured, limit)),
    )
    return result, write(result, out, json.dumps(result.to_json(), indent=2) + "\n")
