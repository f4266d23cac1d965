"""The way from a table to a result, the same for the three benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dft_eval.benchmark import (
    Benchmark,
    Part,
    PixelRange,
    Request,
    Rows,
    finish,
    is_installed,
    size_notes,
)
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.generation.run import Completion, Failure, Prompt
from dft_eval.progress import Progress
from dft_eval.requirements import MissingRequirement
from dft_eval.results import BenchmarkResult, ItemScore
from dft_eval.vlm.equality import Equality
from dft_eval.vlm.judge import OpenAIJudge, open_judge
from dft_eval.vlm.openai_scoring import Graded, Scoring
from dft_eval.vlm.rules import by_rules, described
from dft_eval.vlm.tables import Published, Row, Table, read_table

STOCK_PIXELS = PixelRange(1280 * 28 * 28, 16384 * 28 * 28)
"""VLMEvalKit 0.0.20's setting for Qwen2.5-VL."""
LLAMAFACTORY_MAX_PIXELS = 262_144
"""LLaMA-Factory 0.9.5 trains at this ``image_max_pixels`` unless its recipe says otherwise."""
MAX_NEW_TOKENS = 2048
HARNESS_VERSION = "0.0.20"
PACKAGES = {
    "qwen-vl-utils": "resizes pictures, --backend hf",
    "math-verify": "compares answers",
    "ms-vlmeval": "the judge's prompts, --judge openai",
}


@dataclass(frozen=True)
class Summary:
    """What a benchmark makes of its items.

    Attributes:
        score: with its standard error; None for the mean of the items.
    """

    breakdown: dict[str, float | None]
    notes: Sequence[str] = ()
    metric: str = "accuracy"
    score: tuple[float | None, float | None] | None = None


@dataclass(frozen=True)
class Task:
    """What is a benchmark's own.

    Attributes:
        tables: the published tables, the whole one first.
        columns: of the table that are read.
        check: raises UsageError for rows that could not be scored, before anything is generated.
        prompt: of one row.
        options: letter to text; empty for a free answer.
        question: column of the question as the judge sees it.
        judged: item scores by ``--judge openai``, in order.
        needs_judge: whether ``--judge`` must be named; ``rules`` otherwise.
        requests_an_item: that the judge is asked at most.
        category: of one row, as in the breakdown.
        summarise: the items of these rows; may write into ``request.out``.
        cluster: what rows of one problem share; None where every row is its own.
        cluster_name: what that is.
    """

    tables: tuple[Published, ...]
    columns: tuple[str, ...]
    check: Callable[[Sequence[Row]], object]
    prompt: Callable[[Row], Prompt]
    options: Callable[[Row], dict[str, str]]
    question: str
    judged: Callable[[Sequence[Graded], Scoring], list[ItemScore]]
    needs_judge: bool
    requests_an_item: int
    category: Callable[[Row], str]
    summarise: Callable[[Request, Sequence[Row], Sequence[ItemScore]], Summary]
    cluster: Callable[[Row], str] | None = None
    cluster_name: str | None = None

    def score(
        self, rows: Sequence[Row], completions: Sequence[Completion], scoring: Scoring
    ) -> list[ItemScore]:
        """Item scores by the judge, or by rules, in order."""
        graded = [
            Graded(completion, row.text("answer"), self.options(row), row.text(self.question))
            for row, completion in zip(rows, completions, strict=True)
        ]
        if scoring.judge is not None:
            return self.judged(graded, scoring)
        items = []
        with Progress(f"{scoring.title}: answers compared") as progress:
            for item in graded:
                items.append(by_rules(item.completion, item.gold, item.options, scoring.equality))
                progress(len(items), len(graded))
        return items


def missing() -> list[MissingRequirement]:
    """The packages that are not installed; without each of them some way remains."""
    return [
        MissingRequirement(
            f"the Python package {package} ({why})",
            "uv pip install 'dft-factory[vl]'",
            blocks=False,
        )
        for package, why in PACKAGES.items()
        if not is_installed(package)
    ]


def pixel_range(request: Request) -> PixelRange:
    """The pixel range asked for.

    Raises:
        UsageError: below one pixel, or the least above the most.
    """
    least = STOCK_PIXELS.min_pixels if request.min_pixels is None else request.min_pixels
    most = STOCK_PIXELS.max_pixels if request.max_pixels is None else request.max_pixels
    if not 1 <= least <= most:
        raise UsageError(
            f"--min-pixels {least} --max-pixels {most}: give numbers of 1 or more, the least not "
            "above the most (unless given they are "
            f"{STOCK_PIXELS.min_pixels} and {STOCK_PIXELS.max_pixels})."
        )
    return PixelRange(least, most)


def _check(task: Task, benchmark: Benchmark, request: Request) -> None:
    if request.decoding.temperature > 0:
        raise UsageError(
            f"--temperature {request.decoding.temperature}: {benchmark.name} takes the one greedy "
            "answer of each item (--temperature 0)."
        )
    if request.prompt_style == "completion":
        raise UsageError(f"{benchmark.name} has pictures: its only --prompt-style is chat.")
    if request.backend == "hf" and not is_installed("qwen-vl-utils"):
        raise PrerequisiteError(_package_missing(benchmark, "qwen-vl-utils"))


def _check_scoring(task: Task, benchmark: Benchmark, request: Request) -> None:
    if task.needs_judge and request.judge is None:
        raise UsageError(
            f"{benchmark.name} has free answers, which somebody must judge: give --judge openai "
            "(a model, as the paper's scores have it; --judge-model, --judge-base-url) or --judge "
            "rules (answer extraction and math-verify)."
        )
    asks = request.judge is not None and request.judge.name == "openai"
    needed = {"math-verify": not asks or task.needs_judge, "ms-vlmeval": asks}
    for package, needs in needed.items():
        if needs and not is_installed(package):
            raise PrerequisiteError(_package_missing(benchmark, package))


def _package_missing(benchmark: Benchmark, package: str) -> str:
    return (
        f"{benchmark.name} needs the Python package {package} ({PACKAGES[package]}): "
        "uv pip install 'dft-factory[vl]'"
    )


def _load(task: Task, benchmark: Benchmark, request: Request) -> Table:
    """The table's rows, their pictures written to ``request.out``.

    Raises:
        UsageError, PrerequisiteError: rows that could not be asked or scored.
    """
    _check(task, benchmark, request)
    pixel_range(request)
    table = read_table(
        task.tables,
        task.columns,
        data=request.data,
        limit=request.limit,
        pictures=request.out / "pictures",
    )
    task.check(table.rows)
    return table


def _parts(task: Task, benchmark: Benchmark, request: Request, table: Table) -> list[Part]:
    prompts = [task.prompt(row) for row in table.rows]
    return [Part(f"{benchmark.name}.chat", prompts, request.decoding, pixel_range(request))]


def _scorer(
    task: Task, benchmark: Benchmark, request: Request, table: Table
) -> Callable[[Rows], BenchmarkResult]:
    _check_scoring(task, benchmark, request)
    judge = None
    if request.judge is not None and request.judge.name == "openai":
        requests = len(table.rows) * task.requests_an_item
        judge = open_judge(request.judge, request, requests, benchmark.name)
    return partial(_result, task, benchmark, request, table, judge)


def _result(
    task: Task,
    benchmark: Benchmark,
    request: Request,
    table: Table,
    judge: OpenAIJudge | None,
    rows: Rows,
) -> BenchmarkResult:
    pixels = pixel_range(request)
    graded = _score(task, table.rows, rows[0], judge, f"{request.label} {benchmark.name}.chat")
    items = [
        item.model_copy(
            update={
                "cluster": task.cluster(row) if task.cluster else None,
                "category": task.category(row),
                "pictures": tuple(f"pictures/{Path(picture).name}" for picture in row.pictures),
            }
        )
        for row, item in zip(table.rows, graded, strict=True)
    ]
    notes = [
        *size_notes(len(items), table.available, benchmark.published),
        table.source,
        *_pixel_notes(pixels),
        *_system_prompt_notes(request),
    ]
    judged = described()
    if judge is not None:
        judged = f"{judge.described}, prompts of VLMEvalKit {version('ms-vlmeval')}"
    summary = task.summarise(request, table.rows, items)
    result = finish(
        benchmark,
        request,
        items,
        metric=summary.metric,
        style="chat",
        harness=f"VLMEvalKit {HARNESS_VERSION} (data, prompts, rules)",
        decoding=_record(request, pixels),
        notes=[*notes, *summary.notes],
        breakdown=summary.breakdown,
        judge=judged,
        cluster=task.cluster_name,
    )
    if summary.score is None:
        return result
    return result.model_copy(update=dict(zip(("score", "stderr"), summary.score, strict=True)))


def declare(name: str, summary: str, task: Task) -> Benchmark:
    """The benchmark of a task, with what all that show pictures have in common."""
    return Benchmark(
        name=name,
        summary=summary,
        published=task.tables[0].rows,
        default_style="chat",
        missing=missing,
        data=Table,
        load=partial(_load, task),
        parts=partial(_parts, task),
        scorer=partial(_scorer, task),
        max_new_tokens=MAX_NEW_TOKENS,
        options=frozenset({"min_pixels", "max_pixels", "judge"}),
        data_format="a folder of VLMEvalKit's tables",
    )


def _score(
    task: Task,
    rows: Sequence[Row],
    completions: Sequence[Completion | Failure],
    judge: OpenAIJudge | None,
    title: str,
) -> list[ItemScore]:
    """Item scores in the rows' order; None where there is no completion."""
    answers = [row for row in completions if isinstance(row, Completion)]
    failures = [row for row in completions if isinstance(row, Failure)]
    failed = {row.id for row in failures}
    answered = [row for row in rows if row.id not in failed]
    with Equality() as equality:
        scored = task.score(answered, answers, Scoring(title, equality, judge))
    items = {item.id: item for item in scored}
    items |= {row.id: ItemScore(id=row.id, score=None, reason=row.reason) for row in failures}
    return [items[row.id] for row in rows]


def _record(request: Request, pixels: PixelRange) -> dict[str, Any]:
    return {
        **request.decoding.record(),
        "min_pixels": pixels.min_pixels,
        "max_pixels": pixels.max_pixels,
        "prompt": f"VLMEvalKit {HARNESS_VERSION}, use_custom_prompt=False",
        **({"transformers": version("transformers")} if request.backend == "hf" else {}),
    }


def _system_prompt_notes(request: Request) -> list[str]:
    if request.decoding.system_prompt is not None:
        return []
    return [
        "system prompt: the chat template's own, as VLMEvalKit asks Qwen2.5-VL; WeThink's own "
        "models need --system-prompt wethink"
    ]


def _pixel_notes(pixels: PixelRange) -> list[str]:
    if pixels.max_pixels == LLAMAFACTORY_MAX_PIXELS:
        return []
    return [
        f"pictures of {pixels.min_pixels} to {pixels.max_pixels} pixels; LLaMA-Factory trains at "
        f"image_max_pixels {LLAMAFACTORY_MAX_PIXELS} unless its recipe says otherwise"
    ]
