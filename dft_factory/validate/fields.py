"""Check keys and values against dataclass annotations; ``HfArgumentParser.parse_dict`` does not.

A misspelt choice, a quoted number or a ``no`` that YAML reads as a boolean would fail late in the
run or never.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_factory.errors import did_you_mean

OWN_RULES = frozenset({"finetuning_type", "dft_weight"})
"""Checked by :func:`dft_factory.objectives.select`."""

MORE_TYPES: dict[str, tuple[type, ...]] = {
    "resume_from_checkpoint": (bool,)  # handed to Trainer.train, which takes true
}
"""Types that a field accepts beyond those in its annotation."""


@dataclass(frozen=True)
class Field:
    """A key of LLaMA-Factory.

    Attributes:
        hint: its annotation, resolved.
        optional: whether it may be empty.
        separated: whether it takes a list, as comma-separated text or in YAML.
    """

    name: str
    hint: Any
    optional: bool
    separated: bool


def fields_of(classes: Sequence[type]) -> dict[str, Field]:
    """All keys of these dataclasses, by name."""
    fields: dict[str, Field] = {}
    for cls in classes:
        hints = typing.get_type_hints(cls)
        for field in dataclasses.fields(cls):
            if field.init:
                hint = hints[field.name]
                fields[field.name] = Field(
                    field.name,
                    hint,
                    optional=type(None) in _members(hint) or field.default is None,
                    separated="comma" in str(field.metadata.get("help", "")).lower(),
                )
    return fields


def check_values(
    values: Mapping[str, Any], fields: Mapping[str, Field], elsewhere: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """(key, message) of all unknown keys and invalid values.

    Args:
        elsewhere: keys of other kinds of recipes -> that kind.
    """
    for key, value in values.items():
        if key in fields:
            if key not in OWN_RULES:
                message = check_value(value, fields[key])
                if message is not None:
                    yield key, message
        elif key in elsewhere:
            yield key, f"belongs in {elsewhere[key]}; LLaMA-Factory rejects it here. Remove it."
        else:
            yield key, f"is not an argument of LLaMA-Factory.{did_you_mean(key, fields)}"


def check_value(value: Any, field: Field) -> str | None:
    """The error of one value, or None."""
    if isinstance(value, str) and "${" in value:
        return f"{value!r}: LLaMA-Factory does not expand ${{...}}. Write the value itself."
    members = _members(field.hint)
    choices = _choices(members)
    kinds = {typing.get_origin(member) or member for member in members} - {type(None)}
    if value is None:
        return None if field.optional else "is empty. Set a value, or remove the line."
    if Any in kinds or isinstance(value, MORE_TYPES.get(field.name, ())):
        return None
    if choices is not None and not isinstance(value, (dict, list)):
        return _check_choice(value, choices)
    if _fits(value, kinds) or (field.separated and isinstance(value, list)):
        return None
    return _mismatch(value, kinds)


def _members(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _choices(members: Sequence[Any]) -> list[Any] | None:
    """Allowed values if the annotation is a Literal or an Enum (also ``Enum | str``)."""
    choices: list[Any] = []
    for member in members:
        if typing.get_origin(member) is typing.Literal:
            choices += typing.get_args(member)
        elif isinstance(member, type) and issubclass(member, enum.Enum):
            choices += [item.value for item in member]
    return choices or None


def _check_choice(value: Any, choices: Sequence[Any]) -> str | None:
    if any(type(value) is type(choice) and value == choice for choice in choices):
        return None
    if isinstance(value, bool):
        words = ("yes", "on", "true") if value else ("no", "off", "false")
        for word in words:
            if word in choices:
                literal = str(value).lower()
                return f"{word} without quotes is the boolean {literal} in YAML. Write '{word}'."
    names = ", ".join(map(str, choices))
    return f"{value!r} is unknown. Choose from: {names}.{did_you_mean(value, map(str, choices))}"


def _fits(value: Any, kinds: set[Any]) -> bool:
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int):
        return bool(kinds & {int, float})
    if isinstance(value, float):
        return float in kinds
    if isinstance(value, str):
        return bool(kinds & {str, Path})
    return type(value) in kinds


_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list",
    dict: "a mapping",
}


def _mismatch(value: Any, kinds: set[Any]) -> str:
    names = [name for kind, name in _NAMES.items() if kind in kinds]
    expected = " or ".join(names) or "something else"
    actual = _NAMES.get(type(value), type(value).__name__)
    if isinstance(value, bool):
        actual = "a boolean"
    return f"{value!r} is {actual}, not {expected}.{_fix(value, kinds)}"


def _fix(value: Any, kinds: set[Any]) -> str:
    if isinstance(value, str):
        is_number = bool(kinds & {int, float}) and _is_number(value)
        is_boolean = bool in kinds and value.lower() in ("true", "false")
        return " Remove the quotes." if is_number or is_boolean else ""
    if isinstance(value, bool):
        if str not in kinds:
            return ""
        words = "yes, on and true" if value else "no, off and false"
        return f" Quote the word: YAML reads unquoted {words} as a boolean."
    if isinstance(value, float) and value.is_integer() and int in kinds:
        return f" Write {int(value)}."
    if isinstance(value, int) and value in (0, 1) and bool in kinds:
        return f" Write {str(bool(value)).lower()}."
    if isinstance(value, (int, float)) and str in kinds:
        return f" Quote it: '{value}'."
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
