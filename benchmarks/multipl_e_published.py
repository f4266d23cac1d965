"""Rescores the MultiPL-E generations that Qwen published, and compares verdict by verdict.

    python benchmarks/multipl_e_published.py --data FOLDER --published FOLDER [--languages js cs]

``--data``: ``humaneval-<language>.jsonl[.gz]``. ``--published``: ``pred_<language>_output.jsonl``
and ``humaneval-<language>-details.json``, from github.com/QwenLM/Qwen2.5-Coder,
``qwencoder-eval/base/outptus/qwen2.5-coder/7b-base/multipl-e``. Prints how many pass, published and
here, and every verdict that differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from dft_eval.languages import HARNESSES, LANGUAGES, Harness, judge, unusable
from dft_eval.languages.programs import Problem, from_completion
from dft_eval.multipl_e.data import read_folder
from dft_eval.sandbox import judge_each

Verdict = tuple[float | None, str]


def published(folder: Path, code: str) -> dict[str, tuple[str, bool]]:
    """Completion and verdict by problem name."""
    lines = (folder / f"pred_{code}_output.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line]
    texts = {row["task_id"]: row["wholecode"].removeprefix(row["prompt"]) for row in rows}
    details = json.loads((folder / f"humaneval-{code}-details.json").read_text(encoding="utf-8"))
    return {name: (texts[name], runs[0][1]["passed"]) for name, runs in details.items()}


def rescore(problems: dict[str, Problem], texts: dict[str, str], harness: Harness) -> list[Verdict]:
    """Our verdict of each completion, in order."""

    def verdict(name: str) -> Verdict:
        problem = problems[name]
        return judge(problem.language, from_completion(problem, texts[name], harness), harness)

    return judge_each(verdict, list(texts), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--published", type=Path, required=True)
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=None)
    parser.add_argument("--harness", choices=HARNESSES, default="official")
    args = parser.parse_args()
    data = read_folder(args.data)
    for code in args.languages or [code for code in LANGUAGES if code != "python"]:
        if reason := unusable(LANGUAGES[code]):
            print(f"{code}: not run: {reason}")
            continue
        theirs = published(args.published, code)
        problems = {problem.id.partition("/")[2]: problem for problem in data[code]}
        began = time.perf_counter()
        texts = {name: text for name, (text, _) in theirs.items()}
        ours = rescore(problems, texts, args.harness)
        seconds = time.perf_counter() - began
        passed = sum(right for _, right in theirs.values())
        print(
            f"{code}, {args.harness}: published {passed}, here {sum(s == 1.0 for s, _ in ours)} "
            f"of {len(ours)}, unscored {sum(s is None for s, _ in ours)}, {seconds:.0f} s",
            flush=True,
        )
        for (name, (_, right)), (score, reason) in zip(theirs.items(), ours, strict=True):
            if score != float(right):
                print(f"  {name}: published {right}, here {score}: {reason}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
