"""UltraFeedback -> alpaca: each instruction with its best-rated completion.

A record of openbmb/UltraFeedback has an ``instruction`` and up to four ``completions``, each with
a ``response`` and ``annotations`` that rate four aspects from 1 to 5 or as ``"N/A"``
(arXiv 2310.01377). Only those ratings are used: ``overall_score`` was published with a 10 where a 1
was meant (OpenBMB/UltraFeedback, issue 8), and ``fine-grained_score`` is derived from the ratings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction

from dft_factory.data.checks import check_text
from dft_factory.data.records import ALPACA_ENTRY, AlpacaRecord, Converter, Dropped

ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def rating_number(rating: object) -> Fraction | None:
    """The rating as an exact number, or None.

    Integers, finite floats and their decimal text (``5``, ``4.5``, ``" 4 "``) are numbers;
    ``"N/A"``, ``None``, booleans, NaN and everything else are not.
    """
    if isinstance(rating, bool):
        return None
    if isinstance(rating, int):
        return Fraction(rating)
    if isinstance(rating, float):
        # Through its decimal text: 4.1 is 41/10, like the text "4.1".
        return Fraction(repr(rating)) if math.isfinite(rating) else None
    if isinstance(rating, str) and _NUMBER.fullmatch(rating.strip()):
        return Fraction(rating.strip())
    return None


def average_rating(completion: Mapping[str, object]) -> Fraction | None:
    """Mean of the numeric ratings over the four aspects, or None without one.

    A missing aspect counts like ``"N/A"``: it does not lower the mean. The mean is exact, so that
    equal ratings never differ by rounding.
    """
    annotations = completion.get("annotations")
    if not isinstance(annotations, Mapping):
        return None
    numbers = []
    for aspect in ASPECTS:
        annotation = annotations.get(aspect)
        if isinstance(annotation, Mapping):
            number = rating_number(annotation.get("Rating"))
            if number is not None:
                numbers.append(number)
    return sum(numbers, Fraction(0)) / len(numbers) if numbers else None


def convert(record: Mapping[str, object]) -> AlpacaRecord | Dropped:
    """Keep the completion with the highest :func:`average_rating`, the first of equals.

    The tie rule does not depend on the seed, so a published file always gives the same answers. The
    texts are kept as published. A record whose best completion has no response is dropped.
    """
    instruction = check_text(record.get("instruction"), "instruction")
    if isinstance(instruction, Dropped):
        return instruction
    completions = record.get("completions")
    if not isinstance(completions, list) or not completions:
        return Dropped("missing completions")
    best: Mapping[str, object] | None = None
    highest: Fraction | None = None
    for completion in completions:
        if not isinstance(completion, Mapping):
            return Dropped("malformed completion")
        average = average_rating(completion)
        if average is not None and (highest is None or average > highest):
            best, highest = completion, average
    if best is None:
        return Dropped("no numeric rating")
    response = check_text(best.get("response"), "best response")
    if isinstance(response, Dropped):
        return response
    return AlpacaRecord(instruction=instruction, input="", output=response)


ULTRAFEEDBACK = Converter(convert, ALPACA_ENTRY, hub_id="openbmb/UltraFeedback")
