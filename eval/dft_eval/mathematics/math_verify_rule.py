r"""Equality by math-verify, on the last box.

math-verify on a whole text joins all boxes into a set, so that a corrected answer is wrong; here
the last box counts, and math-verify searches the text only where there is none. What it cannot read
is respelled first: ``4.5e33``, ``10{,}000``. Several answers are compared one by one in any order,
since math-verify takes a part of them for the whole. Runs in :mod:`dft_eval.formula_worker` alone.
"""

from __future__ import annotations

import re
from typing import Any

_OPEN, _CLOSE = "([{", ")]}"
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mbox|textit|operatorname)\s*\{([^{}]*)\}")
_UNIT_BEHIND = re.compile(
    r"(?<=[\d})])(?:\\[ ,;!]|[\s~])*"
    r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}(?:\^\{?[23]\}?)?(?:/\\(?:text|mathrm)\{[^{}]*\})?\s*$"
)
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_POWER_OF_TEN = re.compile(r"(?<![\w.])(\d+\.?\d*|\.\d+)[eE]([+-]?)0*(\d+)(?!\w)")
_BETWEEN = re.compile(
    r"\\(?:text|mathrm|mbox)\s*\{\s*,?\s*(?:and|or)\s*\}|(?<=[\s,])(?:and|or)(?=\s)|\\quad|\\qquad"
)


def answer_of(completion: str, gold: str) -> str | None:
    """The answer as it stands in its boxes; None where there is no box."""
    boxes = _boxes(completion)
    if not boxes:
        return None
    n_parts = len(_parts(gold))
    if n_parts > 1 and len(boxes) >= n_parts and len(_parts(boxes[-1])) == 1:
        return ", ".join(boxes[-n_parts:])
    return boxes[-1]


def read(completion: str) -> str | None:
    """What math-verify finds in a text without a box; None for nothing."""
    parsed = _parsed(_respelled(completion))
    return str(parsed[-1]) if parsed else None


def equal(completion: str, gold: str) -> bool:
    """Whether a completion's answer equals the right one."""
    answer = answer_of(completion, gold)
    if answer is None:
        return _verified(_parsed(_respelled(completion)), gold)
    if not answer.strip():
        return False
    if _plain(answer) == _plain(gold):
        return True
    answers, golds = _parts(answer), _parts(gold)
    if len(golds) > 1 and "\\pm" not in answer:
        return _same_in_any_order(answers, golds)
    return _same(answer, gold)


def _same_in_any_order(answers: list[str], golds: list[str]) -> bool:
    """Each right answer once, no other beside them."""
    left = list(answers)
    for gold in golds:
        match = next((answer for answer in left if _same(answer, gold)), None)
        if match is None:
            return False
        left.remove(match)
    return not left


def _same(answer: str, gold: str) -> bool:
    if _plain(answer) == _plain(gold):
        return True
    (value, percent), (right, right_percent) = map(_without_percent, (answer, gold))
    spellings = [(value, right)]
    if percent and not right_percent:
        spellings.append((f"\\frac{{{value}}}{{100}}", right))
    if right_percent and not percent:
        spellings.append((value, f"\\frac{{{right}}}{{100}}"))
    return any(
        _verified(_parsed(f"\\boxed{{{_respelled(one)}}}"), other) for one, other in spellings
    )


def _without_percent(text: str) -> tuple[str, bool]:
    value = re.sub(r"\s*(?:\\?%|\\text\s*\{\s*percent\s*\})\s*$", "", _respelled(text))
    return value, value != _respelled(text)


def _verified(answer: list[Any], gold: str) -> bool:
    from math_verify import verify  # type: ignore[import-untyped]

    right = _parsed(f"\\boxed{{{_respelled(gold)}}}")
    return bool(answer and right and verify(right, answer, timeout_seconds=None))


def _parsed(text: str) -> list[Any]:
    from math_verify import parse

    # Its own time limits need signals that the worker uses for the whole question.
    parsed: list[Any] = parse(text, parsing_timeout=None)
    return parsed


def _boxes(text: str) -> list[str]:
    """What each outermost complete box holds; ``\\boxed 3`` holds the character."""
    boxes: list[str] = []
    end = 0
    for match in re.finditer(r"\\(?:boxed|fbox)\s*", text):
        if match.start() < end:
            continue
        if not text.startswith("{", match.end()):
            boxes += re.findall(r"^\s*([^\s{}$\\])", text[match.end() : match.end() + 8])
            continue
        end = _closing(text, match.end())
        if end:
            boxes.append(text[match.end() + 1 : end - 1])
        else:
            break
    inner = boxes[-1:] and _boxes(boxes[-1])
    return boxes[:-1] + inner if inner else boxes


def _closing(text: str, start: int) -> int:
    """The place after the brace that closes the one at ``start``; 0 where nothing does."""
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return start + match.end()
    return 0


def _parts(text: str) -> list[str]:
    """The answers of a list such as ``1, 2`` or ``1 \\text{ and } 2``; a single answer as it is."""
    text = _respelled(text)
    inner = re.fullmatch(r"\s*\\\{(.*)\\\}\s*", text, re.DOTALL)
    if inner and "\\}" not in inner[1]:
        text = inner[1]
    if _THOUSANDS.fullmatch(text.strip()):
        return [text]
    text = _BETWEEN.sub(",", text)
    parts, depth, begin = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth == 0 and character in ",;":
            parts.append(text[begin:place])
            begin = place + 1
    parts = [part.strip() for part in (*parts, text[begin:])]
    return [part for part in parts if part] or [text]


def _respelled(text: str) -> str:
    """Numbers as math-verify reads them, without dollars, thin spaces and the unit at the end."""
    text = re.sub(r"\\left(?![a-z])|\\right(?![a-z])|\\!", "", text)
    text = text.replace("\\$", "").replace("$", "").replace("{,}", ",").replace("np.arc", "\\arc")
    text = text.replace("\\varnothing", "\\emptyset")
    text = re.sub(r"(?<=\d)\.(?=/\d)", "", text)
    text = re.sub(r"(?<=\d),\s+(?=\d{3}(?:\D|$))(?<=\d,\s)(?=.*\\!)", ",", text)
    text = _POWER_OF_TEN.sub(_power_of_ten, text)
    return _UNIT_BEHIND.sub("", text)


def _power_of_ten(match: re.Match[str]) -> str:
    return f"{match[1]} \\times 10^{{{match[2].lstrip('+')}{match[3]}}}"


def _plain(text: str) -> str:
    """Text without commands for words, spaces, case and brackets around one letter."""
    text = _WORDS.sub(r"\1", text.replace("$", ""))
    text = re.sub(r"\\[ ,;!]|\s|~|\\left(?![a-z])|\\right(?![a-z])", "", text).rstrip(".").lower()
    letter = re.fullmatch(r"\(([a-z])\)", text)
    return letter[1] if letter else text
