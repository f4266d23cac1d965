"""Every reason why a parser refuses a mapping, with the keys to blame, though it raises only one.

A parser such as LLaMA-Factory's stops at its first error and seldom names the key. So the keys are
found by experiment: those without which it says something else. They are taken out, and the parser
is asked again, until it is content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Parse = Callable[[dict[str, Any]], BaseException | None]
"""Parses a mapping; returns the exception that it was refused with, None where it was not."""

ESSENTIAL = (
    "dft_weight",
    "output_dir",
    "template",
    "dataset",
    "finetuning_type",
    "do_train",
    "model_name_or_path",
)
"""What a recipe is about: blamed last, since without it nearly every refusal goes away."""


@dataclass(frozen=True)
class Refusal:
    """One refusal; ``keys`` is empty where no key is to blame."""

    keys: tuple[str, ...]
    error: BaseException


def every_refusal(parse: Parse, values: Mapping[str, Any]) -> list[Refusal]:
    """All refusals, in the order in which the parser comes to them."""
    left = dict(values)
    found: list[Refusal] = []
    while (error := parse(dict(left))) is not None:
        keys = _culprits(parse, left, error)
        found.append(Refusal(keys, error))
        if not keys:
            break
        left = _without(left, keys)
    return found


def named_in(text: str, keys: Iterable[str]) -> list[str]:
    """Those of ``keys`` that stand in ``text`` as a word, in the order in which they do."""
    places = {key: re.search(rf"(?<!\w){re.escape(key)}(?!\w)", text) for key in keys}
    found = [(place.start(), key) for key, place in places.items() if place is not None]
    return [key for _, key in sorted(found)]


def _without(values: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _culprits(parse: Parse, values: dict[str, Any], error: BaseException) -> tuple[str, ...]:
    names = "|".join(map(re.escape, values))
    listed = re.compile(rf"\b(?:{names})(?:(?:, | and )(?:{names}))*\b")

    def said(refusal: BaseException | None) -> str | None:
        """Its text, the same for one key as for a list of them: 'a and b' is like 'b'."""
        return None if refusal is None else f"{type(refusal)}{listed.sub('_', str(refusal))}"

    before = said(error)

    def explain(keys: Sequence[str]) -> bool:
        return bool(keys) and said(parse(_without(values, keys))) != before

    named = named_in(str(error), values)
    settings = [key for key in named if key not in ESSENTIAL]
    if explain(settings):
        # As few as it takes, the first named rather than the last.
        for key in reversed(settings):
            fewer = [other for other in settings if other != key]
            settings = fewer if explain(fewer) else settings
        return tuple(settings)
    essential = [key for key in ESSENTIAL if key in values]
    others = [key for key in values if key not in named and key not in ESSENTIAL]
    for key in (*[key for key in essential if key in named], *others, *essential):
        if explain([key]):
            return (key,)
    return ()
