r"""Numbers with units: ``24 cm``, ``24\,cm``, ``140°``, ``15 square units``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_UNITS: dict[str, tuple[str, Fraction]] = {
    r"mm|millimet(?:er|re)s?|毫米": ("length", Fraction(1, 1000)),
    r"cm|centimet(?:er|re)s?|厘米": ("length", Fraction(1, 100)),
    r"dm|decimet(?:er|re)s?|分米": ("length", Fraction(1, 10)),
    r"m|met(?:er|re)s?|米": ("length", Fraction(1)),
    r"km|kilomet(?:er|re)s?|千米": ("length", Fraction(1000)),
    r"in|inch(?:es)?": ("inch", Fraction(1)),
    r"ft|foot|feet": ("foot", Fraction(1)),
    r"°|deg(?:rees?)?\b|度": ("angle", Fraction(1)),
    r"\\?%|percent": ("percent", Fraction(1)),
    r"units?|单位": ("", Fraction(1)),
}
_NAMES = "|".join(f"(?P<u{i}>{names})" for i, names in enumerate(_UNITS))
_UNIT = (
    rf"(?P<word>square\s+|sq\.?\s*|cubic\s+|cu\.?\s*)?(?:{_NAMES})(?P<power>\^?\{{?[23]\}}?|[²³])?"
)
_NUMBER = r"-?(?:\d[\d.,/]*|\\frac\{\d+\}\{\d+\})(?:\s*(?:π|\\pi))?(?:\s*(?:√\w|\\sqrt\{\w+\}))?"
_WHOLE = re.compile(rf"(?P<value>.*?(?:[^A-Za-z\s]\s*|\S\s+)){_UNIT}\.?", re.IGNORECASE | re.DOTALL)
_WITHIN = re.compile(rf"(?P<value>{_NUMBER})[\s$-]*{_UNIT}(?![A-Za-z])", re.IGNORECASE)
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "2": 2, "3": 3, "²": 2, "³": 3}


@dataclass(frozen=True)
class Unit:
    """A unit of measurement: its dimension, the power of it, and its size in the base unit.

    ``units`` without a name have an empty dimension.
    """

    dimension: str
    power: int
    size: Fraction

    def comparable(self, other: Unit) -> bool:
        """Whether a number of one can be a number of the other."""
        same = (self.dimension, self.power) == (other.dimension, other.power)
        return same or "" in (self.dimension, other.dimension)


def split(text: str) -> tuple[str, Unit | None]:
    """The value and the unit behind it; (``text``, None) where there is none."""
    match = _WHOLE.fullmatch(text.strip())
    if match is None or not re.search(r"\d|π|\\pi", match["value"]):
        return text, None
    return match["value"].strip(), _unit(match)


def last(text: str) -> str | None:
    """The last number with a unit in a sentence, such as ``24 cm``."""
    matches = list(_WITHIN.finditer(text))
    return matches[-1][0] if matches else None


def _unit(match: re.Match[str]) -> Unit:
    place = next(i for i in range(len(_UNITS)) if match[f"u{i}"])
    dimension, size = list(_UNITS.values())[place]
    name = (match["word"] or match["power"] or "").strip(" .^{}").lower()
    power = _POWERS.get(name, 1)
    return Unit(dimension, power, size**power)
