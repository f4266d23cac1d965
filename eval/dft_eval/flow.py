"""From a benchmark to its result in two steps that share nothing but a folder.

:func:`generate` needs the model. It leaves the completions, the data that they were asked from,
and ``generation.json``: what was asked and how the model was run. :func:`score` needs that folder
alone.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from dft_eval.benchmark import Benchmark, Request, Rows, Subject, file_stem
from dft_eval.errors import UsageError
from dft_eval.generation.resume import CompletionCache, generate_each
from dft_eval.generation.run import Completion, Failure
from dft_eval.matching import Match, match_entropy
from dft_eval.own_tasks.task import TaskFile
from dft_eval.progress import Progress
from dft_eval.results import (
    RESULTS_NAME,
    BenchmarkResult,
    ResultFile,
    Training,
    atomic_write,
    read_results,
    read_utf8,
)
from dft_eval.statistics import mean_and_stderr
from dft_eval.system_prompts import NONE, trained_with
from dft_eval.training_file import TRAINING_FILE, trained_steps, training_record

GENERATION_NAME = "generation.json"
FINGERPRINT = "server_fingerprint"
"""In the record of a server: what tells another model behind the same name and address."""


class Run(BaseModel):
    """What one benchmark was asked, and how.

    Attributes:
        record: how the model was run (backend, dtype, ...), for the result's ``decoding``.
        failures: ids of prompts without a completion, and why.
        task: the user's own task; None for a benchmark of the table.
        match: how the temperature was chosen; None where it was given.
    """

    model_config = ConfigDict(extra="forbid")

    benchmark: str
    prompt_style: Literal["completion", "chat"]
    request: Request
    record: dict[str, Any]
    notes: list[str]
    failures: dict[str, str]
    task: TaskFile | None = None
    match: Match | None = None


class Generation(BaseModel):
    """The whole ``generation.json`` of one model."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    model: str
    model_sha256: str | None
    base_model: str | None
    label: str
    training: Training | None = None
    runs: list[Run] = []

    def header(self) -> ResultFile:
        """Results of this model, without any yet."""
        return ResultFile(**self.model_dump(exclude={"runs"}))


def read_generation(folder: Path) -> Generation:
    """Read ``folder/generation.json``.

    Raises:
        UsageError: it is not there, or malformed.
    """
    path = folder / GENERATION_NAME
    if not path.is_file():
        raise UsageError(
            f"{folder} holds no {GENERATION_NAME}: run "
            f"`dft-factory generate BENCHMARK... --model M --out {folder}` first."
        )
    try:
        return Generation.model_validate_json(read_utf8(path))
    except ValidationError as error:
        raise UsageError(f"{path} is malformed: {error}") from error


def begin(request: Request, subject: Subject) -> Generation:
    """What was generated into ``request.out`` with this model so far.

    Results of another model behind the same server and name are dropped, and that is said.

    Raises:
        UsageError: the folder holds another model's, without ``--fresh``.
    """
    new = Generation(
        model=request.model,
        model_sha256=subject.sha256,
        base_model=request.base_model,
        label=request.label,
        training=training_of(request.model) if request.weights_are_here else None,
    )
    results = request.out / RESULTS_NAME
    former = read_results(request.out) if results.is_file() else None
    if (request.out / GENERATION_NAME).is_file():
        new.runs = read_generation(request.out).runs
        former = former or read_generation(request.out).header()
    if former is None:
        return new
    known = [run.record.get(FINGERPRINT) for run in new.runs]
    same = (former.model, former.model_sha256) == (new.model, new.model_sha256)
    if same and set(known) <= {subject.record().get(FINGERPRINT)}:
        return new
    if not same and not request.fresh:
        raise UsageError(
            f"{request.out} holds the results of {former.model!r} (sha256 {former.model_sha256}), "
            f"not of {new.model!r} (sha256 {new.model_sha256}). Use another --out, or --fresh to "
            "replace them."
        )
    sys.stderr.write(f"{request.out}: the results of another model are replaced\n")
    results.unlink(missing_ok=True)
    new.runs = []
    return new


def training_of(model: str) -> Training | None:
    """How a model was trained, from the record in its folder; None where there is none.

    Raises:
        UsageError: the record cannot be read.
    """
    record, step = training_record(model), trained_steps(model)
    if not record:
        return None if step is None else Training(step=step)
    # finetuning_type is <objective>[_<method>].
    named = re.fullmatch(r"(.*?)(?:_(full|lora|freeze|oft))?", record.get("finetuning_type") or "")
    objective, method = named.groups() if named else ("", None)
    try:
        return Training(
            objective=objective or None,
            method=(method or "full") if objective else None,
            dataset=tuple(record.get("dataset") or ()),
            weight=record.get("token_weight"),
            seed=record.get("seed"),
            variant=record.get("variant"),
            step=step,
        )
    except ValidationError as error:
        raise UsageError(f"The {TRAINING_FILE} of {model} is malformed: {error}") from error


def as_trained(benchmark: Benchmark, request: Request) -> tuple[Request, list[str]]:
    """The request with the benchmark's own defaults, and notes on them for the result."""
    decoding, notes = request.decoding, []
    if request.own_max_new_tokens:
        decoding = replace(decoding, max_new_tokens=benchmark.max_new_tokens)
    style = request.prompt_style or benchmark.default_style
    if style == "chat" and decoding.system_prompt is None:
        decoding = replace(decoding, system_prompt=benchmark.system_prompt)
    if style == "chat" and request.weights_are_here and decoding.system_prompt is None:
        decoding = replace(decoding, system_prompt=trained_with(request.model))
        if decoding.system_prompt is not None:
            notes = [f"system prompt: that of the model's training ({TRAINING_FILE})"]
    if request.backend != "hf" and decoding.system_prompt == NONE:
        notes = ["no system message is sent; the server's template may insert its own"]
    return replace(request, decoding=decoding, prompt_style=style), notes


def generate(
    benchmark: Benchmark,
    request: Request,
    subject: Subject,
    data: Any,
    generation: Generation,
    cache: CompletionCache,
) -> Run:
    """Complete the benchmark's prompts and write everything that :func:`score` needs."""
    request, notes = as_trained(benchmark, request)
    shard = request.shard
    match = None
    if request.match_entropy:
        request, match = match_entropy(benchmark, request, subject, data)
    key = (benchmark.name, request.prompt_style or benchmark.default_style)
    former = [run for run in generation.runs if (run.benchmark, run.prompt_style) == key]
    _warn_of_replaced(former, request)
    failures: dict[str, str] = {}
    if benchmark.ask is not None:
        benchmark.ask(benchmark, request, subject, data)
    for part in benchmark.parts(benchmark, request, data):
        backend = subject.text if part.pixels is None else subject.vision(part.pixels)
        prompts = shard.select(part.prompts, part.decoding.samples) if shard else part.prompts
        with Progress(f"{request.label} {part.stem}: completions") as progress:
            rows = generate_each(
                prompts,
                part.decoding,
                request.out / f"{part.stem}.completions.jsonl",
                backend=backend,
                progress=progress,
                cache=cache,
            )
        failures.update((row.id, row.reason) for row in rows if isinstance(row, Failure))
    record = subject.record()
    if benchmark.ask is not None:  # the harness loads the model itself
        record.pop("attn_implementation", None)
    if former and former[0].record.get("backend") == record.get("backend"):
        # A server that is asked nothing, since all is cached, tells less of how it takes requests.
        record = {**former[0].record, **record}
    run = Run(
        benchmark=key[0],
        prompt_style=key[1],
        request=request,
        record=record,
        notes=notes,
        failures=failures,
        task=benchmark.task,
        match=match,
    )
    dumped = json.dumps(TypeAdapter(benchmark.data).dump_python(data), ensure_ascii=False)
    atomic_write(data_path(request.out, run), dumped)
    generation.runs = [run for run in generation.runs if run not in former] + [run]
    dumped = json.dumps(generation.model_dump(mode="json"), indent=2)
    atomic_write(request.out / GENERATION_NAME, f"{dumped}\n")
    return run


def _warn_of_replaced(former: Sequence[Run], request: Request) -> None:
    new = (request.decoding.temperature, request.decoding.samples)
    for run in former:
        temperature, samples = run.request.decoding.temperature, run.request.decoding.samples
        if (temperature, samples) != new:
            sys.stderr.write(
                f"{request.out}: the result of {run.benchmark} at temperature {temperature:g}, "
                f"{samples} sample(s) an item, is replaced. Use another --out to keep both.\n"
            )


def read_data(benchmark: Benchmark, folder: Path, run: Run) -> Any:
    """The data that :func:`generate` asked from."""
    path = data_path(folder, run)
    try:
        return TypeAdapter(benchmark.data).validate_python(json.loads(read_utf8(path)))
    except (OSError, ValueError) as error:  # also pydantic's and json's
        raise UsageError(
            f"{path} cannot be read: {error}. Run `dft-factory generate {run.benchmark} ... --out "
            f"{folder}` again: what it completed is kept."
        ) from error


def data_path(folder: Path, run: Run) -> Path:
    """Where :func:`generate` wrote it."""
    return folder / f"{file_stem(run.benchmark, run.prompt_style)}.data.json"


def score(
    benchmark: Benchmark, request: Request, run: Run, data: Any, scorer: Callable[[Rows], Any]
) -> BenchmarkResult:
    """The result of what :func:`generate` left in ``request.out``."""
    rows = [
        _read_rows(request.out / f"{part.stem}.completions.jsonl", part.prompts, run.failures)
        for part in benchmark.parts(benchmark, request, data)
    ]
    result: BenchmarkResult = scorer(rows)
    completions = [row for part in rows for row in part if isinstance(row, Completion)]
    matched = {} if run.match is None else {"match_entropy": asdict(run.match)}
    entropies = [row.mean_entropy for row in completions if row.mean_entropy is not None]
    all_known = len(entropies) == len(completions)
    update: dict[str, Any] = {
        "decoding": {**run.record, **result.decoding, **matched},
        "notes": [*result.notes, *run.notes],
    }
    if benchmark.ask is not None:
        return result.model_copy(update=update)
    update |= {
        "n_completions": len(completions),
        "n_truncated": sum(row.finish_reason == "length" for row in completions),
        "n_empty": sum(not row.completion.strip() for row in completions),
        "mean_tokens": mean_and_stderr([float(row.n_tokens) for row in completions])[0],
        "mean_entropy": mean_and_stderr(entropies)[0] if all_known else None,
    }
    return result.model_copy(update=update)


def _read_rows(
    path: Path, prompts: Sequence[Any], failures: dict[str, str]
) -> list[Completion | Failure]:
    try:
        # Not splitlines(): JSON may hold U+2028 and its like unescaped.
        lines = read_utf8(path).split("\n")
        rows = [Completion.model_validate_json(line) for line in lines if line]
    except (OSError, ValidationError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    known = {row.id: row for row in rows}
    return [
        known.get(prompt.id)
        or Failure(prompt.id, failures.get(prompt.id, f"It is not in {path.name}."))
        for prompt in prompts
    ]
