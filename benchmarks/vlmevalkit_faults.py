"""The known faults of VLMEvalKit's scoring, one by one: what it says, and what ours says.

    python benchmarks/vlmevalkit_faults.py                     # a Markdown table on stdout

Both get the same tables (drawn pictures, VLMEvalKit's columns) and the same answers; VLMEvalKit
0.0.20 runs unchanged in a process of its own. The judge is a server on loopback that reads
VLMEvalKit's prompts and answers them rightly, or fails where that is the point.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from dft_eval.benchmark import Benchmark, JudgeChoice
from dft_eval.errors import EvaluationError
from dft_eval.generation.resume import generate_each
from dft_eval.generation.run import Decoding, Prompt
from dft_eval.results import BenchmarkResult
from dft_eval.vlm.mathverse import MATHVERSE
from dft_eval.vlm.mathvision import MATHVISION
from dft_eval.vlm.wemath import WEMATH
from tests.support.judge_server import Answer, JudgeServer, good_judge, judge_server
from tests.support.stock_vlmevalkit import run_stock
from tests.support.vlm_tables import (
    VERSIONS,
    mathverse_row,
    mathvision_row,
    wemath_problem,
    write_table,
)
from tests.support.written import Written, run

NAMES = {"mathvision": "MathVision", "mathverse": "MathVerse_MINI", "wemath": "WeMath"}
RULES = JudgeChoice("rules")
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Fault:
    """One fault: ``stock`` jobs (the last one's result counts) and ours, each said in words."""

    name: str
    jobs: list[dict[str, Any]]
    stock: Callable[[Any], str]
    ours: Callable[[], str]
    right: str


class Bench:
    """Makes jobs for VLMEvalKit and runs of ours from the same rows and answers."""

    def __init__(self, folder: Path, judge: JudgeServer, failing: JudgeServer) -> None:
        self.folder, self.judge, self.failing = folder, judge, failing
        self.count = 0

    def job(
        self,
        benchmark: Benchmark,
        rows: Rows,
        answers: list[str],
        *,
        format: str = "tsv",
        judge: JudgeServer | None = None,
        keep: int | None = None,
        place: str | None = None,
    ) -> dict[str, Any]:
        """An evaluation by VLMEvalKit; ``keep``: predictions for so many rows alone."""
        self.count += 1
        name = NAMES[benchmark.name]
        folder = self.folder / (place or f"stock{self.count}")
        table = write_table(folder / f"{name}.tsv", rows)
        by_id = {str(row["index"]): text for row, text in zip(rows, answers, strict=True)}
        served = judge or self.judge
        asked = {
            "model": "judge-model",
            "api_base": f"{served.url}/chat/completions",
            "key": "unused",
        }
        return {
            "job": "evaluate",
            "dataset": name,
            "table": str(table),
            "predictions": dict(list(by_id.items())[:keep]),
            "folder": str(folder / "work"),
            "format": format,
            "judge": {} if benchmark is WEMATH else asked,
        }

    def ours(
        self,
        benchmark: Benchmark,
        rows: Rows,
        answers: list[str],
        judge: JudgeChoice | None = RULES,
        **changes: Any,
    ) -> BenchmarkResult:
        """The same, scored by ours."""
        self.count += 1
        with contextlib.redirect_stderr(io.StringIO()):
            return run(
                benchmark,
                self.folder / f"ours{self.count}",
                rows,
                answers,
                judge=None if benchmark is WEMATH else judge,
                **changes,
            )


def describe(result: BenchmarkResult) -> str:
    """A score in words, with what it covers."""
    score = "no score" if result.score is None else f"{100 * result.score:.1f} %"
    partial = next((f", {note}" for note in result.notes if note.startswith("partial")), "")
    return f"{score}, {result.n_scored} of {result.n_total} items scored{partial}"


def overall(rows: Any) -> str:
    """VLMEvalKit's own score of a MathVision or MathVerse table, or its error."""
    if isinstance(rows, dict):
        return str(rows["error"])[:90]
    if "Subject" in rows[0]:
        row = next(row for row in rows if row["Subject"] == "Overall")
        return f"{row['acc']:.1f} %, {row['tot']} items"
    return f"{sum(row['Overall'] for row in rows) / len(rows):.1f} %"


def strict(rows: Any) -> str:
    """VLMEvalKit's strict score of WeMath, and the share of right steps."""
    if isinstance(rows, dict):
        return str(rows["error"])[:90]
    return f"{rows[0]['Score (Strict)']}, steps {rows[0]['One-step(S1)']}"


def wemath_set(problems: int, rows: int | None = None) -> Rows:
    """Problems of WeMath's sizes, 360 of two steps before 165 of three; B is always right."""
    sizes = [3 if id < problems * 360 // 525 else 4 for id in range(problems)]
    made = [row for id, n in enumerate(sizes) for row in wemath_problem(10 * id, id, "B" * n)]
    return made[:rows]


def cases(bench: Bench) -> list[Fault]:
    """All faults, in the order of the table."""
    faults: list[Fault] = []

    def add(name: str, right: str, stock: Callable[[Any], str], *jobs: dict[str, Any]) -> Any:
        def register(ours: Callable[[], str]) -> None:
            faults.append(Fault(name, list(jobs), stock, ours, right))

        return register

    whole = wemath_set(525)
    # One problem is solved in a way that VLMEvalKit reads: without any it divides by zero.
    solved = ["<Answer>: <<B>>"] * 3
    wrong = solved + ["<Answer>: <<A>>"] * (len(whole) - 3)

    @add(
        "WeMath: 42 of 1,740 rows, all but one of 14 problems wrong",
        "7.1 %",
        strict,
        bench.job(WEMATH, whole, wrong, keep=42),
    )
    def _() -> str:
        return describe(bench.ours(WEMATH, whole, wrong, limit=42))

    some = wemath_set(40)
    unsolved = [
        "<Answer>: <<A>>" if row["key"].endswith("multi") else "<Answer>: <<B>>" for row in some
    ]

    @add("WeMath: no whole problem solved", "50 %", strict, bench.job(WEMATH, some, unsolved))
    def _() -> str:
        return describe(bench.ours(WEMATH, some, unsolved))

    for shown, text, right in (
        ("`**Answer:** B`, right", "**Answer:** B", "100 %"),
        ("`\\boxed{B}`, right", "\\boxed{B}", "100 %"),
        ("`<answer>B</answer>`, right", "<answer>B</answer>", "100 %"),
        ("`Based on ...` where B is right", "Based on the picture nothing fits", "0.2 %"),
    ):
        answers = solved + [text] * (len(whole) - 3)

        @add(f"WeMath: {shown}", right, strict, bench.job(WEMATH, whole, answers))
        def _(answers: list[str] = answers) -> str:
            return describe(bench.ours(WEMATH, whole, answers))

    letters = [mathvision_row(i, "ABCDE"[i % 5], list("ABCDE")) for i in range(50)]
    numbers = [mathvision_row(i, str(i + 2)) for i in range(20)]

    @add(
        "MathVision: empty answers to lettered options",
        "0 %",
        overall,
        bench.job(MATHVISION, letters, [""] * 50),
    )
    def _() -> str:
        return describe(bench.ours(MATHVISION, letters, [""] * 50))

    written = {name: bench.folder / f"written-by-{name}" for name in ("stock", "ours")}

    def attack(name: str) -> list[str]:
        return [f"open('{written[name]}','w')"] * 20

    def happened(name: str, score: str) -> str:
        return f"{score}; {'the file was written' if written[name].exists() else 'nothing ran'}"

    @add(
        "MathVision: `open(...,'w')` as an answer",
        "0 %",
        lambda rows: happened("stock", overall(rows)),
        bench.job(MATHVISION, numbers, attack("stock")),
    )
    def _() -> str:
        return happened("ours", describe(bench.ours(MATHVISION, numbers, attack("ours"))))

    long = ["I go on. " * 4450 + f"\nAnswer: {i + 2}" for i in range(20)]

    @add(
        "MathVision: 40,000 characters, the right answer last",
        "100 %",
        overall,
        bench.job(MATHVISION, numbers, long, format="xlsx"),
    )
    def _() -> str:
        return describe(bench.ours(MATHVISION, numbers, long))

    sums = [f"=1+{i + 1}" for i in range(20)]

    @add(
        "MathVision: `=1+1`, right",
        "100 %",
        overall,
        bench.job(MATHVISION, numbers, sums, format="xlsx"),
    )
    def _() -> str:
        return describe(bench.ours(MATHVISION, numbers, sums))

    plain = [str(i + 2) for i in range(20)]
    half = plain[:10] + ["0"] * 10

    @add(
        "MathVision: scored at 5 of 20 rows, then completed (10 right)",
        "50 %, 20 items",
        overall,
        bench.job(MATHVISION, numbers, half, keep=5, place="stale"),
        bench.job(MATHVISION, numbers, half, place="stale"),
    )
    def _() -> str:
        bench.ours(MATHVISION, numbers, half, limit=5)
        return describe(bench.ours(MATHVISION, numbers, half))

    verses = [
        mathverse_row(5 * p + i, version, str(p + 2))
        for p in range(6)
        for i, version in enumerate(VERSIONS)
    ]
    right = [f"In the {version} it is {p + 2}" for p in range(6) for version in VERSIONS]

    @add(
        "MathVerse: the judge goes down after 16 requests, all answers right",
        "what was judged: 100 %",
        overall,
        bench.job(MATHVERSE, verses, right, judge=bench.failing),
    )
    def _() -> str:
        with judge_server(down_after(16)) as server:
            choice = JudgeChoice("openai", "judge-model", server.url)
            return describe(bench.ours(MATHVERSE, verses, right, judge=choice)) + ", exit status 1"

    table = write_table(bench.folder / "two" / "MathVision.tsv", letters[:30])
    two = {
        "job": "generate",
        "dataset": "MathVision",
        "table": str(table),
        "folder": str(bench.folder / "two" / "work"),
        "dies_after": 25,
    }

    @add(
        "One checkpoint killed at 25 of 30, then another in the same directory",
        "0 answers of the first",
        lambda answers: f"{answers.count('A')} answers of the first, silently",
        two,
    )
    def _() -> str:
        prompts = [Prompt(str(i), "?", chat=True) for i in range(30)]
        cache = bench.folder / "same" / "x.completions.jsonl"

        class Killed(Exception):  # noqa: N818 - ends the first run
            pass

        def kill(done: int, total: int) -> None:
            if done:
                raise Killed

        def go(letter: str, progress: Callable[[int, int], None]) -> None:
            answers: dict[str, str | None] = dict.fromkeys(map(str, range(30)), letter)
            backend = Written(answers, identity=letter)
            generate_each(prompts, Decoding(), cache, backend=backend, progress=progress)

        with contextlib.suppress(Killed):
            go("A", kill)
        try:
            go("B", lambda done, total: None)
        except EvaluationError as error:
            return f"refused: '{str(error).rpartition('/')[2][:70]}...'"
        return "not refused"

    return faults


def down_after(requests: int) -> Callable[[str, int], Answer]:
    """A judge that answers so many requests beside greetings, then none."""
    served = [0]

    def behave(prompt: str, number: int) -> Answer:
        if prompt == "hello":
            return Answer("hello")
        served[0] += 1
        return good_judge(prompt, number) if served[0] <= requests else Answer(status=500, raw="{}")

    return behave


def main() -> None:
    """Run everything and print the table."""
    with (
        tempfile.TemporaryDirectory() as folder,
        judge_server() as judge,
        judge_server(down_after(16)) as failing,
    ):
        bench = Bench(Path(folder), judge, failing)
        faults = cases(bench)
        jobs = [job for fault in faults for job in fault.jobs]
        results = iter(run_stock(jobs, Path(folder) / "stock"))
        print("| what | right | VLMEvalKit 0.0.20 | ours |\n|---|---|---|---|")
        for fault in faults:
            last = [next(results) for _ in fault.jobs][-1]
            print(f"| {fault.name} | {fault.right} | {fault.stock(last)} | {fault.ours()} |")


if __name__ == "__main__":
    main()
