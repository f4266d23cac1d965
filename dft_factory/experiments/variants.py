"""The variants of an experiment: labels, folders, recipes, and which are compared with which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from dft_factory.experiments.plan import BASE
from dft_factory.experiments.schema import Evaluation, Experiment, Training
from dft_factory.objectives import split_finetuning_type


def label_of(variant: str, axes: Mapping[str, Any]) -> str:
    """The label of a variant at one point of the grid."""
    if variant == BASE:
        return BASE
    return ", ".join([variant, *(f"{key} {value}" for key, value in axes.items())])


def matched_label(label: str) -> str:
    """The label of the base model at the entropy of ``label``."""
    return f"{BASE} at the entropy of {label}"


def place_of(variant: str, axes: Mapping[str, Any]) -> str:
    """The folder of a variant at one point of the grid."""
    return "/".join([variant, *(f"{key}-{value}" for key, value in axes.items())])


def inside(folder: str, name: str | None) -> str:
    """The folder of the evaluation ``name`` of the run in ``folder``."""
    return folder if name is None else f"{folder}/{name}".lstrip("/")


def variants(
    train: Training, recipe: Mapping[str, Any]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Label, folder and recipe of every variant, grid point and seed."""
    for variant, changes in train.variants.items():
        for axes in grid(train):
            label = label_of(variant, axes)
            place = place_of(variant, axes)
            values = _with_objective({**recipe, **train.set, **changes, **axes})
            for seed in train.seeds or (None,):
                if seed is None:
                    yield label, place, dict(values)
                else:
                    yield label, f"{place}/seed{seed}", {**values, "seed": seed}


def grid(train: Training) -> list[dict[str, Any]]:
    """Every point of the grid: key of the recipe to value."""
    return [dict(zip(train.grid, point, strict=True)) for point in product(*train.grid.values())]


def pairs(experiment: Experiment, evaluations: Sequence[Evaluation]) -> tuple[tuple[str, str], ...]:
    """The variants against the reference, each at its own point of the grid.

    Args:
        evaluations: those of one report; a base at a variant's entropy is there if one asks for it.
    """
    train, reference = experiment.train, experiment.report.reference
    if reference is None and not train.grid:
        return ()
    reference = reference or next(iter(train.variants))
    names = [*train.variants, BASE] if experiment.base else list(train.variants)
    against_reference = [
        (label_of(name, axes), label_of(reference, axes))
        for axes in grid(train)
        for name in names
        if name != reference
    ]
    matched = dict.fromkeys(evaluation.match_entropy for evaluation in evaluations)
    labels = [label_of(variant, axes) for variant in matched if variant for axes in grid(train)]
    return (*against_reference, *((label, matched_label(label)) for label in labels))


def _with_objective(values: dict[str, Any]) -> dict[str, Any]:
    """``objective: dft`` as LLaMA-Factory's key: the recipe's method with that objective."""
    objective = values.pop("objective", None)
    if objective is not None:
        former = values.get("finetuning_type", "full")
        split = split_finetuning_type(former)
        method = former if split is None else split[1]
        values["finetuning_type"] = objective if method == "full" else f"{objective}_{method}"
        split_finetuning_type(values["finetuning_type"])
    return values
