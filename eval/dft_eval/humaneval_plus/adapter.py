"""HumanEval, HumanEval+ and python-basics, scored as EvalPlus does, with tests in our sandbox.

Prompts, stop texts, sanitising and comparison follow EvalPlus 0.3.1 (``codegen``,
``provider.utility``, ``sanitize``, ``evaluate``); ``judge`` lists the differences in verdicts.
Both benchmarks have the same prompts and share one generation.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

from dft_eval import sandbox
from dft_eval.benchmark import (
    Benchmark,
    Part,
    PromptStyle,
    Request,
    Rows,
    finish,
    is_installed,
    missing_sandbox,
    size_notes,
)
from dft_eval.errors import PrerequisiteError
from dft_eval.generation.run import Completion, Failure, Prompt, samples_of
from dft_eval.generation.samples import combine
from dft_eval.humaneval_plus.data import EvalPlusData, EvalPlusProblem, download, read_data
from dft_eval.humaneval_plus.judge import judge, make_tests
from dft_eval.humaneval_plus.sanitize import sanitize
from dft_eval.progress import Progress
from dft_eval.requirements import MissingRequirement
from dft_eval.results import BenchmarkResult, ItemScore

INSTALL = "uv pip install 'dft-factory[code]'"
DATA_FORMAT = "humaneval"
MAX_NEW_TOKENS = 768
"""EvalPlus' default."""
INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown "
    "code block:"
)
ANSWER_BEGINS = (
    "Below is a Python script with a self-contained function that solves the problem and passes "
    "corresponding tests:\n```python\n"
)
END_TEXTS = (
    *("<|endoftext|>", "<|endofmask|>", "</s>"),
    *("\nif __name__", "\ndef main(", "\nprint("),
)
COMPLETION_STOP = (*END_TEXTS, "\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ")
CHAT_STOP = (*END_TEXTS, "\n```\n")


def missing() -> list[MissingRequirement]:
    """EvalPlus and the sandbox, if they are missing."""
    rows = missing_sandbox()
    if not is_installed("evalplus"):
        rows.append(MissingRequirement("the Python package evalplus (data, sanitiser)", INSTALL))
    return rows


def make_prompt(problem: EvalPlusProblem, style: PromptStyle) -> Prompt:
    """The prompt of EvalPlus' transformers and vLLM backends."""
    text = problem.prompt.strip()
    if style == "completion":
        return Prompt(problem.task_id, f"{text}\n")
    question = f"{INSTRUCTION}\n```\n{text}\n```\n"
    return Prompt(problem.task_id, question, chat=True, answer_begins=ANSWER_BEGINS)


def score_problem(
    problem: EvalPlusProblem,
    rows: Sequence[Completion | Failure],
    style: PromptStyle,
    *,
    plus: bool,
    sandboxed: bool,
) -> list[tuple[ItemScore, ItemScore]]:
    """Scores of one problem's samples under the base tests, and under all tests.

    Plus tests run on samples that pass the base tests. The canonical solution runs once per test
    set.
    """
    tests = cache(partial(make_tests, problem, sandboxed=sandboxed))

    verdicts: list[tuple[ItemScore, ItemScore]] = []
    for row in rows:
        if isinstance(row, Failure):
            failed = ItemScore(id=row.id, score=None, reason=row.reason)
            verdicts.append((failed, failed))
            continue
        code = row.completion.replace("\t", "    ")
        head = f"{problem.prompt.strip()}\n" if style == "completion" else ""
        program = sanitize(f"{head}{code}", problem.entry_point)
        base = whole = judge(program, problem, tests("base"), sandboxed=sandboxed)
        if plus and base[0] == 1.0:
            whole = judge(program, problem, tests("plus"), sandboxed=sandboxed)
        verdicts.append((_item(row, *base), _item(row, *whole)))
    return verdicts


def _item(row: Completion, score: float | None, reason: str) -> ItemScore:
    if score == 0.0 and row.finish_reason == "length":
        reason += " (completion cut at max_new_tokens)"
    return ItemScore(id=row.id, score=score, reason=reason)


def score(
    problems: Sequence[EvalPlusProblem],
    rows: Sequence[Completion | Failure],
    style: PromptStyle,
    *,
    samples: int,
    plus: bool,
    sandboxed: bool,
    workers: int | None = None,
    progress: Callable[[int, int], None],
) -> list[tuple[ItemScore, ItemScore]]:
    """:func:`score_problem` of all problems; at most ``workers`` programs run at once.

    Raises:
        PrerequisiteError: ``sandboxed``, and no sandbox works here.
    """
    if sandboxed:
        sandbox.check()
    score_one = partial(score_problem, style=style, plus=plus, sandboxed=sandboxed)
    groups = [rows[i * samples : (i + 1) * samples] for i in range(len(problems))]
    jobs = list(zip(problems, groups, strict=True))
    scored = sandbox.judge_each(lambda job: score_one(*job), jobs, workers, progress)
    return [pair for pairs in scored for pair in pairs]


def load(benchmark: Benchmark, request: Request) -> EvalPlusData:
    """The problems of ``--data``, or of EvalPlus' release."""
    return read_data(request.data or download())


def parts(benchmark: Benchmark, request: Request, data: EvalPlusData) -> list[Part]:
    """The prompts, which ``humaneval`` and ``humaneval+`` share."""
    style = request.prompt_style or benchmark.default_style
    decoding = replace(request.decoding, stop=CHAT_STOP if style == "chat" else COMPLETION_STOP)
    prompts = [make_prompt(problem, style) for problem in data.problems[: request.limit]]
    return [Part(f"{benchmark.name}.{style}", samples_of(prompts, decoding), decoding)]


def scorer(
    benchmark: Benchmark, request: Request, data: EvalPlusData
) -> Callable[[Rows], BenchmarkResult]:
    """Judges ``humaneval`` or ``humaneval+``.

    Raises:
        PrerequisiteError: EvalPlus (its sanitiser) or the sandbox is missing.
    """
    if not is_installed("evalplus"):
        raise PrerequisiteError(f"The Python package evalplus is missing: {INSTALL}.")
    if request.sandboxed:
        sandbox.check()
    return partial(_result, benchmark, request, data)


def _result(
    benchmark: Benchmark, request: Request, data: EvalPlusData, rows: Rows
) -> BenchmarkResult:
    plus = benchmark.name == "humaneval+"
    problems = data.problems[: request.limit]
    (part,) = parts(benchmark, request, data)
    style, decoding = request.prompt_style or benchmark.default_style, part.decoding
    with Progress(f"{request.label} {part.stem}: programs run") as progress:
        verdicts = score(
            problems,
            rows[0],
            style,
            samples=decoding.samples,
            plus=plus,
            sandboxed=request.sandboxed,
            workers=request.judge_workers,
            progress=progress,
        )
    ids = [problem.task_id for problem in problems]
    items, breakdown = combine(ids, [pair[plus] for pair in verdicts], decoding.samples)
    if plus:
        base, _ = combine(ids, [pair[0] for pair in verdicts], decoding.samples)
        scores = [item.score for item in base if item.score is not None]
        breakdown["base tests"] = sum(scores) / len(scores) if scores else None
    return finish(
        benchmark,
        request,
        items,
        metric="pass@1",
        style=style,
        harness=f"evalplus {importlib.metadata.version('evalplus')}",
        decoding=decoding.record(),
        breakdown=breakdown,
        notes=[
            *size_notes(len(items), len(data.problems), benchmark.published),
            data.note(),
            "outputs compared outside the sandbox; HumanEval/32 and time limits unlike EvalPlus",
            f"programs ran in {sandbox.check()}"
            if request.sandboxed
            else "programs ran UNSANDBOXED",
        ],
    )


HUMANEVAL_PLUS = Benchmark(
    name="humaneval+",
    summary="HumanEval+: HumanEval with 80 times the tests, by EvalPlus (arXiv 2305.01210)",
    published=164,
    default_style="completion",
    missing=missing,
    runs_programs=True,
    data=EvalPlusData,
    load=load,
    parts=parts,
    scorer=scorer,
    samples=True,
    data_format=DATA_FORMAT,
    max_new_tokens=MAX_NEW_TOKENS,
)
