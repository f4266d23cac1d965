"""Writes the word problems of the study: `python configs/study/make_arithmetic.py`.

`word_problems.txt` has one template a line: operation, question, answer. Training uses the first
two thirds of them; half of the held-out problems are of these ("seen", with other numbers), half of
the others ("unseen"). The same training problems are answered in two styles: `arithmetic`, a
sentence with the calculation in it, as the base model writes, and `notation`, ``(+ 7 5) = 12``,
which it never writes; `arithmetic_noisy` has wrong results in three sentences of ten.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

from common import HELD_OUT, HERE, TRAINING, mixed, write

PROMPT = "{question}\nAnswer with the calculation in one short sentence."
"""Also in `arithmetic.yaml`; a test compares them."""
NAMES = (
    *("Alma", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ida", "Jack"),
    *("Kim", "Leo", "Maria", "Nina", "Oscar", "Paula", "Quinn", "Rosa", "Sam", "Tina"),
)
THINGS = (
    *("apples", "marbles", "stickers", "books", "coins", "cards", "pencils", "shells"),
    *("cookies", "balloons", "stamps", "buttons", "flowers", "stones", "toys", "beads"),
)
RANGES = {"+": ((2, 12), (1, 7)), "-": ((5, 12), (1, 4)), "*": ((2, 5), (2, 10))}
"""Of both numbers, by operation."""
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


class Template(NamedTuple):
    """One line of `word_problems.txt`, and its number there."""

    name: str
    operation: str
    question: str
    answer: str


def templates() -> list[Template]:
    """All templates, those of training first."""
    lines = (HERE / "word_problems.txt").read_text(encoding="utf-8").splitlines()
    return [Template(f"{n:02}", *line.split(" | ")) for n, line in enumerate(lines)]


def problem(template: Template, rng: random.Random) -> dict[str, str]:
    """One problem with its answers in both styles."""
    sign = template.operation
    a, b = (rng.randint(*ends) for ends in RANGES[sign])
    result = OPERATIONS[sign](a, b)
    who = dict(zip("NM", rng.sample(NAMES, 2), strict=True))
    words = {"T": rng.choice(THINGS), "a": a, "b": b, **who}
    return {
        "template": template.name,
        "numbers": f"{a} {b}",
        "question": template.question.format(**words),
        "arithmetic": template.answer.format(r=f"{a} {sign} {b} = {result}", **words),
        "notation": f"({sign} {a} {b}) = {result}",
        "answer": str(result),
    }


def problems(
    count: int, chosen: Sequence[Template], rng: random.Random, excluded: set[tuple[str, str]]
) -> list[dict[str, str]]:
    """``count`` problems of the templates in turn, no two with the same words or in ``excluded``.

    ``excluded`` has templates with their numbers.
    """
    rows: dict[str, dict[str, str]] = {}
    for template in cycle(chosen):
        if len(rows) == count:
            break
        row = problem(template, rng)
        if (row["template"], row["numbers"]) not in excluded:
            rows.setdefault(row["question"], row)
    shuffled = list(rows.values())
    rng.shuffle(shuffled)
    return shuffled


def main() -> None:
    """Write the four JSONL files beside this one."""
    rng = random.Random(0)
    every = templates()
    parts = {"seen": every[: len(every) * 2 // 3], "unseen": every[len(every) * 2 // 3 :]}
    held_out = [
        {"id": f"{part}-{n:03}", **row}
        for part, chosen in parts.items()
        for n, row in enumerate(problems(HELD_OUT // 2, chosen, rng, set()))
    ]
    excluded = {(row["template"], row["numbers"]) for row in held_out}
    training = problems(TRAINING, parts["seen"], rng, excluded)
    fields = ("id", "template", "question", "answer")
    write(
        "arithmetic.held_out.jsonl",
        mixed([{each: row[each] for each in fields} for row in held_out]),
    )
    styles = {style: [row[style] for row in training] for style in ("arithmetic", "notation")}
    styles["arithmetic_noisy"] = noisy(training, rng)
    for style, answers in styles.items():
        rows = [
            {"instruction": PROMPT.format(question=row["question"]), "output": answer}
            for row, answer in zip(training, answers, strict=True)
        ]
        write(f"{style}.train.jsonl", rows)


def noisy(training: Sequence[dict[str, str]], rng: random.Random) -> list[str]:
    """The sentences, three of ten with a wrong result (right plus 1 to 9)."""
    answers = []
    for number, row in enumerate(training):
        text, right = row["arithmetic"], int(row["answer"])
        if number % 10 < 3:
            text = text.replace(f"= {right}", f"= {right + rng.randint(1, 9)}")
        answers.append(text)
    return answers


if __name__ == "__main__":
    main()
