"""VLMEvalKit's way from an answer to an option, used with ``--judge openai`` before and after the
judge (version 0.0.20, ``utils/matching_util.py``, ``can_infer``), except that nothing comes of
an empty answer, and an option's text counts as whole words alone ('d' is not in 'unsure indeed').
"""

from __future__ import annotations

import re
from collections.abc import Mapping

DECLINED = "Z"
"""What an answer that refuses to choose is matched to; never right."""

_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST_WORDS = 5
"""A letter counts when it first stands among so many last words."""


def infer_option(answer: str, choices: Mapping[str, str]) -> str | None:
    """The letter that ``answer`` names, :data:`DECLINED`, or None.

    Args:
        choices: letter to text.
    """
    if any(refusal in answer for refusal in _REFUSALS):
        return DECLINED
    words = answer.translate(_PUNCTUATION).split()
    named = [letter for letter in choices if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - _LAST_WORDS:
        return named[0]
    if not named and DECLINED in words:
        return DECLINED
    return _by_text(answer.lower(), choices)


def _by_text(answer: str, choices: Mapping[str, str]) -> str | None:
    if len(answer) > 2 * sum(len(text) for text in choices.values()):
        return None
    letters = [
        letter
        for letter, text in choices.items()
        if text and re.search(rf"(?<![\w.-]){re.escape(text.lower())}(?!\w|\.\d)", answer)
    ]
    return letters[0] if len(letters) == 1 else None
