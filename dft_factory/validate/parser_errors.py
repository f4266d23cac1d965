"""Collect several errors of LLaMA-Factory's parser, which raises only the first one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dft_factory.errors import DftFactoryError, MissingDependencyError
from dft_factory.validate.findings import WHOLE, Severity, Verdict
from dft_factory.validate.launchers import NOT_INSTALLED, one_line

IDENTITY = (
    "finetuning_type",
    "dft_weight",
    "model_name_or_path",
    "dataset",
    "do_train",
    "streaming",
)
"""Never removed: without one of these the recipe has other errors."""

STAND_INS = {
    "model_name_or_path": "model",
    "dataset": "data",
    "eval_dataset": "data",
    "reward_model": "model",
    "max_steps": 1,
    "dataloader_num_workers": 1,
    "predict_with_generate": True,
    "overwrite_output_dir": True,
}
"""Values for missing keys, so that LLaMA-Factory's parser continues to the next error."""

DEPENDENT = {"score_task": ("score_steps", "score_limit")}
"""Keys that have no effect without another: removed with it."""

TRAINED = "Output directory already exists"

NAMELESS = {
    "Quantization is only compatible with": "quantization_bit",
    "Adapter is only valid for": "adapter_name_or_path",
}
"""Messages of LLaMA-Factory that do not name their key."""


def parse_errors(
    parse: Callable[[dict[str, Any]], BaseException | None],
    values: Mapping[str, Any],
    fields: Iterable[str],
) -> Iterator[tuple[tuple[str, ...], BaseException]]:
    """(keys, error) of the errors of a parser that raises only its first one.

    The keys that a message names are removed, or set if they are missing, and the parser runs
    again, until it accepts the rest or repeats itself.
    """
    values = dict(values)
    messages: set[str] = set()
    while (error := parse(dict(values))) is not None and (text := one_line(error)) not in messages:
        messages.add(text)
        names = _names_in(text, fields)
        missing = [key for key in names if key in STAND_INS and not values.get(key)]
        removable = [key for key in names if key in values and key not in IDENTITY]
        yield tuple(missing or removable or names), error
        if missing:
            values |= {key: STAND_INS[key] for key in missing}
        else:
            gone = {*removable, *(key for name in removable for key in DEPENDENT.get(name, ()))}
            values = {key: value for key, value in values.items() if key not in gone}


def _names_in(text: str, fields: Iterable[str]) -> list[str]:
    """The fields that a message names, in its order; it may write "val size" for val_size."""
    matches = {key: re.search(rf"(?<!\w){key.replace('_', '[_ ]')}(?!\w)", text) for key in fields}
    positions = {key: match.start() for key, match in matches.items() if match is not None}
    nameless = [key for fragment, key in NAMELESS.items() if fragment in text]
    return nameless or sorted(positions, key=positions.__getitem__)


def verdict_of(keys: tuple[str, ...], error: BaseException) -> Verdict:
    """The error as a finding for the user."""
    text = one_line(error)
    key = ", ".join(keys) or WHOLE
    if isinstance(error, DftFactoryError):
        severity: Severity = "warning" if isinstance(error, MissingDependencyError) else "error"
        return severity, key, text.removeprefix(f"{key}: ")
    if TRAINED in text:
        message = "it already holds a trained model. Move it away, or name another folder."
        return "warning", "output_dir", message
    if isinstance(error, NOT_INSTALLED):
        return "warning", key, f"needs a package that is not installed here: {text}"
    kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return "error", key, f"LLaMA-Factory refuses it: {kind}{text}"
