"""Published verdicts on mathematics, and the golds themselves, under both harnesses.

    python benchmarks/mathematics_verdicts.py DATA [--harness HARNESS] [--only published|golds]

DATA is the folder of ``gsm8k_test.jsonl``, ``generations_qwen14b.jsonl`` and the like. For each
harness: how many published verdicts it agrees with, every disagreement, and what it gives for the
golds: as printed, as a model writes them (``4.5 \\times 10^{33}``, ``10{,}000``), and for lists the
parts in reverse and the first part alone (which is wrong).
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_eval.mathematics.verdicts import HARNESSES, Harness, Question, judge_all

SETS = ("math500", "minerva", "olympiadbench", "aime24", "amc23", "gsm8k_test")


@dataclass(frozen=True)
class Case:
    """A completion with the verdict that it should have."""

    kind: str
    question: Question
    correct: bool


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def published(data: Path, harness: Harness) -> Iterator[Case]:
    r"""6,793 generations with their published verdicts, against the golds that these used.

    Minerva's are the printed ones: published beside the verdicts is what the pipeline made of them,
    and it does more to its own text (of ``\lambda_{\text {red}} / \sqrt{2}``, without the space,
    ``\lambda_{`` is left, which equals a wrong answer).
    """
    printed = {row["problem"]: row["answer"] for row in rows(data / "minerva.jsonl")}
    for row in rows(data / "generations_qwen14b.jsonl"):
        minerva = row["benchmark"].startswith("minerva")
        gold = printed[row["problem"]] if minerva else row["answer"]
        question = Question(harness, row["completion"], gold, minerva)
        yield Case(f"Qwen2.5-14B-Instruct {row['benchmark']}", question, row["correct"])
    for row in rows(data / "generations_gsm8k_openai.jsonl"):
        for model in row["models"].values():
            question = Question(harness, model["completion"], row["answer"])
            yield Case("OpenAI gsm8k", question, model["correct"])


def golds(data: Path, harness: Harness, sets: Sequence[str] = SETS) -> Iterator[Case]:
    """Golds in boxes: as printed, as a model writes them, and lists in another order."""
    for name in sets:
        for row in rows(data / f"{name}.jsonl"):
            gold, minerva = row["answer"], name == "minerva"
            spellings = {"as printed": gold}
            if (written := as_written(gold)) != gold:
                spellings["as written"] = written
            parts = split(gold) if row.get("is_multiple_answer") else []
            if len(set(parts)) > 1:
                spellings["reversed"] = ", ".join(reversed(parts))
                spellings["first part alone"] = parts[0]
            for kind, text in spellings.items():
                completion = f"The answer is $\\boxed{{{text}}}$."
                question = Question(harness, completion, gold, minerva)
                yield Case(f"{name}, {kind}", question, kind != "first part alone")


def as_written(gold: str) -> str:
    """A number as models write it."""
    if match := re.fullmatch(r"(-?[\d.]+)e(-?\d+)", gold):
        return f"{match[1]} \\times 10^{{{match[2]}}}"
    if re.fullmatch(r"-?\d{4,}", gold):
        return f"{int(gold):,}".replace(",", "{,}")
    return gold


def split(gold: str) -> list[str]:
    """The parts of a list whose parts may be tuples."""
    if "where" in gold:
        return [gold]
    parts, depth, begin = [], 0, 0
    text = gold.replace("$", "")
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[begin:place].strip())
            begin = place + 1
    return [*parts, text[begin:].strip()]


def report(harness: Harness, cases: Sequence[Case], show: int) -> None:
    """Print how many agree, by kind, and the disagreements."""
    began, before = time.monotonic(), _processor_seconds()
    verdicts = judge_all([case.question for case in cases])
    seconds, busy = time.monotonic() - began, _processor_seconds() - before
    agree: Counter[str] = Counter()
    for case, verdict in zip(cases, verdicts, strict=True):
        agree[case.kind] += verdict.correct == case.correct
        if verdict.correct != case.correct and show > 0:
            show -= 1
            outcome = verdict.problem or f"takes {str(verdict.answer)[:100]!r}"
            print(
                f"  {case.kind}: {harness} says {verdict.correct}, {outcome}, right is "
                f"{case.question.gold[:100]!r}"
            )
    for kind, count in Counter(case.kind for case in cases).items():
        print(f"{harness}: {kind}: {agree[kind]} of {count}")
    print(
        f"{harness}: {sum(agree.values())} of {len(cases)} in {seconds:.0f} s, {busy:.0f} s of "
        f"processor time, {1000 * busy / len(cases):.1f} s a thousand"
    )


def _processor_seconds() -> float:
    """Of the workers that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--harness", choices=HARNESSES, action="append")
    parser.add_argument("--only", choices=("published", "golds"))
    parser.add_argument("--show", type=int, default=1000, help="disagreements to print")
    arguments = parser.parse_args()
    for harness in arguments.harness or HARNESSES:
        for name, cases in (("published", published), ("golds", golds)):
            if arguments.only in (None, name):
                report(harness, list(cases(arguments.data, harness)), arguments.show)


if __name__ == "__main__":
    main()
