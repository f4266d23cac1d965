r"""The final answer of a completion, and the option that it names.

Understood, in this order, the last one of its kind: ``<answer>..</answer>`` (WeThink's layout, and
WeMath's ``<Answer>: <<B>>``), ``\boxed{..}``, ``Answer: ..`` or ``the answer is ..`` with any
markdown around it, and else the last line (for an option also the first). What precedes
``</think>`` is never looked at.

An option is named by its letter alone (``B``, ``(B)``, ``B.``, ``**B**``, ``\text{B}``,
``Option B``), by the letter with what stands behind it (``(B) 65``, ``B: 65``), or by its text
(``65``). A capital that begins a word (``Based on ...``) or stands for an article (``A square``)
names nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

LONGEST_ANSWER = 2000
"""Characters above which an answer is taken as it is, markup and all."""

_OPEN_TAG = re.compile(r"<answer>", re.IGNORECASE)
_CLOSE_TAG = re.compile(r"</answer>", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_PHRASE = re.compile(
    r"\b(?:answer|option|choice)\b[*_`\s>]*"
    r"(?:(?:is|are|would be|should be|must be)\b|=|[:：]|(?<=\n))[*_`\s]*[:：]?[*_`\s]*",
    re.IGNORECASE,
)
_WRAPPERS = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mbox)\s*\{([^{}]*)\}")
_TRIM = " \t\r\n*_`$\"'“”‘’<>|"
_LETTER = re.compile(
    r"^(?:the\s+)?(?:correct\s+)?(?:(?:option|choice|answer)\s*(?:is\s*)?:?\s*)?"
    r"(?:\(\s*(?P<round>[A-Z])\s*\)|\[\s*(?P<square>[A-Z])\s*\]|(?P<bare>[A-Z])(?![A-Za-z0-9'’]))"
    r"(?P<rest>.*)$",
    re.DOTALL,
)
_SECOND_LETTER = re.compile(
    r"\s*(?:[,;/&]|and\b|or\b)[\s,;/&]*(?:(?:and|or)\b\s*)?\(?[A-Z]\)?(?![A-Za-z0-9])"
)
_ARTICLE = re.compile(r"\s+(?!and\b|or\b|is\b)[a-z]")
_DENIED = re.compile(r"\b(?:not|nor)\s+(?:option\s+)?\(?$")
_LONE_LETTER = re.compile(r"(?<![A-Za-z0-9'’\\])\(?([A-Z])\)?(?![A-Za-z0-9'’])")


def answer_part(text: str) -> str:
    """The completion after its reasoning, if it marks one."""
    head, mark, tail = text.rpartition("</think>")
    return tail if mark and tail.strip() else head if mark else text


def boxed(text: str) -> str | None:
    r"""What the last ``\boxed{..}`` holds; braces may nest, and the last may be missing."""
    starts = list(_BOX.finditer(text))
    if not starts:
        return None
    begin = starts[-1].end()
    depth = 1
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place]
    return text[begin:]


def stated_answer(text: str) -> str | None:
    """The answer that the completion states as such; None where it states none."""
    text = answer_part(text)
    inside = _tagged(text)
    if inside:
        return _clean(boxed(inside) or _after_phrase(inside) or inside)
    box = boxed(text)
    if box is not None and box.strip():
        return _clean(box)
    phrase = _after_phrase(text)
    return inside if phrase is None else _clean(phrase)


def final_answer(text: str) -> str:
    """The stated answer, or else the last line that holds anything; empty for an empty one."""
    stated = stated_answer(text)
    if stated is not None:
        return stated
    lines = [line for line in answer_part(text).splitlines() if line.strip(_TRIM)]
    return _clean(lines[-1]) if lines else ""


def option_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The one option that a completion names; None where it names none, or more than one.

    Args:
        options: letter to text.
    """
    stated = stated_answer(text)
    if stated is not None:
        return _named(stated, options)
    lines = [line for line in answer_part(text).splitlines() if line.strip(_TRIM)]
    if not lines:
        return None
    last = _clean(lines[-1])
    named = _named(last, options) or _named(_clean(lines[0]), options)
    if named is not None:
        return named
    # "So it must be B.": the only letter of the last line, where that is no article.
    found = {
        match[1]
        for match in _LONE_LETTER.finditer(last)
        if match[1] in options
        and not (match[1] == "A" and _ARTICLE.match(last, match.end()))
        and not _DENIED.search(last, max(0, match.start() - 20), match.start())
    }
    return found.pop() if len(found) == 1 else None


def normalised(text: str) -> str:
    """For comparing texts: no markup, case or spaces, one minus and one degree sign."""
    text = _clean(text).casefold()
    text = text.replace("−", "-").replace("^{\\circ}", "°").replace("^\\circ", "°")
    return re.sub(r"\s+|\\[,;!: ]|[$]", "", text).rstrip(".")


def _named(answer: str, options: Mapping[str, str]) -> str | None:
    match = _LETTER.match(answer)
    if match is not None:
        letter = match["round"] or match["square"] or match["bare"]
        rest = match["rest"]
        delimited = match["bare"] is None or re.match(r"\s*[.:：,;)\]\n]", rest)
        same_text = normalised(rest) == normalised(options.get(letter, ""))
        second = _SECOND_LETTER.match(rest)
        if letter in options and not second and (delimited or same_text or not rest.strip(_TRIM)):
            return letter
    plain = normalised(answer)
    equal = [letter for letter, text in options.items() if plain and normalised(text) == plain]
    return equal[0] if len(equal) == 1 else None


def _after_phrase(text: str) -> str | None:
    """The rest of the line after the last 'Answer:' or the like, or the next line that has any."""
    for match in reversed(list(_PHRASE.finditer(text))):
        for line in text[match.end() :].splitlines():
            if line.strip(_TRIM):
                return line
    return None


def _tagged(text: str) -> str | None:
    """What the last ``<answer>`` holds, closed or not; None where there is none."""
    opened = list(_OPEN_TAG.finditer(text))
    if not opened:
        return None
    inside = text[opened[-1].end() :]
    closed = _CLOSE_TAG.search(inside)
    return (inside[: closed.start()] if closed else inside).strip(_TRIM + ":")


def _clean(text: str) -> str:
    text = text.strip(_TRIM)
    if len(text) > LONGEST_ANSWER:
        return text
    former = None
    while former != text:
        former = text
        text = _WRAPPERS.sub(r"\1", text).strip(_TRIM)
        if text.startswith(("\\(", "\\[")) and text.endswith(("\\)", "\\]")):
            text = text[2:-2]
    return text.removeprefix("=").lstrip()
