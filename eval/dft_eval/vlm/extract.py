r"""The final answer of a completion.

Looked for in this order, the last one of its kind: ``<answer>..</answer>`` (WeThink's layout, and
WeMath's ``<Answer>: <<B>>``), ``\boxed{..}``, ``Answer: ..``, ``the answer is ..`` or ``答案..``,
with any markdown around it, and else the last line. What precedes ``</think>`` is not read.
"""

from __future__ import annotations

import re

LONGEST_ANSWER = 2000
"""Longer answers are not cleaned."""

_OPEN_TAG = re.compile(r"<answer>", re.IGNORECASE)
_CLOSE_TAG = re.compile(r"</answer>", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BETWEEN_BOXES = re.compile(r"[\s$,;]*(?:and|or)?[\s$]*")
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {ord("。"): ". "}
_CHINESE = re.compile(r"([\u4e00-\u9fff]+)")
_PHRASE = re.compile(
    r"(?:\b(?:answer|option|choice)\b[*_`\s>]*"
    r"(?:(?:is|are|would be|should be|must be)\b|=|:|(?<=\n))"
    r"|(?:答案|选项|选择|故选|应选|选)\s*(?:应?[是为])?)[*_`\s]*:?[*_`\s]*",
    re.IGNORECASE,
)
_WRAPPERS = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mathsf|mbox|bm)\s*\{([^{}]*)\}"
)
TRIM = " \t\r\n*_`\"'“”‘’<>|"
_BOLD = re.compile(r"(?<![\w)])\*\*|\*\*(?![\w(])")
MENTION = re.compile(
    r"(?:(?i:\b(?:option|choice))\s*\(?|选项?\s*\(?|(?<![\w\\}])\()\s*([A-Z])(?![A-Za-z0-9'’])\)?"
)
_EXPLANATION = re.compile(
    r"[,;]\s+(?=[A-Za-z]{2})|\s+not\b|\s+(?:because|since|which|i\.e\.)|(?<=[^\s.])\.\s+(?=[A-Z])|\s+\((?=[A-Za-z]{2})"
)
_NOT = re.compile(r"^not\b[^.,;]*[.,;]\s*(?:but\s+)?(?:it(?:'s| is)\s+)?", re.IGNORECASE)
_ALTERNATIVES = re.compile(r"\d\S{0,9}\s+or\s+(?:\w+\s*=\s*)?[-$\\(]*\d")
_BETWEEN = re.compile(r"\d\S{0,9}\s+and\s+[-$\\(]*\d")
FILLER = re.compile(
    r"^(?:an?|the|at|about|approximately|roughly|exactly|equal to)\s+(?=[\w\\$(-])", re.IGNORECASE
)
_VERB = re.compile(r"[=≈]|\b(?:is|are|was|were|be|equals?)\b|[是为有]")


def answer_part(text: str) -> str:
    """The completion after its reasoning, if it marks one; Chinese punctuation as ASCII."""
    head, mark, tail = text.rpartition("</think>")
    text = tail if mark and tail.strip() else head if mark else text
    return _CHINESE.sub(r" \1 ", text.translate(_FULL_WIDTH))


def boxed(text: str) -> str | None:
    r"""What the last ``\boxed{..}`` holds; braces may nest, and the last may be missing.

    Boxes with nothing but ``and``, ``or`` or a comma between them are one answer.
    """
    parts: list[str] = []
    end = 0
    for start in _BOX.finditer(text):
        if start.start() < end:
            continue  # a box within a box
        if parts and not _BETWEEN_BOXES.fullmatch(text, end, start.start()):
            parts = []
        depth, end = 1, start.end()
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        parts.append(text[start.end() : end - 1 if depth == 0 else end])
    return ", ".join(parts) if parts else None


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
    """The stated answer without its explanation, or else the last line; empty for an empty one."""
    stated = stated_answer(text)
    if stated is not None:
        return without_explanation(stated)
    lines = lines_of(text)
    return lines[-1] if lines else ""


def normalised(text: str) -> str:
    """For comparing texts: no markup, case or spaces, one way to write common mathematics."""
    text = readable(_clean(text)).casefold()
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]+)\}\s*\{([^{}]+)\}|\\frac(\d)(\d)", r"\1\3/\2\4", text)
    text = text.replace("\\times", "×").replace("\\pi", "π").replace("\\sqrt", "√")
    text = re.sub(r"√\{([^{}]+)\}", r"√\1", text)
    text = re.sub(r"(\d)\.0+(?!\d)", r"\1", text)
    return re.sub(r"\s+|[$]", "", text).rstrip(".")


def readable(text: str) -> str:
    r"""The text with one minus, one degree sign, plain spaces, and ``\sqrt`` for ``√``."""
    text = text.replace("−", "-")
    text = re.sub(r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b", "°", text)
    text = re.sub(r"(?<!\\)\\[,;!: ]|~", " ", text)
    text = re.sub(r"√\s*\{", r"\\sqrt{", text)
    return re.sub(r"√\s*(?:\(([^()]*)\)|(\d+|\w))", r"\\sqrt{\1\2}", text)


def value(answer: str) -> str:
    """What follows the last ``=`` or ``≈``, unless the answer has several parts; no ``about``."""
    match = re.fullmatch(r"(.*)[=≈](.*)", answer, re.DOTALL)
    if match is None:
        return FILLER.sub("", answer)
    if not match[2].strip() or re.search(r"\b(?:or|and)\b|[,;]", match[1]):
        return answer
    return FILLER.sub("", _clean(match[2]))


def ambiguous(answer: str, *, sentence: bool = False) -> bool:
    """Whether an answer offers several numbers: ``2 or 3``, and unless a sentence ``2 and 3``."""
    return bool(_ALTERNATIVES.search(answer) or (not sentence and _BETWEEN.search(answer)))


def tails(sentence: str) -> list[str]:
    """What follows each verb or sign of equality: of ``The line is y = 2x`` ``y = 2x``, ``2x``."""
    if ambiguous(sentence, sentence=True):
        return []
    ends = [sentence[match.end() :] for match in _VERB.finditer(sentence)]
    return [FILLER.sub("", _clean(end.strip(TRIM + "."))) for end in ends]


def lines_of(text: str) -> list[str]:
    """The lines of the answer that hold something, without markup."""
    return [_clean(line) for line in answer_part(text).splitlines() if line.strip(TRIM + "$")]


def without_explanation(stated: str) -> str:
    """``24 cm`` of ``24 cm (Option B), since ..``."""
    head = _EXPLANATION.split(MENTION.sub("", stated), maxsplit=1)[0]
    return _clean(head.rstrip(" (,."))


def _after_phrase(text: str) -> str | None:
    """The rest of the line after the last 'Answer:' or the like, or the next line that has any."""
    for match in reversed(list(_PHRASE.finditer(text))):
        for line in text[match.end() :].splitlines():
            if line.strip(TRIM + "$"):
                return _NOT.sub("", line)
    return None


def _tagged(text: str) -> str | None:
    """What the last ``<answer>`` holds, closed or not; None where there is none."""
    opened = list(_OPEN_TAG.finditer(text))
    if not opened:
        return None
    inside = text[opened[-1].end() :]
    closed = _CLOSE_TAG.search(inside)
    return (inside[: closed.start()] if closed else inside).strip(TRIM + ":")


def _clean(text: str) -> str:
    text = text.strip(TRIM)
    if len(text) > LONGEST_ANSWER:
        return text
    former = None
    while former != text:
        former = text
        text = _BOLD.sub("", _WRAPPERS.sub(r"\1", text)).strip(TRIM)
        if "$" not in text.strip("$"):
            text = text.strip("$").strip(TRIM)
        if text.startswith(("\\(", "\\[")) and text.endswith(("\\)", "\\]")):
            text = text[2:-2]
    return text.removeprefix("=").lstrip()
