"""HumanEval and HumanEval+ on their own canonical solutions: ours, and EvalPlus as it is.

    python benchmarks/humaneval_canonical.py --data HumanEvalPlus.jsonl.gz
    python benchmarks/humaneval_canonical.py --data HumanEvalPlus.jsonl.gz --stock
    python benchmarks/humaneval_canonical.py --data HumanEvalPlus.jsonl.gz --sandbox landlock

A harness that fails a canonical solution fails models too. Ours judges each solution as a raw
completion and as an answer in chat, in the sandbox; ``--stock`` adds ``evalplus.evaluate`` with a
cache of its own. Canonical solutions are the only programs that may run outside of the sandbox.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from dft_eval.benchmark import PROMPT_STYLES, PromptStyle
from dft_eval.generation.run import Completion
from dft_eval.humaneval_plus.adapter import score
from dft_eval.humaneval_plus.data import EvalPlusProblem, read_data
from dft_eval.progress import Progress
from dft_eval.sandbox import SANDBOXES, select


def answer(problem: EvalPlusProblem, style: PromptStyle) -> Completion:
    """The canonical solution in the words of a model."""
    text = problem.canonical_solution
    if style == "chat":
        text = f"{problem.prompt}{text}\n```\n"
    return Completion(
        id=problem.task_id, prompt="", completion=text, finish_reason="stop", n_tokens=1
    )


def ours(problems: Sequence[EvalPlusProblem], style: PromptStyle) -> None:
    """Judge all, print both scores, the failed by name, and the time."""
    began = time.perf_counter()
    with Progress(f"{style}: programs run") as progress:
        pairs = score(
            problems,
            [answer(problem, style) for problem in problems],
            style,
            samples=1,
            plus=True,
            sandboxed=True,
            progress=progress,
        )
    seconds = time.perf_counter() - began
    for name, items in zip(("HumanEval", "HumanEval+"), zip(*pairs, strict=True), strict=True):
        failed = [f"{item.id} ({item.reason})" for item in items if item.score != 1.0]
        print(f"ours, {style}: {name} {len(items) - len(failed)} of {len(items)}", *failed)
    print(f"ours, {style}: {seconds:.0f} s")


def stock(data: Path, problems: Sequence[EvalPlusProblem]) -> None:
    """What ``evalplus.evaluate`` says of the same solutions."""
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples.jsonl"
        rows = (
            {"task_id": problem.task_id, "solution": problem.prompt + problem.canonical_solution}
            for problem in problems
        )
        samples.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        began = time.perf_counter()
        words = [sys.executable, "-m", "evalplus.evaluate", "humaneval", "--samples", str(samples)]
        environment = {
            **os.environ,
            "HOME": folder,
            "XDG_CACHE_HOME": folder,
            "HUMANEVAL_OVERRIDE_PATH": str(data.absolute()),
        }
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"evalplus.evaluate failed:\n{done.stderr[-2000:]}")
        (file,) = samples.parent.glob("samples*eval_results.json")
        results = json.loads(file.read_text(encoding="utf-8"))["eval"]
        for name, key in (("HumanEval", "base_status"), ("HumanEval+", "plus_status")):
            failed = [task for task, (row,) in results.items() if row[key] != "pass"]
            print(f"EvalPlus: {name} {len(results) - len(failed)} of {len(results)}", *failed)
        print(f"EvalPlus: {time.perf_counter() - began:.0f} s")


def main() -> None:
    """Parse and judge."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="HumanEvalPlus.jsonl[.gz]")
    parser.add_argument("--stock", action="store_true", help="evalplus.evaluate as well")
    parser.add_argument("--sandbox", choices=SANDBOXES, default="auto")
    args = parser.parse_args()
    print(f"sandbox: {select(args.sandbox).describe()}")
    problems = read_data(args.data).problems
    for style in PROMPT_STYLES:
        ours(problems, style)
    if args.stock:
        stock(args.data, problems)


if __name__ == "__main__":
    main()
