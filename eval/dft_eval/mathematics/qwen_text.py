r"""Text rules of Qwen2.5-Math's pipeline, as released with DFT: extraction and normalisation.

Behaviour of ``math_evaluation/parser.py`` at ``yongliang-wu/DFT`` e153181f, written anew, quirks
included: single letters go with the units (``a+b`` becomes ``+b``), percent signs and degrees are
dropped, ``10{,}000`` keeps its braces. Pure text in, text out; nothing is evaluated.
"""

from __future__ import annotations

import re

LETTERS = frozenset("ABCDE")
_TRIGGER = re.compile("choice is|answer is")
_LAST_NUMBER = re.compile(r"-?\d*\.?\d+")

# Words that are dropped where they stand alone, also with a plural s.
_UNITS = """
a c d g h l m o s t m cm mm dm km mtr metre meter inch inches ft feet yard mile
sq square cubic cube cc acre hectare gal gallon liter litre lt kg gm lb mt rs rupee mp th rd st ohm
deg degree mph kmph kmh sec second min minute hr hour day month year yr am pm noon minw
man men woman women soldier monkey apple coin toy tile pie mark east west way by per are ab bc
prime ratio rounds number unit percent gain loss profit rise increase decrease excess more less pure
Surface
"""
# "." stands for any character, as in the pipeline's own patterns: of "a 5" nothing is left.
_PHRASES = (
    *("no change", "profit of rs", "m sqaure", "sq m", "sq inch", "cu cm", "cm 2", "pi sq m"),
    *("[a-hqs] .", "rs .", "[ap] . m", "sq . m", "cu . m", "° f", "π r 2"),
)
_UNIT = re.compile(rf"(^|\W)(?:{'|'.join((*_UNITS.split(), *_PHRASES))})s?(?=$|\W)")

_SMALL = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBERS = {word: value for value, word in enumerate(_SMALL.split())}
_NUMBERS |= {word: 10 * place for place, word in enumerate(_TENS.split(), start=2)}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}


def predict(completion: str, gold: str, *, keep_units: bool) -> str:
    """The normalised answer of a completion, given the normalised right one.

    Args:
        keep_units: words and letters are not taken for units (Minerva).
    """
    answer = normalise(extract(completion, keep_units=keep_units), keep_units=keep_units)
    if gold in LETTERS and answer not in LETTERS:
        return _choice(completion)
    if set(gold) <= LETTERS and not set(answer) <= LETTERS:
        return "".join(character for character in answer if character in LETTERS)
    return answer


def right_answer(gold: str, *, keep_units: bool) -> str:
    """The normalised right answer."""
    return normalise(gold.strip("$"), keep_units=keep_units)


def has_answer(completion: str) -> bool:
    """Whether the extraction finds anything at all."""
    return bool(_find(completion))


def extract(completion: str, *, keep_units: bool) -> str:
    """The answer in a completion, normalised once; empty where there is none."""
    answer = re.sub(r"\n\s*", "", _find(completion)).removeprefix(":")
    return normalise(answer.removesuffix(".").removesuffix("/"), keep_units=keep_units)


def _find(completion: str) -> str:
    """Minerva's sentence, the last box, what follows "answer is", else the last number."""
    if "final answer is $" in completion and "$. I hope" in completion:
        return completion.split("final answer is $", 1)[1].split("$. I hope", 1)[0].strip()
    if "boxed" in completion:
        return _box(completion.rpartition("boxed")[2])
    for words in ("he answer is", "final answer is"):
        if words in completion:
            return completion.rpartition(words)[2].strip()
    numbers = _LAST_NUMBER.findall(completion.replace(",", ""))
    return numbers[-1] if numbers else ""


def _box(rest: str) -> str:
    """What a box holds whose text begins after ``boxed``; an open one holds all that follows."""
    if not rest.startswith("{"):
        return rest.split("$")[0].strip()
    depth = 0
    for place, character in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return rest[1:place]
    return rest[1:]


def _choice(completion: str) -> str:
    """The letter of a multiple-choice answer, else the text."""
    text = completion.strip("\n")
    if any(text.count(words) > 1 for words in ("choice is", "answer is")):
        text = text.split("\n\n")[0]
    pieces = _TRIGGER.split(text)
    text = pieces[-1].strip("\n").rstrip(".").rstrip("/").strip(" ").lstrip(":")
    letters = re.findall(r"\b([A-E])\b", text.upper())
    if letters:
        return str(letters[0] if len(pieces) > 1 else letters[-1])
    return text.strip().strip(".").rstrip(".").rstrip("/")


def normalise(text: str, *, keep_units: bool) -> str:
    """One spelling for many."""
    text = _spelling(text)
    text = re.sub(r"\\text{.*?}$", "", text).strip() or text
    if not keep_units:
        for _ in range(2):
            text = _UNIT.sub(r"\1", text) or text
    text = _delete(text, "^{\\circ}", "^\\circ", "\\$", "$", "\\(", "\\)")
    text = _words_to_number(text)
    text = re.sub(r"\\text\{(.*?)\}", r"\1", text)
    text = _delete(text, *(f"{name}{sign}" for sign in ("=", "\\in", "\\to") for name in "xyz"))
    text = text.replace("\\emptyset", "{}").replace("(-\\infty,\\infty)", "\\mathbb{R}")
    text = _delete(text, "\\%", "%").replace(" .", " 0.").replace("{.", "{0.")
    text = text.replace("infinity", "\\infty")
    if "\\infty" not in text:
        text = text.replace("inf", "\\infty")
    text = re.sub(r"\\mbox{.*?}", "", _delete(text, "and", "\\mathbf"))
    if "i" not in text:
        text = text.replace("j", "i")
    text = re.sub(r"(\d+)\.0*([^\d]|$)", r"\1\2", text)
    if text.startswith("."):
        text = f"0{text}"
    left, equals, right = text.partition("=")
    if equals and len(left) <= 2 and "=" not in right:
        text = right
    text = re.sub(r"\\sqrt(\w+)", r"\\sqrt{\1}", text).replace(" ", "")
    return _slash_to_fraction(_braced_fractions(text))


def _delete(text: str, *pieces: str) -> str:
    for piece in pieces:
        text = text.replace(piece, "")
    return text


def _spelling(text: str) -> str:
    text = text.strip().replace("\n", "").rstrip(".").replace("\\!", "")
    text = re.sub(r"\\begin\{array\}\{.*?\}", r"\\begin{pmatrix}", text)
    text = text.replace("\\end{array}", "\\end{pmatrix}").replace("bmatrix", "pmatrix")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac")
    for sign in ("ne", "le", "ge"):
        text = text.replace(f"\\{sign}q", f"\\{sign}")
    return _delete(text, "\\left", "\\right").replace("\\{", "{").replace("\\}", "}")


def _words_to_number(text: str) -> str:
    """``twenty five`` becomes 25, ``007`` becomes 7; other words beside number words are lost."""
    plain = text.replace("-", " ").lower()
    if plain.isdecimal():
        return str(int(plain)) if len(plain) < 4000 else text
    words = [word for word in plain.split() if word in _NUMBERS or word in _SCALES]
    if not words or any(words.count(scale) > 1 for scale in ("thousand", "million", "billion")):
        return text
    total = group = 0
    for word in words:
        scale = _SCALES.get(word, 0)
        if scale == 100:
            group = max(group, 1) * scale
        elif scale:
            total, group = total + max(group, 1) * scale, 0
        else:
            group += _NUMBERS[word]
    return str(total + group)


def _braced_fractions(text: str) -> str:
    r"""``\frac12`` becomes ``\frac{1}{2}``; unchanged if any has no denominator."""
    if re.search(r"\\frac(?!\{).?(?=\\frac|$)", text):
        return text
    braced = re.sub(r"\\frac([^{])(?!\{)(.)", r"\\frac{\1}{\2}", text)
    return re.sub(r"\\frac([^{])\{", r"\\frac{\1}{", braced)


def _slash_to_fraction(text: str) -> str:
    """``3/4`` becomes a fraction, where both sides are whole numbers or hold a root."""
    sides = text.split("/")
    if len(sides) != 2 or not all(
        "sqrt" in side or re.fullmatch(r"0|-?[1-9]\d*", side) for side in sides
    ):
        return text
    return f"\\frac{{{sides[0]}}}{{{sides[1]}}}"
