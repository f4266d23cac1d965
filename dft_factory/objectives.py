"""What a user can select as ``finetuning_type``: one table.

``finetuning_type: <objective>[_<method>]`` names an objective of this package and one of
LLaMA-Factory's own methods; the method defaults to ``full``. LLaMA-Factory's own values (``full``,
``lora``, ...) name no objective and are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dft_factory.errors import ConfigError, did_you_mean
from dft_factory.losses.weights import DEFAULT_WEIGHT, UNIT_WEIGHT, TokenWeight, parse_weight

METHODS = ("full", "lora", "freeze", "oft")
"""LLaMA-Factory's own ``finetuning_type`` values."""
DEFAULT_METHOD = "full"


@dataclass(frozen=True)
class Objective:
    """One objective: its name in YAML, what it trains, where it comes from.

    Attributes:
        weighted: whether ``dft_weight`` applies.
    """

    name: str
    summary: str
    source: str
    weighted: bool


OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective(
            name="dft",
            summary="NLL of each labelled token times a stop-gradient weight: its probability, or "
            "what dft_weight selects",
            source="On the Generalization of SFT (ICLR 2026), equation (9)",
            weighted=True,
        ),
        Objective(
            name="sft",
            summary="plain NLL with dft's normalisation, so that a comparison measures the weight "
            "alone",
            source="On the Generalization of SFT (ICLR 2026), equation (1)",
            weighted=False,
        ),
    )
}


@dataclass(frozen=True)
class Selection:
    """What a YAML selects: an objective, LLaMA-Factory's method and the token weight."""

    objective: Objective
    method: str
    weight: TokenWeight

    @property
    def name(self) -> str:
        """Canonical ``finetuning_type``."""
        suffix = "" if self.method == DEFAULT_METHOD else f"_{self.method}"
        return f"{self.objective.name}{suffix}"


def finetuning_types() -> list[str]:
    """The ``finetuning_type`` values that this package adds."""
    names: list[str] = []
    for objective in OBJECTIVES:
        names.append(objective)
        names.extend(f"{objective}_{method}" for method in METHODS)
    return names


def split_finetuning_type(value: object) -> tuple[Objective, str] | None:
    """Objective and method of a ``finetuning_type``; None for LLaMA-Factory's own values.

    Objectives match by the longest registered name.

    Raises:
        ConfigError: unknown value; names the choices and the nearest match.
    """
    if isinstance(value, str):
        if value in METHODS:
            return None
        for name in sorted(OBJECTIVES, key=len, reverse=True):
            if value == name:
                return OBJECTIVES[name], DEFAULT_METHOD
            if value.startswith(f"{name}_") and value[len(name) + 1 :] in METHODS:
                return OBJECTIVES[name], value[len(name) + 1 :]
    choices = [*METHODS, *finetuning_types()]
    raise ConfigError(
        f"finetuning_type: {value!r} is unknown. Choose from: {', '.join(choices)}."
        f"{did_you_mean(value, choices)}"
    )


def select(finetuning_type: object, dft_weight: object = None) -> Selection | None:
    """The selection of two YAML fields; None for LLaMA-Factory's own ``finetuning_type`` values.

    Raises:
        ConfigError: unknown values, or ``dft_weight`` with an objective that has no weight.
    """
    split = split_finetuning_type(finetuning_type)
    weighted = [name for name, objective in OBJECTIVES.items() if objective.weighted]
    if split is None or not split[0].weighted:
        if dft_weight is not None:
            raise ConfigError(
                f"dft_weight: {dft_weight!r} has no effect with finetuning_type: "
                f"{finetuning_type!r}. Remove dft_weight, or choose a finetuning_type that begins "
                f"with {' or '.join(repr(name) for name in weighted)}."
            )
        return None if split is None else Selection(split[0], split[1], UNIT_WEIGHT)
    weight = parse_weight(DEFAULT_WEIGHT if dft_weight is None else dft_weight)
    return Selection(split[0], split[1], weight)


def selection_of(finetuning_args: Any) -> Selection | None:
    """The selection in parsed LLaMA-Factory arguments; None for a stock run."""
    objective = getattr(finetuning_args, "dft_objective", None)
    if objective is None:
        return None
    return select(f"{objective}_{finetuning_args.finetuning_type}", finetuning_args.dft_weight)
