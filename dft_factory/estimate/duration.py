"""Hours of a training from a rate: stated by the user, or measured over two steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dft_factory.errors import ConfigError


@dataclass(frozen=True)
class Duration:
    """Attributes:
    tokens: of the whole training, each example once an epoch.
    tokens_per_second: of all GPUs together.
    basis: where the number of tokens comes from.
    peak: measured peak in bytes; None for a stated rate.
    """

    tokens: int
    tokens_per_second: float
    hours: float
    basis: str
    peak: int | None = None


def duration_of(
    plan: Mapping[str, Any], gpus: int, tokens_per_second: float, peak: int | None = None
) -> Duration:
    """The duration of a training of which the worker has told the ``plan``.

    A plan has ``max_steps`` (0 for none), ``epochs``, ``rows`` of a batch, ``accumulated`` batches,
    ``cutoff_len``, and ``examples`` with their ``mean_tokens`` where the data set is here.

    Raises:
        ConfigError: the number of examples is not known.
    """
    mean = plan["mean_tokens"] or plan["cutoff_len"]
    if plan["max_steps"] > 0:
        n = plan["max_steps"] * plan["rows"] * plan["accumulated"] * gpus
        count = f"max_steps: {plan['max_steps']} = {n:,} examples"
    elif plan["examples"] is None:
        raise ConfigError(
            "the data set is not here, so that the number of examples is not known. Prepare it, or "
            "put max_steps=N after the YAML."
        )
    else:
        n = round(plan["examples"] * plan["epochs"])
        count = f"{plan['examples']:,} examples x {plan['epochs']:g} epochs"
    length = (
        f"{mean:.0f} tokens on average"
        if plan["mean_tokens"]
        else f"cutoff_len {mean} tokens each, an upper bound: the data set is not here"
    )
    tokens = round(n * mean)
    return Duration(
        tokens, tokens_per_second, tokens / tokens_per_second / 3600, f"{count}, {length}", peak
    )
