"""Writes the Python functions of the study: `python configs/study/make_python.py`.

A function is a shape (count, keep, all, ...) filled with a condition, a change, or both. Functions
that differ in a number or letter alone share a template. Training leaves the shapes of
:data:`UNSEEN` out; half of the held-out problems are of these ("unseen"), half of the others
("seen").
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import product, zip_longest
from typing import Any, NamedTuple

from common import HELD_OUT, TRAINING, mixed, write

PROMPT = "Complete this Python function. Reply with its code alone.\n```python\n{stub}```"
"""Also in `python.yaml`; a test compares them."""
UNSEEN = ("any", "remove", "each_kept")
MOST = 620
"""Functions of one shape, so that shapes of two parts do not outnumber the others by more."""
DRAWS = 24
"""Functions of one template."""


class Phrase(NamedTuple):
    """A condition or change: its part of the function's name, its words, its code."""

    name: str = ""
    words: str = ""
    code: str = ""

    def filled(self, **values: object) -> Phrase:
        """With a thing ``x``, a number ``k`` and a letter ``c``."""
        return Phrase(*(part.format(**values) for part in self))


NOTHING = (Phrase(),)
LETTERS = "abcdefgilmnoprst"
CONDITIONS = {
    "number": (
        Phrase("even", "is even", "{x} % 2 == 0"),
        Phrase("odd", "is odd", "{x} % 2 == 1"),
        Phrase("positive", "is positive", "{x} > 0"),
        Phrase("negative", "is negative", "{x} < 0"),
        Phrase("above_{k}", "is greater than {k}", "{x} > {k}"),
        Phrase("below_{k}", "is less than {k}", "{x} < {k}"),
        Phrase("at_least_{k}", "is at least {k}", "{x} >= {k}"),
        Phrase("at_most_{k}", "is at most {k}", "{x} <= {k}"),
        Phrase("divisible_by_{k}", "is divisible by {k}", "{x} % {k} == 0"),
        Phrase("not_{k}", "is not {k}", "{x} != {k}"),
    ),
    "word": (
        Phrase("longer_than_{k}", "has more than {k} letters", "len({x}) > {k}"),
        Phrase("shorter_than_{k}", "has fewer than {k} letters", "len({x}) < {k}"),
        Phrase("starting_with_{c}", "starts with '{c}'", "{x}.startswith('{c}')"),
        Phrase("ending_with_{c}", "ends with '{c}'", "{x}.endswith('{c}')"),
        Phrase("containing_{c}", "contains '{c}'", "'{c}' in {x}"),
    ),
}
CHANGES = {
    "number": (
        Phrase("double", "the double of {x}", "2 * {x}"),
        Phrase("square", "the square of {x}", "{x} * {x}"),
        Phrase("negative", "the negative of {x}", "-{x}"),
        Phrase("absolute", "the absolute value of {x}", "abs({x})"),
        Phrase("plus_{k}", "{x} plus {k}", "{x} + {k}"),
        Phrase("minus_{k}", "{x} minus {k}", "{x} - {k}"),
        Phrase("times_{k}", "{x} times {k}", "{x} * {k}"),
        Phrase("remainder_{k}", "the remainder of {x} divided by {k}", "{x} % {k}"),
    ),
    "word": (
        Phrase("upper", "{x} in upper case", "{x}.upper()"),
        Phrase("reverse", "{x} reversed", "{x}[::-1]"),
        Phrase("first_{k}", "the first {k} letters of {x}", "{x}[:{k}]"),
        Phrase("last_{k}", "the last {k} letters of {x}", "{x}[-{k}:]"),
        Phrase("repeat_{k}", "{x} repeated {k} times", "{x} * {k}"),
        Phrase("without_{c}", "{x} without the letter '{c}'", "{x}.replace('{c}', '')"),
    ),
}
SHAPES = {
    "is": ("True if {x} {is}, and False otherwise", "{is}"),
    "get": ("{to}", "{to}"),
    "count": ("the count of every {x} that {is}", "sum(1 for {x} in {x}s if {is})"),
    "keep": ("a list of every {x} that {is}", "[{x} for {x} in {x}s if {is}]"),
    "all": ("True if every {x} {is}, and False otherwise", "all({is} for {x} in {x}s)"),
    "find": ("the first {x} that {is}, or None", "next(({x} for {x} in {x}s if {is}), None)"),
    "each": ("a list with {to} for every {x}", "[{to} for {x} in {x}s]"),
    "change": ("{to} if {x} {is}, and {x} itself otherwise", "{to} if {is} else {x}"),
    "replace": (
        "the {x}s in which every {x} that {is} is replaced by {to}",
        "[{to} if {is} else {x} for {x} in {x}s]",
    ),
    "any": ("True if at least one {x} {is}, and False otherwise", "any({is} for {x} in {x}s)"),
    "remove": ("the {x}s without every {x} that {is}", "[{x} for {x} in {x}s if not {is}]"),
    "each_kept": ("a list with {to} for every {x} that {is}", "[{to} for {x} in {x}s if {is}]"),
}
WORDS = (
    *("apple", "bread", "cat", "dinosaur", "egg", "fig", "garage", "hat", "igloo", "lemon", "moon"),
    *(
        "night",
        "orange",
        "piano",
        "rabbit",
        "sun",
        "tree",
        "a",
        "of",
        "programs",
        "total",
        "banana",
    ),
)


class Function(NamedTuple):
    """One function: its template, its text, and what it is when run."""

    template: str
    name: str
    stub: str
    body: str
    call: Callable[[Any], Any]
    arguments: Sequence[Any]


def functions(shape: str, rng: random.Random) -> list[Function]:
    """Functions of one shape, shuffled."""
    words, code = SHAPES[shape]
    functions = {}
    for x in ("number", "word"):
        conditions = CONDITIONS[x] if "{is}" in code else NOTHING
        changes = CHANGES[x] if "{to}" in code else NOTHING
        for condition, change, _ in product(conditions, changes, range(DRAWS)):
            letters = rng.sample(LETTERS, 2)
            first, second = (
                phrase.filled(x=x, k=rng.randint(2, 9), c=letter)
                for phrase, letter in zip((condition, change), letters, strict=True)
            )
            argument = f"{x}s" if "{x}s" in code else x
            name = "_".join(filter(None, (shape, second.name, first.name)))
            says = words.format(x=x, **{"is": first.words, "to": second.words})
            result = code.format(x=x, **{"is": first.code, "to": second.code})
            template = f"{shape} {condition.name} {change.name} {x}"
            stub = f'def {name}({argument}):\n    """Return {says}."""\n'
            body = f"def {name}({argument}):\n    return {result}\n"
            names: dict[str, Any] = {}
            exec(body, names)
            pool: list[Any] = list(range(-6, 15))
            if x == "word":
                # Words that begin and end with the function's own letters.
                pool = [*WORDS, *(a + word + b for word in WORDS for a in letters for b in letters)]
            if argument != x:
                pool = [rng.sample(pool, rng.randint(2, 5)) for _ in range(20)]
            functions[stub] = Function(template, name, stub, body, names[name], pool)
    rows = list(functions.values())
    rng.shuffle(rows)
    return rows


def tests(function: Function, others: Sequence[Function], rng: random.Random) -> str | None:
    """Assertions on eight arguments that all ``others`` fail, but for those that do the same.

    None where no such arguments were found.
    """

    def results(other: Function, arguments: Sequence[Any]) -> list[Any]:
        return [other.call(argument) for argument in arguments]

    right = results(function, function.arguments)
    others = [other for other in others if results(other, function.arguments) != right]
    for _ in range(20):
        chosen = rng.sample(list(function.arguments), 8)
        expected = results(function, chosen)
        if all(results(other, chosen) != expected for other in others):
            return "".join(
                f"assert {function.name}({argument!r}) == {result!r}\n"
                for argument, result in zip(chosen, expected, strict=True)
            )
    return None


def tested(shape: str, rng: random.Random) -> list[dict[str, str]]:
    """Functions of one shape with their tests; at most :data:`MOST`."""
    rows = []
    every = functions(shape, rng)
    for function in every[:MOST]:
        kind = function.template.split()[-1]
        same_kind = [each for each in every if each.template.split()[-1] == kind]
        text = tests(function, rng.sample(same_kind, 25), rng)
        if text is not None:
            fields = ("template", "stub", "body")
            rows.append({**{each: getattr(function, each) for each in fields}, "tests": text})
    return rows


def main() -> None:
    """Write both JSONL files beside this one."""
    rng = random.Random(0)
    pools = {shape: tested(shape, rng) for shape in SHAPES}
    unseen = [row for shape in UNSEEN for row in pools.pop(shape)[: HELD_OUT // 6]]
    # The shapes in turn, so that the held-out functions are of every shape alike.
    seen = [row for group in zip_longest(*pools.values()) for row in group if row]
    held_out = {"seen": seen[: HELD_OUT // 2], "unseen": unseen}
    write(
        "python.held_out.jsonl",
        mixed(
            [
                {"id": f"{part}-{n:03}", **{key: row[key] for key in ("template", "stub", "tests")}}
                for part, rows in held_out.items()
                for n, row in enumerate(rows)
            ]
        ),
    )
    others = seen[HELD_OUT // 2 :]
    rng.shuffle(others)
    training = others[:TRAINING]
    assert len(training) == TRAINING, len(training)
    write(
        "python.train.jsonl",
        [
            {
                "instruction": PROMPT.format(stub=row["stub"]),
                "output": f"```python\n{row['body']}```",
            }
            for row in training
        ],
    )


if __name__ == "__main__":
    main()
