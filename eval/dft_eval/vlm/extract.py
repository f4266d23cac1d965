r"""The final answer of a completion, and the options that it names.

Looked for in this order, the last one of its kind: ``<answer>..</answer>`` (WeThink's layout, and
WeMath's ``<Answer>: <<B>>``), ``\boxed{..}``, ``Answer: ..``, ``the answer is ..`` or ``答案..``,
with any markdown around it, and else the last line. What precedes ``</think>`` is not read.

An option is named by its letter (``B``, ``(B) 65``, ``B because ..``, ``65 (Option B)``) or by its
text (``65°``, ``65 degrees``, ``65`` where no other option has that number). An answer whose letter
and value belong to two options names both, and so none. A capital that begins a word (``Based on
..``), stands for an article (``A square``) or for a point (``angle A``) names nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dft_eval.vlm import quantities

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
_TRIM = " \t\r\n*_`\"'“”‘’<>|"
_BOLD = re.compile(r"(?<![\w)])\*\*|\*\*(?![\w(])")
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
_MENTION = re.compile(
    r"(?:(?i:\b(?:option|choice))\s*\(?|选项?\s*\(?|(?<![\w\\}])\()\s*([A-Z])(?![A-Za-z0-9'’])\)?"
)
_REFUTED = re.compile(
    r"\)?\s*(?:is|are|was)?\s*(?:not|wrong|incorrect|too)\b|\)?\s*(?:does|can)(?:n't|not| not)\b"
)
_EXPLANATION = re.compile(
    r"[,;]\s+(?=[A-Za-z]{2})|\s+not\b|\s+(?:because|since|which|i\.e\.)|(?<=[^\s.])\.\s+(?=[A-Z])|\s+\((?=[A-Za-z]{2})"
)
_NOT = re.compile(r"^not\b[^.,;]*[.,;]\s*(?:but\s+)?(?:it(?:'s| is)\s+)?", re.IGNORECASE)
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
_ALTERNATIVES = re.compile(r"\d\S{0,9}\s+or\s+(?:\w+\s*=\s*)?[-$\\(]*\d")
_BETWEEN = re.compile(r"\d\S{0,9}\s+and\s+[-$\\(]*\d")
_FILLER = re.compile(
    r"^(?:an?|the|at|about|approximately|roughly|exactly|equal to)\s+(?=[\w\\$(-])", re.IGNORECASE
)
_NEGATED = re.compile(r"(?:\b(?:not|never|nor)|n't)\s+(?:an?\s+|the\s+)?$", re.IGNORECASE)
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
        return _without_explanation(stated)
    lines = _lines(text)
    return lines[-1] if lines else ""


def option_letters(text: str, options: Mapping[str, str]) -> set[str]:
    """The options that a completion names as its answer; more than one where it contradicts itself.

    Args:
        options: letter to text.
    """
    stated = stated_answer(text)
    if stated is not None:
        return _stated_letters(stated, options)
    lines = _lines(text)
    if not lines:
        return set()
    for line in (lines[-1], lines[0]):
        letters = _leading_letters(line, options) or _same_text(line, options)
        if letters:
            return letters
    return _concluded(lines[-1], options) or _texts_within(lines[-1], lines[0], options)


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
        return _FILLER.sub("", answer)
    if not match[2].strip() or re.search(r"\b(?:or|and)\b|[,;]", match[1]):
        return answer
    return _FILLER.sub("", _clean(match[2]))


def ambiguous(answer: str, *, sentence: bool = False) -> bool:
    """Whether an answer offers several numbers: ``2 or 3``, and unless a sentence ``2 and 3``."""
    return bool(_ALTERNATIVES.search(answer) or (not sentence and _BETWEEN.search(answer)))


def tails(sentence: str) -> list[str]:
    """What follows each verb or sign of equality: of ``The line is y = 2x`` ``y = 2x``, ``2x``."""
    if ambiguous(sentence, sentence=True):
        return []
    ends = [sentence[match.end() :] for match in _VERB.finditer(sentence)]
    return [_FILLER.sub("", _clean(end.strip(_TRIM + "."))) for end in ends]


def _lines(text: str) -> list[str]:
    return [_clean(line) for line in answer_part(text).splitlines() if line.strip(_TRIM + "$")]


def _without_explanation(stated: str) -> str:
    """``24 cm`` of ``24 cm (Option B), since ..``."""
    head = _EXPLANATION.split(_MENTION.sub("", stated), maxsplit=1)[0]
    return _clean(head.rstrip(" (,."))


def _stated_letters(stated: str, options: Mapping[str, str]) -> set[str]:
    leading = _leading_letters(stated, options)
    mentioned = {
        match[1]
        for match in _MENTION.finditer(stated)
        if match[1] in options
        and not _DENIED.search(stated, max(0, match.start() - 20), match.start(1))
        and not _REFUTED.match(stated, match.end())
    }
    by_text = set() if leading else _same_text(_without_explanation(stated), options)
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
    text = rest.strip(_TRIM + "$.:,;()[]=-–—")
    by_text = _same_text(text, options) if text else set()
    second = _SECOND_LETTER.match(rest)
    if match["bare"] and not (_AFTER_LETTER.match(rest) or second or letter in by_text):
        return set()
    more = {second[1]} & set(options) if second else set()
    return {letter} | more | by_text


def _same_text(answer: str, options: Mapping[str, str]) -> set[str]:
    """The one option of this text, or of this value where only one has it."""
    for text in dict.fromkeys((answer, _FILLER.sub("", answer), value(answer))):
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


def _after_phrase(text: str) -> str | None:
    """The rest of the line after the last 'Answer:' or the like, or the next line that has any."""
    for match in reversed(list(_PHRASE.finditer(text))):
        for line in text[match.end() :].splitlines():
            if line.strip(_TRIM + "$"):
                return _NOT.sub("", line)
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
        text = _BOLD.sub("", _WRAPPERS.sub(r"\1", text)).strip(_TRIM)
        if "$" not in text.strip("$"):
            text = text.strip("$").strip(_TRIM)
        if text.startswith(("\\(", "\\[")) and text.endswith(("\\)", "\\]")):
            text = text[2:-2]
    return text.removeprefix("=").lstrip()
