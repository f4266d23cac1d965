"""Numbers in a text, with their exact values."""

from __future__ import annotations

import re
from fractions import Fraction

_NUMBER = re.compile(
    r"(?<![\w.])-?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?:[eE][+-]?\d{1,3}(?!\d)|/0*[1-9]\d*)?"
)
_LONGEST = 400
"""Characters above which a number is none: nobody's answer, and slow to compare."""


def last_number(text: str) -> Fraction | None:
    """The last number of a text: sign, thousands commas, decimals, exponent, or ``a/b``."""
    numbers = _NUMBER.findall(text.replace("−", "-").replace("{,}", ","))
    if not numbers or len(numbers[-1]) > _LONGEST:
        return None
    numerator, _, denominator = numbers[-1].replace(",", "").partition("/")
    return Fraction(numerator) / int(denominator or 1)
