"""Every MultiPL-E problem with an empty completion and with a syntax error: all must fail.

    python benchmarks/multipl_e_matrix.py --data FOLDER [--languages js sh] [--harness qwen]

FOLDER holds ``humaneval-<language>.jsonl[.gz]``. Prints one line a language with the time it took;
exit status 1 if a program passed or could not be judged. Not part of the tests, for it takes long.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from dft_eval.languages import HARNESSES, LANGUAGES, Harness, judge, unusable
from dft_eval.languages.programs import Problem, from_completion
from dft_eval.multipl_e.data import read_folder
from dft_eval.sandbox import judge_each

COMPLETIONS = {"empty": "", "syntax error": "\n    )]} this is no program ((("}


def run(problems: list[Problem], text: str, harness: Harness) -> tuple[list[str], float]:
    """What is wrong (id and reason of each program that did not fail), and the seconds taken."""

    def verdict(problem: Problem) -> tuple[str, float | None, str]:
        program = from_completion(problem, text, harness)
        return problem.id, *judge(problem.language, program, harness)

    began = time.perf_counter()
    rows = judge_each(verdict, problems, None)
    seconds = time.perf_counter() - began
    return [f"{id}: score {score}: {reason}" for id, score, reason in rows if score != 0.0], seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=list(LANGUAGES))
    parser.add_argument("--harness", choices=HARNESSES, default="official")
    arguments = parser.parse_args()
    data = read_folder(arguments.data)
    failures = 0
    for code in arguments.languages:
        reason = unusable(LANGUAGES[code])
        if reason is not None or code not in data:
            print(f"{code}: not run: {reason or 'no data'}")
            failures += 1
            continue
        for name, text in COMPLETIONS.items():
            wrong, seconds = run(data[code], text, arguments.harness)
            count = len(data[code])
            print(
                f"{code}, {name}: {count - len(wrong)} of {count} fail, {seconds:.1f} s", flush=True
            )
            print("".join(f"  {line}\n" for line in wrong), end="")
            failures += len(wrong)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
