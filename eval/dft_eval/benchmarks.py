"""What ``dft-factory eval`` can run: one table, and the way from a model to a result."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dft_eval import flow, python_programs, sandbox
from dft_eval.benchmark import PROMPT_STYLES, Benchmark, JudgeChoice, Request, Rows
from dft_eval.errors import UnscoredError, UsageError, did_you_mean
from dft_eval.generation.resume import CompletionCache
from dft_eval.generation.shard import FOLDER as SHARDS
from dft_eval.humaneval_plus.adapter import HUMANEVAL_PLUS
from dft_eval.lm_eval import benchmark as lm_eval
from dft_eval.mathematics.benchmark import MATHEMATICS
from dft_eval.merge_shards import merge_shards
from dft_eval.models import open_subject
from dft_eval.multipl_e.benchmark import MULTIPL_E
from dft_eval.natural_questions.benchmark import NATURAL_QUESTIONS
from dft_eval.own_tasks.benchmark import declare
from dft_eval.own_tasks.task import TaskFile, is_task_path, read_task
from dft_eval.results import BenchmarkResult, ResultFile, merge_results, only_writer
from dft_eval.sandbox.backends import SandboxName
from dft_eval.serving.engines import check_options
from dft_eval.serving.pool import Servers
from dft_eval.vlm.mathverse import MATHVERSE
from dft_eval.vlm.mathvision import MATHVISION
from dft_eval.vlm.wemath import WEMATH
from dft_eval.vlmevalkit import benchmark as vlmevalkit

__all__ = ["BENCHMARKS", "PROMPT_STYLES", "Benchmark", "Request"]
__all__ += [
    "benchmark_of",
    "check",
    "evaluate",
    "get_benchmark",
    "load",
    "refuse_for_harnesses",
    "score",
]

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        python_programs.HUMANEVAL,
        HUMANEVAL_PLUS,
        MULTIPL_E,
        python_programs.PYTHON_BASICS,
        MATHVERSE,
        MATHVISION,
        WEMATH,
        NATURAL_QUESTIONS,
        *MATHEMATICS,
    )
}


def get_benchmark(name: str) -> Benchmark:
    """Look a benchmark up, or read the user's own task from its file.

    Raises:
        UsageError: naming the value, the choices and the nearest match.
    """
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    if name.startswith(lm_eval.PREFIX):
        return lm_eval.declare(name)
    if name.startswith(vlmevalkit.PREFIX):
        return vlmevalkit.declare(name)
    if is_task_path(name):
        return own_benchmark(read_task(Path(name)))
    raise UsageError(
        f"Benchmark {name!r} is unknown. Choose from: {', '.join(BENCHMARKS)}, lm-eval:TASK, "
        f"vlmeval:DATASET, or give the path of a task file (.yaml).{did_you_mean(name, BENCHMARKS)}"
    )


def own_benchmark(task_file: TaskFile) -> Benchmark:
    """The benchmark of a user's own task.

    Raises:
        UsageError: its name is that of a benchmark of the table.
    """
    name = task_file.task.name
    if name in BENCHMARKS:
        raise UsageError(
            f"{task_file.folder / task_file.file}: name: {name!r} is the name of a benchmark of "
            "this package. Choose another."
        )
    return declare(task_file)


def evaluate(
    names: list[str], request: Request, *, scored: bool = True, servers: Servers | None = None
) -> ResultFile:
    """Generate with one model, score, and write ``results.json`` into ``request.out``.

    Every result is written as soon as it is there. Unscored items are kept out of the score, and
    make the whole call fail at its end, with everything else done.

    Args:
        scored: False to generate alone; :func:`score` does the rest, elsewhere too.
        servers: of several models that share them; None for one of this model alone.

    Raises:
        UsageError, PrerequisiteError: before anything is generated, where that can be known.
        UnscoredError: some items could not be scored.
    """
    with contextlib.ExitStack() as stack:
        if servers is None:
            servers = stack.enter_context(Servers([request]))
        chosen = check(names, request)
        held_by, data, scorers = load(chosen, request, scored=scored)
        if request.shard is not None:
            request = replace(request, out=request.shard.folder(request.out))
        elif (request.out / SHARDS).is_dir():
            raise UsageError(
                f"{request.out} holds shards, which `dft-factory score {request.out}` puts "
                "together. Use another --out, or give --shard K/N."
            )
        stack.enter_context(only_writer(request.out))
        return _evaluate(chosen, request, servers, held_by, data, scorers)


def _evaluate(
    chosen: Sequence[Benchmark],
    request: Request,
    servers: Servers,
    held_by: sandbox.Sandbox | None,
    data: Sequence[Any],
    scorers: list[Callable[[Rows], BenchmarkResult]],
) -> ResultFile:
    """``scorers`` is empty to generate alone."""
    subject = open_subject(request, servers)
    generation = flow.begin(request, subject)
    cache = CompletionCache(request.out, fresh=request.fresh)
    written = generation.header()
    results: list[BenchmarkResult] = []
    for i, benchmark in enumerate(chosen):
        run = flow.generate(benchmark, request, subject, data[i], generation, cache)
        if scorers:
            if request.match_entropy:  # the temperature is known only now
                scorers[i] = benchmark.scorer(benchmark, run.request, data[i])
            result = flow.score(benchmark, run.request, run, data[i], scorers[i])
            results.append(_with_sandbox(benchmark, result, held_by))
            written = merge_results(request.out, generation.header(), results[-1:])
    _refuse_unscored(results)
    return written


def load(
    chosen: Sequence[Benchmark], request: Request, *, scored: bool
) -> tuple[sandbox.Sandbox | None, list[Any], list[Callable[[Rows], BenchmarkResult]]]:
    """The sandbox, and each benchmark's data and, with ``scored``, its scorer.

    Raises:
        UsageError, PrerequisiteError: what could not be asked or scored here.
    """
    held_by = _select_sandbox(chosen, request) if scored else None
    asked = [flow.as_trained(benchmark, request)[0] for benchmark in chosen]
    data = [benchmark.load(benchmark, own) for benchmark, own in zip(chosen, asked, strict=True)]
    if not scored:
        return held_by, data, []
    rows = zip(chosen, asked, data, strict=True)
    return (
        held_by,
        data,
        [benchmark.scorer(benchmark, own, own_data) for benchmark, own, own_data in rows],
    )


def score(
    folder: Path,
    *,
    sandboxed: bool = True,
    sandbox_name: SandboxName = "auto",
    judge_workers: int | None = None,
    judge: JudgeChoice | None = None,
    fresh: bool = False,
) -> ResultFile:
    """Score everything that was generated into ``folder``; needs nothing beside it.

    Args:
        judge: None for the one named at generation.
        fresh: ask the judge again.

    Raises:
        UsageError, PrerequisiteError: before anything is scored.
        UnscoredError: some items could not be scored.
    """
    if (folder / SHARDS).is_dir():
        merge_shards(folder, benchmark_of)
    flow.read_generation(folder)  # refused before a lock is made
    here: dict[str, Any] = {"out": folder, "sandboxed": sandboxed, "sandbox": sandbox_name}
    here.update(judge_workers=judge_workers, fresh=fresh)
    held_by = None
    jobs = []
    with only_writer(folder):
        generation = flow.read_generation(folder)
        chosen = [benchmark_of(run) for run in generation.runs]
        for benchmark, run in zip(chosen, generation.runs, strict=True):
            request = replace(run.request, **here)
            if run is generation.runs[0]:
                held_by = _select_sandbox(chosen, request)
            if judge is not None and "judge" in benchmark.options:
                request = replace(request, judge=judge)
            data = flow.read_data(benchmark, folder, run)
            jobs.append((benchmark, request, run, data, benchmark.scorer(benchmark, request, data)))
        results = [_with_sandbox(job[0], flow.score(*job), held_by) for job in jobs]
        written = merge_results(folder, generation.header(), results)
    _refuse_unscored(results)
    return written


def benchmark_of(run: flow.Run) -> Benchmark:
    """The benchmark that was asked."""
    return get_benchmark(run.benchmark) if run.task is None else own_benchmark(run.task)


def _select_sandbox(chosen: Sequence[Benchmark], request: Request) -> sandbox.Sandbox | None:
    """What will hold the model's programs; None where no benchmark runs any.

    Raises:
        PrerequisiteError: it does not work here.
    """
    if not any(benchmark.runs_programs for benchmark in chosen):
        return None
    if not request.sandboxed:
        sys.stderr.write(
            "dft-factory: --unsafe-no-sandbox: programs that the model wrote run with your rights, "
            "your files and your network.\n"
        )
        return sandbox.UNCONFINED
    held_by = sandbox.select(request.sandbox)
    if held_by.name == "landlock":
        sys.stderr.write(
            f"dft-factory: programs run in {held_by.describe()}, which does not protect from: "
            f"{'; '.join(held_by.does_not_protect_from)}.\n"
        )
    return held_by


def _with_sandbox(
    benchmark: Benchmark, result: BenchmarkResult, held_by: sandbox.Sandbox | None
) -> BenchmarkResult:
    if held_by is None or not benchmark.runs_programs:
        return result
    limits = "; ".join(held_by.does_not_protect_from)
    note = f"the sandbox ({held_by.name}) does not protect from: {limits}"
    return result.model_copy(update={"sandbox": held_by.name, "notes": [*result.notes, note]})


def _refuse_unscored(results: Sequence[BenchmarkResult]) -> None:
    unscored = [
        f"{row.benchmark}: {row.n_total - row.n_scored} of {row.n_total}"
        for row in results
        if row.n_scored < row.n_total
    ]
    if unscored:
        raise UnscoredError(
            f"Items without a score ({'; '.join(unscored)}); their reasons are in the items files."
        )


def _refuse_same_names(chosen: Sequence[Benchmark]) -> None:
    """Results go by name."""
    names = [benchmark.name for benchmark in chosen]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"Two task files are named {name!r}: set 'name' in one of them.")


def refuse_for_harnesses(chosen: Sequence[Benchmark], option: str) -> None:
    """Refuse an option that says how the model is run, for harnesses that run it themselves.

    Raises:
        UsageError: naming the option and the benchmarks.
    """
    if asking := [benchmark.name for benchmark in chosen if benchmark.ask is not None]:
        raise UsageError(
            f"{option}: {', '.join(asking)} asks the model itself, all of it. Leave it out."
        )


def check(names: Sequence[str], request: Request) -> list[Benchmark]:
    """The benchmarks of these names.

    Raises:
        UsageError: an unknown name, or an option that one of them does not take.
    """
    chosen = [get_benchmark(name) for name in dict.fromkeys(names)]
    _refuse_same_names(chosen)
    if request.limit is not None and request.limit < 1:
        raise UsageError(f"--limit {request.limit}: give a number of 1 or more.")
    if request.num_fewshot is not None and request.num_fewshot < 0:
        raise UsageError(f"--num-fewshot {request.num_fewshot}: give a number of 0 or more.")
    if request.judge_workers is not None and request.judge_workers < 1:
        raise UsageError(f"--judge-workers {request.judge_workers}: give a number of 1 or more.")
    check_options(request.backend, request.serve, request.base_url, request.dtype)
    formats = {benchmark.data_format or benchmark.name for benchmark in chosen}
    if request.data is not None and len(formats) > 1:
        raise UsageError("--data names one benchmark's file: evaluate one benchmark at a time.")
    for option in ("judge", "min_pixels", "max_pixels", "num_fewshot"):
        without = [benchmark.name for benchmark in chosen if option not in benchmark.options]
        value = getattr(request, option)
        if value is not None and without:
            value = value.name if isinstance(value, JudgeChoice) else value
            able = [name for name, benchmark in BENCHMARKS.items() if option in benchmark.options]
            able = able or [f"{lm_eval.PREFIX}TASK"]
            raise UsageError(
                f"--{option.replace('_', '-')} {value} has no effect on {', '.join(without)}. "
                f"Leave it out, or evaluate {', '.join(able)} by themselves."
            )
    for name in ("match_entropy", "shard", "device_map"):
        if value := getattr(request, name):
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            refuse_for_harnesses(chosen, f"--{name.replace('_', '-')} {text}")
    single = [benchmark.name for benchmark in chosen if not benchmark.samples]
    if request.decoding.samples > 1 and single:
        able = [name for name, benchmark in BENCHMARKS.items() if benchmark.samples]
        raise UsageError(
            f"--samples {request.decoding.samples}: {', '.join(single)}: scored on one completion "
            f"an item. Several are taken by {', '.join(able)}."
        )
    for benchmark in chosen:
        style = request.prompt_style or benchmark.default_style
        if request.decoding.system_prompt is not None and style == "completion":
            raise UsageError(
                f"--system-prompt: {benchmark.name} is asked by raw completion, which has no "
                "system message. Leave it out, or add --prompt-style chat."
            )
        if request.harness is not None and request.harness not in benchmark.harnesses:
            known = ", ".join(benchmark.harnesses) or "its own alone; leave the option out"
            raise UsageError(f"--harness {request.harness!r}: {benchmark.name} knows {known}.")
    return chosen
