"""A task file as a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version

from dft_eval import sandbox
from dft_eval.benchmark import (
    Benchmark,
    JudgeChoice,
    Part,
    Request,
    Rows,
    finish,
    is_installed,
    missing_sandbox,
    size_notes,
)
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.generation.run import Completion, Failure, Prompt, samples_of
from dft_eval.generation.samples import KS, combine
from dft_eval.mathematics.scoring import majority
from dft_eval.mathematics.verdicts import Verdict
from dft_eval.own_tasks.grading import Grade, Grading
from dft_eval.own_tasks.items import TaskData, load_items
from dft_eval.own_tasks.metrics import grade
from dft_eval.own_tasks.programs import problems_of
from dft_eval.own_tasks.task import Metric, TaskFile
from dft_eval.requirements import MissingRequirement
from dft_eval.results import BenchmarkResult, ItemScore
from dft_eval.statistics import mean_and_stderr
from dft_eval.system_prompts import parse_system_prompt
from dft_eval.vlm.judge import OpenAIJudge, open_judge

INSTALL = "uv pip install 'dft-factory[eval]'"
OUTSIDE = "outputs compared outside the sandbox"
BESIDE = "tests run in the program's process; one that searches for them can pass"
_RULES: dict[Metric, str] = {
    "exact_match": "equal after DPR's normalisation",
    "contains": "the right answer's words in a row within the model's",
    "numeric": "the last number",
    "math": "math-verify, last box",
    "choice": "the letter or text of an option",
    "pass@1": "tests after the program, in the sandbox",
    "judge": "a judge model",
}


def declare(task_file: TaskFile) -> Benchmark:
    """The benchmark of a task file."""
    task = task_file.task
    return Benchmark(
        name=task.name,
        summary=task.description or f"own task {task_file.file}",
        published=0,
        default_style=task.prompt_style,
        missing=partial(_missing, task.metric),
        data=TaskData,
        load=partial(_load, task_file),
        parts=partial(_parts, task_file),
        scorer=partial(_scorer, task_file),
        max_new_tokens=task.max_new_tokens,
        system_prompt=parse_system_prompt(task.system_prompt),
        samples=True,
        options=frozenset({"judge"} if task.metric == "judge" else ()),
        runs_programs=task.metric == "pass@1",
        task=task_file,
    )


def _missing(metric: Metric) -> list[MissingRequirement]:
    if metric == "pass@1":
        return missing_sandbox()
    if metric in ("math", "choice") and not is_installed("math-verify"):
        return [MissingRequirement("math-verify", INSTALL)]
    return []


def _load(task_file: TaskFile, benchmark: Benchmark, request: Request) -> TaskData:
    return load_items(task_file, request.data)


def _parts(
    task_file: TaskFile, benchmark: Benchmark, request: Request, data: TaskData
) -> list[Part]:
    """One prompt an item and sample."""
    style = request.prompt_style or benchmark.default_style
    decoding = replace(request.decoding, stop=task_file.task.stop)
    prompts = [
        Prompt(item.id, item.prompt, chat=style == "chat") for item in data.items[: request.limit]
    ]
    return [Part(f"{benchmark.name}.{style}", samples_of(prompts, decoding), decoding)]


def _scorer(
    task_file: TaskFile, benchmark: Benchmark, request: Request, data: TaskData
) -> Callable[[Rows], BenchmarkResult]:
    task = task_file.task
    if task.metric == "pass@1" and request.sandboxed:
        sandbox.check()
    elif missing := [requirement for requirement in benchmark.missing() if task.metric != "pass@1"]:
        raise PrerequisiteError(f"{missing[0].name} is not installed: {missing[0].fix}")
    grading, items = Grading(task, request), data.items[: request.limit]
    if task.metric == "judge":
        judge = _open_judge(task_file, request, len(items) * request.decoding.samples)
        grading = replace(grading, judge=judge)
    if task.solution is not None:
        problems = problems_of(items, task_file.file, request)
        grading = replace(grading, problems=problems)
    return partial(_score, task_file, benchmark, request, data, grading)


def _open_judge(task_file: TaskFile, request: Request, n_items: int) -> OpenAIJudge:
    """The judge model, checked.

    Raises:
        UsageError: none is named.
        PrerequisiteError: it does not answer.
    """
    task, choice = task_file.task, request.judge
    if choice is None and task.judge is not None:
        choice = JudgeChoice("openai", task.judge.model, task.judge.base_url)
    if choice is None or choice.name != "openai":
        raise UsageError(
            f"{task.name} is graded by a model: give --judge openai --judge-model NAME (and "
            f"--judge-base-url), or 'judge: {{model: NAME, base_url: URL}}' in {task_file.file}."
        )
    return open_judge(choice, request, n_items, task.name)


def _score(
    task_file: TaskFile,
    benchmark: Benchmark,
    request: Request,
    data: TaskData,
    grading: Grading,
    rows: Rows,
) -> BenchmarkResult:
    task = task_file.task
    (part,) = _parts(task_file, benchmark, request, data)
    style = request.prompt_style or benchmark.default_style
    items, samples = data.items[: request.limit], part.decoding.samples
    asked = [item for item in items for _ in range(samples)]
    answers = [
        (item, row) for item, row in zip(asked, rows[0], strict=True) if isinstance(row, Completion)
    ]
    grades = iter(grade(answers, grading))
    graded = [next(grades) if isinstance(row, Completion) else None for row in rows[0]]
    scores = [_item(row, grade) for row, grade in zip(rows[0], graded, strict=True)]
    is_code = task.metric == "pass@1"
    ks = KS if is_code else (samples,) if samples > 1 else ()
    scored, breakdown = combine([item.id for item in items], scores, samples, ks=ks)
    if samples > 1 and task.metric not in ("pass@1", "judge"):
        breakdown[f"maj@{samples}"] = _majority(graded, samples)
    return finish(
        benchmark,
        request,
        [
            score.model_copy(update={"cluster": item.cluster})
            for item, score in zip(items, scored, strict=True)
        ],
        metric=_metric(task.metric, part.decoding.temperature, samples),
        style=style,
        harness=f"dft-factory {version('dft-factory')}, {task.metric}: {_RULES[task.metric]}",
        decoding={
            **part.decoding.record(),
            "task_sha256": task_file.sha256,
            "data_sha256": data.sha256,
        },
        breakdown=breakdown,
        judge=None if grading.judge is None else grading.judge.described,
        cluster=task.cluster or ("problem" if samples > 1 else None),
        notes=[
            *size_notes(len(items), len(data.items), len(data.items)),
            f"own task: {task_file.file} on {data.source}",
            *([OUTSIDE if grading.problems else BESIDE] if is_code else []),
        ],
    )


def _item(row: Completion | Failure, graded: Grade | None) -> ItemScore:
    if isinstance(row, Failure):
        return ItemScore(id=row.id, score=None, reason=row.reason)
    assert graded is not None
    if graded.correct is None:
        return ItemScore(id=row.id, score=None, reason=graded.reason)
    cut = " (cut at max_new_tokens)" if row.finish_reason == "length" else ""
    return ItemScore(id=row.id, score=float(graded.correct), reason=f"{graded.reason}{cut}")


def _metric(metric: Metric, temperature: float, samples: int) -> str:
    if metric == "pass@1":
        return metric
    if temperature > 0:
        return f"avg@{samples}"
    return metric if metric in ("exact_match", "contains") else "accuracy"


def _majority(graded: Sequence[Grade | None], samples: int) -> float | None:
    """Accuracy of the most frequent answers."""
    votes = [None if grade is None else Verdict(grade.correct, grade.answer) for grade in graded]
    groups = [votes[start : start + samples] for start in range(0, len(votes), samples)]
    shares = [share for share in map(majority, groups) if share is not None]
    return mean_and_stderr(shares)[0]
