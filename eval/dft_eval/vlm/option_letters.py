r"""The options that a completion names.

An option is named by its letter (``B``, ``(B) 65``, ``B because ..``, ``65 (Option B)``) or by its
text (``65°``, ``65 degrees``, ``65`` where no other option has that number). An answer whose letter
and value belong to two options names both, and so none. A capital that begins a word (``Based on
..``), stands for an article (``A square``) or for a point (``angle A``) names nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dft_eval.vlm import quantities
from dft_eval.vlm.extract import (
    FILLER,
    MENTION,
    TRIM,
    lines_of,
    normalised,
    stated_answer,
    tails,
    value,
    without_explanation,
)

_LETTER = re.compile(
    r"^(?i:(?:the\s+)?(?:correct\s+)?(?:(?:option|choice|answer)\s*(?:is\s*)?:?\s*)?)"
    r"(?:\(\s*(?P<round>[A-Z])\s*\)|\[\s*(?P<square>[A-Z])\s*\]|(?P<bare>[A-Z])(?![A-Za-z0-9'’]))"
    r"(?P<rest>.*)$",
    re.DOTALL,
)
_AFTER_LETTER = re.compile(
    r"\s*(?:[.:,;)\]\n(]|[–—]|-\s|(?:because|since|as|with|which|so)\b"
    r"|is (?:the )?(?:correct|right|best|answer)\b|$)"
)
_SECOND_LETTER = re.compile(
    r"\s*(?:[,;/&]|and\b|or\b)[\s,;/&]*(?:(?:and|or)\b\s*)?\(?([A-Z])\)?(?![A-Za-z0-9])"
)
_REFUTED = re.compile(
    r"\)?\s*(?:is|are|was)?\s*(?:not|wrong|incorrect|too)\b|\)?\s*(?:does|can)(?:n't|not| not)\b"
)
_ARTICLE = re.compile(r"\s+(?!and\b|or\b|is\b)[a-z]")
_POINT = re.compile(
    r"(?i:\b(?:angle|point|vertex|side|line|circle|set|event)s?\s+|∠\s*|\\angle\s*)$"
)
_VALUE_FOLLOWS = re.compile(r"\s*(?:=|≈|(?:is|equals)\s+\$?[-\d\\]|(?:lies|on)\b)")
_DENIED = re.compile(r"\b(?:not|nor|neither)\s+(?:option\s+)?\(?$", re.IGNORECASE)
_LONE_LETTER = re.compile(r"(?<![A-Za-z0-9'’\\])\(?([A-Z])\)?(?![A-Za-z0-9'’])")
_CONCLUSION = re.compile(
    r"\b(?:so|thus|hence|therefore|must be|choose|select|pick)[\s,]+(?:it\s+)?"
    r"(?:(?:is|must be)\s+)?\(?([A-Z])\)?(?=[\s.,;:]*$|[.,;])"
)
_NEGATED = re.compile(r"(?:\b(?:not|never|nor)|n't)\s+(?:an?\s+|the\s+)?$", re.IGNORECASE)


def option_letters(text: str, options: Mapping[str, str]) -> set[str]:
    """The options that a completion names as its answer; more than one where it contradicts itself.

    Args:
        options: letter to text.
    """
    stated = stated_answer(text)
    if stated is not None:
        return _stated_letters(stated, options)
    lines = lines_of(text)
    if not lines:
        return set()
    for line in (lines[-1], lines[0]):
        letters = _leading_letters(line, options) or _same_text(line, options)
        if letters:
            return letters
    return _concluded(lines[-1], options) or _texts_within(lines[-1], lines[0], options)


def _stated_letters(stated: str, options: Mapping[str, str]) -> set[str]:
    leading = _leading_letters(stated, options)
    mentioned = {
        match[1]
        for match in MENTION.finditer(stated)
        if match[1] in options
        and not _DENIED.search(stated, max(0, match.start() - 20), match.start(1))
        and not _REFUTED.match(stated, match.end())
    }
    by_text = set() if leading else _same_text(without_explanation(stated), options)
    lower = re.fullmatch(r"(?:[Oo]ption\s+)?\(?([a-z])\)?[.)]?", stated)
    if lower and not by_text and lower[1].upper() in options:
        return {lower[1].upper()}
    return leading | mentioned | by_text


def _leading_letters(answer: str, options: Mapping[str, str]) -> set[str]:
    """The letter that an answer begins with, and any that it adds or contradicts it by."""
    match = _LETTER.match(answer)
    if match is None:
        return set()
    letter = match["round"] or match["square"] or match["bare"]
    if letter not in options:
        return set()
    rest = match["rest"]
    text = rest.strip(TRIM + "$.:,;()[]=-–—")
    by_text = _same_text(text, options) if text else set()
    second = _SECOND_LETTER.match(rest)
    if match["bare"] and not (_AFTER_LETTER.match(rest) or second or letter in by_text):
        return set()
    more = {second[1]} & set(options) if second else set()
    return {letter} | more | by_text


def _same_text(answer: str, options: Mapping[str, str]) -> set[str]:
    """The one option of this text, or of this value where only one has it."""
    for text in dict.fromkeys((answer, FILLER.sub("", answer), value(answer))):
        plain = normalised(text)
        letters = {
            letter for letter, other in options.items() if plain and normalised(other) == plain
        }
        if not letters:
            letters = {letter for letter, other in options.items() if _same_quantity(plain, other)}
        if len(letters) == 1:
            return letters
    return set()


def _same_quantity(plain: str, option: str) -> bool:
    """Equal numbers, of which one may have no unit and the other may be written out."""
    number, unit = quantities.split(plain)
    other, other_unit = quantities.split(normalised(option))
    if not number or number != other:
        return False
    return unit is None or other_unit is None or unit == other_unit


def _concluded(line: str, options: Mapping[str, str]) -> set[str]:
    """The letters of a last line ("So it must be B."), where they stand for options."""
    concluded = [match[1] for match in _CONCLUSION.finditer(line) if match[1] in options]
    if concluded:
        return {concluded[-1]}
    return {
        match[1]
        for match in _LONE_LETTER.finditer(line)
        if match[1] in options
        and not (match[1] == "A" and _ARTICLE.match(line, match.end()))
        and not _POINT.search(line, 0, match.start())
        and not _VALUE_FOLLOWS.match(line, match.end())
        and not _DENIED.search(line, max(0, match.start() - 20), match.start())
        and not _REFUTED.match(line, match.end())
    }


def _texts_within(last: str, first: str, options: Mapping[str, str]) -> set[str]:
    """The option whose text is what a sentence ends in, or whose words stand in it."""
    for tail in tails(last):
        letters = _same_text(tail, options)
        if letters:
            return letters
    words = {letter: text for letter, text in options.items() if not re.search(r"\d", text)}
    begins = {
        letter
        for letter, text in words.items()
        if len(text) > 1 and re.match(rf"{re.escape(text)}(?=[.,;:!])", first, re.IGNORECASE)
    }
    within = {
        letter
        for letter, text in words.items()
        if len(text) > 3
        for match in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", last, re.IGNORECASE)
        if not _NEGATED.search(last, 0, match.start())
    }
    return begins or within
