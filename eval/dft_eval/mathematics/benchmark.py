r"""Mathematics with a short answer: the paper's five benchmarks and GSM8K.

An item is a problem, its score the mean over its samples, so that standard errors are clustered by
problem. Two harnesses judge every completion; ``--harness`` says which one the score is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version

from dft_eval.benchmark import (
    Benchmark,
    Part,
    PromptStyle,
    Request,
    Rows,
    finish,
    is_installed,
    size_notes,
)
from dft_eval.errors import PrerequisiteError
from dft_eval.generation.run import Completion, Failure, Prompt, samples_of
from dft_eval.mathematics.data import Problem, ProblemSet, from_repository, read_data
from dft_eval.mathematics.prompts import family_of, raw_prompt, user_turn
from dft_eval.mathematics.scoring import Row, breakdown, score_problems
from dft_eval.mathematics.verdicts import (
    HARNESSES,
    TOO_LARGE,
    TOO_SLOW,
    Harness,
    Question,
    judge_all,
)
from dft_eval.progress import Progress
from dft_eval.requirements import MissingRequirement
from dft_eval.results import BenchmarkResult, summarise

MAX_NEW_TOKENS = 4096
KEEP_UNITS = frozenset({"minerva"})
"""Benchmarks in whose answers the ``qwen`` rules take no letter for a unit."""
INSTALL = "uv pip install 'dft-factory[eval]'"


def _missing() -> list[MissingRequirement]:
    if is_installed("math-verify"):
        return []
    return [MissingRequirement("math-verify", INSTALL)]


def _harness(request: Request) -> Harness:
    return next((name for name in HARNESSES if name == request.harness), HARNESSES[0])


def _load(benchmark: Benchmark, request: Request) -> ProblemSet:
    return read_data(request.data) if request.data else from_repository(benchmark.name)


def make_prompt(problem: Problem, style: PromptStyle, request: Request) -> Prompt:
    """The prompt of one problem."""
    if style == "chat":
        return Prompt(problem.id, user_turn(problem.problem), chat=True)
    return Prompt(problem.id, raw_prompt(problem.problem, request))


def _parts(benchmark: Benchmark, request: Request, data: ProblemSet) -> list[Part]:
    """One prompt a problem and sample."""
    style = request.prompt_style or benchmark.default_style
    decoding, family = request.decoding, family_of(request)
    if style == "completion":
        decoding = replace(decoding, stop=family.stop if family else ())
    elif decoding.system_prompt is None and family is not None and family.system is not None:
        decoding = replace(decoding, system_prompt=family.system)
    prompts = [make_prompt(problem, style, request) for problem in data.problems[: request.limit]]
    return [Part(f"{benchmark.name}.{style}", samples_of(prompts, decoding), decoding)]


def _scorer(
    benchmark: Benchmark, request: Request, data: ProblemSet
) -> Callable[[Rows], BenchmarkResult]:
    if missing := _missing():
        raise PrerequisiteError(f"{missing[0].name} is not installed: {missing[0].fix}")
    return partial(_score, benchmark, request, data)


def _score(benchmark: Benchmark, request: Request, data: ProblemSet, rows: Rows) -> BenchmarkResult:
    (part,) = _parts(benchmark, request, data)
    style = request.prompt_style or benchmark.default_style
    problems = data.problems[: request.limit]
    samples, chosen = part.decoding.samples, _harness(request)
    metric = "accuracy" if part.decoding.temperature == 0 else f"avg@{samples}"
    judged = _judged(benchmark, request, [problem.answer for problem in problems], rows[0])
    items, passes = score_problems(problems, judged[chosen], samples)
    notes = [
        *size_notes(len(problems), len(data.problems), benchmark.published),
        data.source,
        *_bound_notes(judged[chosen]),
    ]
    parts = {**passes, **breakdown(judged[chosen], samples)}
    own = summarise(items)
    for other in (name for name in HARNESSES if name != chosen):
        score = summarise(score_problems(problems, judged[other], samples)[0])["score"]
        parts[f"{metric} of {other}"] = score
        if None not in (score, own["score"], own["stderr"]):
            gap = abs(score - own["score"])
            if gap > own["stderr"]:
                notes.append(
                    f"the harnesses differ by more than a standard error: {chosen} "
                    f"{own['score']:.2%}, {other} {score:.2%}, standard error {own['stderr']:.2%}"
                )
    return finish(
        benchmark,
        request,
        items,
        metric=metric,
        style=style,
        harness=_harness_name(chosen),
        decoding=part.decoding.record(),
        notes=notes,
        breakdown=parts,
        cluster="problem" if samples > 1 else None,
    )


def _judged(
    benchmark: Benchmark,
    request: Request,
    answers: Sequence[str],
    rows: Sequence[Completion | Failure],
) -> dict[Harness, list[Row]]:
    """Every completion with its verdict under each harness; a failure has none."""
    samples = len(rows) // max(1, len(answers))
    golds = [answer for answer in answers for _ in range(samples)]
    keep_units = benchmark.name in KEEP_UNITS
    questions = [
        Question(harness, row.completion, gold, keep_units)
        for harness in HARNESSES
        for row, gold in zip(rows, golds, strict=True)
        if isinstance(row, Completion)
    ]
    with Progress(f"{request.label} {benchmark.name}: answers compared") as progress:
        verdicts = iter(judge_all(questions, workers=request.judge_workers, progress=progress))
    return {
        harness: [(row, next(verdicts) if isinstance(row, Completion) else None) for row in rows]
        for harness in HARNESSES
    }


def _bound_notes(rows: Sequence[Row]) -> list[str]:
    """How many answers are wrong for want of time or memory."""
    counts = {
        problem: sum(
            verdict is not None and verdict.problem.startswith(problem) for _, verdict in rows
        )
        for problem in (TOO_SLOW, TOO_LARGE)
    }
    return [
        f"{count} answers count as wrong: {problem}" for problem, count in counts.items() if count
    ]


def _harness_name(harness: Harness) -> str:
    if harness == "math-verify":
        return (
            f"math-verify {version('math-verify')}, last box (dft-factory {version('dft-factory')})"
        )
    return f"qwen: rules of Qwen2.5-Math's pipeline (dft-factory {version('dft-factory')})"


def _benchmark(name: str, published: int, summary: str) -> Benchmark:
    return Benchmark(
        name=name,
        summary=summary,
        published=published,
        default_style="chat",
        missing=_missing,
        data=ProblemSet,
        load=_load,
        parts=_parts,
        scorer=_scorer,
        max_new_tokens=MAX_NEW_TOKENS,
        samples=True,
        harnesses=HARNESSES,
    )


MATHEMATICS = tuple(
    _benchmark(*row)
    for row in (
        ("math500", 500, "MATH-500: 500 problems of MATH (arXiv 2305.20050)"),
        ("minerva", 272, "Minerva Math: 272 problems of MIT OpenCourseWare (arXiv 2206.14858)"),
        ("olympiadbench", 675, "OlympiadBench: 675 open problems in English (arXiv 2402.14008)"),
        ("aime24", 30, "AIME 2024, I and II: 30 problems"),
        ("amc23", 40, "AMC 12 of 2023: 40 problems"),
        ("gsm8k", 1319, "GSM8K: 1,319 grade-school problems (arXiv 2110.14168)"),
    )
)
