"""Numbers and foreign text as a reader sees them. Percentages exist only from here on.

Text of a model, a benchmark or a file name is foreign: it is made visible (control characters and
bidirectional overrides replaced), then escaped by the template engine, for HTML by jinja2's
autoescape, for Markdown by :func:`markdown_inline` and :func:`markdown_fence`.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_MARKDOWN = re.compile(r"([\\`*_\[\]|~#$])")
_BLOCK_START = re.compile(r"^(\d{0,9})([-+=.)])(?=\s|$|[-=])")
"""What would begin a list, a rule or an underlined heading at the start of a line."""


class Markdown(str):
    """Text that is Markdown already, so that the template must not escape it again."""

    __slots__ = ()


def visible(text: str) -> str:
    """``text`` with uniform line ends and no invisible control characters."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """``text`` on one line, white space collapsed."""
    return visible(" ".join(text.split()))


def markdown_inline(value: Any) -> str:
    """Any value as Markdown that shows exactly its text: no tag, emphasis, link, list, cell."""
    if isinstance(value, Markdown):
        return value
    text = one_line(str(value)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _BLOCK_START.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\1", text))


def markdown_fence(text: str) -> Markdown:
    """A fenced code block, its fence longer than any run of backticks inside."""
    text = visible(text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    end = "" if text.endswith("\n") else "\n"
    return Markdown(f"{fence}text\n{text}{end}{fence}")


def cut(text: str, limit: int) -> tuple[str, str]:
    """The first ``limit`` characters, and a note that says so (empty if nothing is missing)."""
    if len(text) <= limit:
        return text, ""
    return text[:limit], f"cut here: {limit:,} of {len(text):,} characters are shown"


def _fixed(value: float, digits: int) -> str:
    """Fixed point, without a minus before a zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def percent(score: float, stderr: float | None = None) -> str:
    """A fraction as ``42.0 %``, with a standard error as ``42.0 ± 4.1 %``."""
    spread = "" if stderr is None else f" ± {_fixed(100 * stderr, 1)}"
    return f"{_fixed(100 * score, 1)}{spread} %"


def points(difference: float, stderr: float | None = None) -> str:
    """A difference of fractions in percentage points: ``+25.0 ± 12.5``."""
    number = _fixed(100 * difference, 1)
    sign = "" if float(number) <= 0 else "+"
    spread = "" if stderr is None else f" ± {_fixed(100 * stderr, 1)}"
    return f"{sign}{number}{spread}".replace("-", "−")


def points_between(interval: tuple[float, float]) -> str:
    """An interval of differences: ``−1.0 to +2.5``."""
    return " to ".join(map(points, interval))


def size(difference: float) -> str:
    """The size of a difference of fractions in percentage points: ``25.0``."""
    return points(abs(difference)).removeprefix("+")


def percent_between(interval: tuple[float, float]) -> str:
    """An interval of scores: ``38.1 to 46.0 %``."""
    low, high = map(percent, interval)
    return f"{low.removesuffix(' %')} to {high}"


def signed(change: Decimal) -> str:
    """A difference of printed figures, with their digits: ``+4.30``, ``−0.6``, ``0.00``."""
    return f"{change:+}".replace("-", "−") if change else str(abs(change))


def p_value(p: float) -> str:
    """``p = 0.45``, ``p = 0.0312``, ``p < 0.0001``."""
    if p < 0.0001:
        return "p < 0.0001"
    return f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.3g}"


def breakdown(value: float | None) -> str:
    """A part of a score: fractions as percentages, anything else as the number that it is."""
    if value is None:
        return "unscored"
    return percent(value) if 0.0 <= value <= 1.0 else f"{value:g}"


def number(value: float | None, digits: int = 3) -> str:
    """A plain number, or words where there is none."""
    if value is None:
        return "not logged"
    return _fixed(value, digits) if math.isfinite(value) else "not finite"


def plural(count: int, noun: str) -> str:
    """``1 item``, ``2 items``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
