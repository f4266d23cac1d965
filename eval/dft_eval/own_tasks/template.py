"""Templates such as ``"{question}"``: fields of a row in braces, nothing else of format strings."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from typing import Any

from dft_eval.errors import did_you_mean


def template_fields(template: str) -> list[str]:
    """The fields that a template names; ``{{`` and ``}}`` are literal braces.

    Raises:
        ValueError: a lone brace, or more than a name in braces.
    """
    advice = "write a field's name in braces, and {{ or }} for a brace itself"
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{error}: {advice}") from error
    fields = []
    for _, name, format_spec, conversion in parts:
        if name is None:
            continue
        if not name.strip() or format_spec or conversion or any(c in name for c in ".[]"):
            written = f"{name}{'!' if conversion else ''}{conversion or ''}"
            raise ValueError(f"{{{written}{':' if format_spec else ''}{format_spec}}}: {advice}")
        fields.append(name)
    return fields


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its fields replaced."""
    return "".join(
        literal + (values[name] if name is not None else "")
        for literal, name, _, _ in string.Formatter().parse(template)
    )


def split_at(template: str, field: str, values: Mapping[str, str]) -> tuple[str, str]:
    """What comes before and after a field that the template names once."""
    texts = [""]
    for literal, name, _, _ in string.Formatter().parse(template):
        texts[-1] += literal
        if name == field:
            texts.append("")
        elif name is not None:
            texts[-1] += values[name]
    before, after = texts
    return before, after


def field_of(row: Mapping[str, Any], name: str) -> Any:
    """A field of a row that is not null.

    Raises:
        ValueError: naming the row's fields and the nearest one.
    """
    if row.get(name) is not None:
        return row[name]
    if name in row:
        raise ValueError(f"the field {name!r} is null")
    raise ValueError(
        f"there is no field {name!r}. Choose from: {', '.join(row)}.{did_you_mean(name, row)}"
    )


def text_of(value: Any, name: str) -> str:
    """A text or number as text.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        shown = json.dumps(value, ensure_ascii=False, default=str)
        raise ValueError(f"the field {name!r} is {shown[:80]}; a text or a number can be used")
    return str(value)
