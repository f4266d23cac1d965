"""A task of lm-eval as a benchmark, ``lm-eval:TASK`` or ``lm-eval:TASK@METRIC``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from dft_eval.benchmark import Benchmark, Request, Rows, Subject, file_stem, finish, is_installed
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.harness_process import as_printed, refuse_options
from dft_eval.lm_eval.harness import RECORDS, ask
from dft_eval.lm_eval.records import read
from dft_eval.requirements import MissingRequirement
from dft_eval.results import GREEDY, BenchmarkResult

PREFIX = "lm-eval:"
INSTALL = "uv pip install 'dft-factory[lm-eval]'"


class Task(NamedTuple):
    """A task or group of the harness, and the metric of its score; None for its first."""

    name: str
    metric: str | None


def declare(name: str) -> Benchmark:
    """The benchmark of ``lm-eval:TASK`` or ``lm-eval:TASK@METRIC``.

    Raises:
        UsageError: no task is named.
    """
    task, _, metric = name.removeprefix(PREFIX).partition("@")
    if not task:
        raise UsageError(f"{name!r} names no task: lm-eval:arc_easy, or lm-eval:gsm8k@METRIC.")
    return Benchmark(
        name=name,
        summary=f"{task} of lm-evaluation-harness",
        published=0,
        default_style="completion",
        missing=_missing,
        data=Task,
        load=partial(_load, Task(task, metric or None)),
        parts=lambda *_: (),
        ask=_ask,
        scorer=_scorer,
        options=frozenset({"num_fewshot"}),
        data_format="lm-eval tasks",
    )


def _missing() -> list[MissingRequirement]:
    return [] if is_installed("lm-eval") else [MissingRequirement("lm-eval", INSTALL)]


def _load(task: Task, benchmark: Benchmark, request: Request) -> Task:
    """Refuse what the harness cannot be asked.

    Raises:
        UsageError: an option that it does not take.
        PrerequisiteError: it is not installed.
    """
    if missing := _missing():
        raise PrerequisiteError(f"{benchmark.name} needs {missing[0].name}: {missing[0].fix}")
    refuse_options(benchmark, request)
    if request.data is not None and not request.data.is_dir():
        raise UsageError(f"--data {request.data}: give a folder of lm-eval's task files (YAML).")
    return task


def _ask(benchmark: Benchmark, request: Request, subject: Subject, task: Task) -> None:
    """Let the harness ask the model."""
    style = request.prompt_style or benchmark.default_style
    ask(task.name, request.out / file_stem(benchmark.name, style), request, subject.sha256)


def _scorer(
    benchmark: Benchmark, request: Request, task: Task
) -> Callable[[Rows], BenchmarkResult]:
    """Reads the harness's verdicts; needs nothing installed."""
    return partial(_score, benchmark, request, task)


def _score(benchmark: Benchmark, request: Request, task: Task, rows: Rows) -> BenchmarkResult:
    """The result, with the score that the harness printed."""
    style = request.prompt_style or benchmark.default_style
    folder = request.out / file_stem(benchmark.name, style) / RECORDS
    scored = read(folder, task.name, task.metric)
    generates = scored.output_type == "generate_until"
    strategy = ("sampled" if scored.sampled else GREEDY) if generates else scored.output_type
    notes = []
    if len(scored.items) < scored.available:
        notes.append(f"partial: {len(scored.items)} of {scored.available}")
    result = finish(
        benchmark,
        request,
        scored.items,
        metric=scored.metric,
        style=style,
        harness=f"lm-eval {scored.lm_eval}, version {scored.version} of the task",
        decoding={"strategy": strategy, "num_fewshot": scored.num_fewshot},
        notes=notes,
        breakdown=dict(scored.breakdown),
    )
    return as_printed(result, scored.score, scored.stderr)
