"""A data set of VLMEvalKit as a benchmark, ``vlmeval:DATASET``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import BaseModel

from dft_eval.benchmark import Benchmark, Request, Rows, Subject, file_stem, finish, is_installed
from dft_eval.errors import EvaluationError, PrerequisiteError, UsageError
from dft_eval.harness_process import as_printed, refuse_options, run_logged
from dft_eval.model_files import DEFAULT_DTYPE
from dft_eval.progress import tail
from dft_eval.requirements import MissingRequirement
from dft_eval.results import GREEDY, BenchmarkResult
from dft_eval.vlmevalkit.files import REFUSED, RUN, SCORES, TABLES, read_scores

PREFIX = "vlmeval:"
INSTALL = "uv pip install 'dft-factory[vl]'"


class DataSet(BaseModel):
    """A data set of the harness, and the user's own table of it with its hash."""

    name: str
    table: str | None = None
    sha256: str | None = None


def declare(name: str) -> Benchmark:
    """The benchmark of ``vlmeval:DATASET``.

    Raises:
        UsageError: no data set is named.
    """
    dataset = name.removeprefix(PREFIX)
    if not dataset or "/" in dataset:
        raise UsageError(f"{name!r} names no data set: vlmeval:OCRBench, vlmeval:MMMU_DEV_VAL.")
    return Benchmark(
        name=name,
        summary=f"{dataset} of VLMEvalKit",
        published=0,
        default_style="chat",
        missing=_missing,
        data=DataSet,
        load=partial(_load, dataset),
        parts=lambda *_: (),
        ask=_ask,
        scorer=_scorer,
        options=frozenset({"min_pixels", "max_pixels"}),
        data_format="a folder of VLMEvalKit's tables",
    )


def _missing() -> list[MissingRequirement]:
    return [] if is_installed("ms-vlmeval") else [MissingRequirement("ms-vlmeval", INSTALL)]


def _load(dataset: str, benchmark: Benchmark, request: Request) -> DataSet:
    """Refuse what the harness cannot be asked.

    Raises:
        UsageError: an option that it does not take, or a folder without the table.
        PrerequisiteError: it is not installed.
    """
    if missing := _missing():
        raise PrerequisiteError(f"{benchmark.name} needs {missing[0].name}: {missing[0].fix}")
    refuse_options(benchmark, request, takes=("max_new_tokens",))
    if request.prompt_style == "completion":
        raise UsageError(f"--prompt-style completion: {benchmark.name} is asked by chat alone.")
    if request.data is None:
        return DataSet(name=dataset)
    table = request.data / f"{dataset}.tsv"
    if not table.is_file():
        raise UsageError(f"--data {request.data}: give a folder that holds {table.name}.")
    sha256 = hashlib.sha256(table.read_bytes()).hexdigest()
    return DataSet(name=dataset, table=str(table.resolve()), sha256=sha256)


def _folder(benchmark: Benchmark, request: Request) -> Path:
    return request.out / file_stem(benchmark.name, "chat")


def _ask(benchmark: Benchmark, request: Request, subject: Subject, dataset: DataSet) -> None:
    """Let the harness ask the model and score it.

    What it asked in an earlier call of the same model with the same settings is not asked again,
    unless ``request.fresh``.

    Raises:
        UsageError: it is a data set that is not run.
        EvaluationError: the harness failed; with the end of its log.
    """
    folder = _folder(benchmark, request)
    options: dict[str, object] = {"system_prompt": request.decoding.system_prompt}
    if not request.own_max_new_tokens:
        options["max_new_tokens"] = request.decoding.max_new_tokens
    for name in ("min_pixels", "max_pixels"):
        if getattr(request, name) is not None:
            options[name] = getattr(request, name)
    settings = {
        "dataset": dataset.name,
        "own_tables": dataset.table is not None,
        "table_sha256": dataset.sha256,
        "model": request.model,
        "model_sha256": subject.sha256,
        "dtype": request.dtype or DEFAULT_DTYPE,
        "limit": request.limit,
        "options": options,
    }
    text = json.dumps(settings, indent=2)
    run = folder / RUN
    if request.fresh or not run.is_file() or run.read_text(encoding="utf-8") != text:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    run.write_text(text, encoding="utf-8")
    (folder / SCORES).unlink(missing_ok=True)
    log = folder / "log"
    sys.stderr.write(f"{request.label} {benchmark.name}: its log is {log}\n")
    words = [sys.executable, "-P", "-m", "dft_eval.vlmevalkit.driver", str(folder.resolve())]
    status = run_logged(words, log, _environment(folder, dataset))
    if status or not (folder / SCORES).is_file():
        raise EvaluationError(
            f"{benchmark.name}: the harness ended with status {status}. The end of {log}:\n"
            f"{tail(log)}"
        )
    refused = json.loads((folder / SCORES).read_text(encoding="utf-8")).get(REFUSED)
    if refused is not None:
        raise UsageError(refused)


def _environment(folder: Path, dataset: DataSet) -> dict[str, str]:
    """One process, tab-separated predictions, and the user's table in a folder of its own."""
    ranks = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    environment = {key: value for key, value in os.environ.items() if key not in ranks}
    environment |= {"PRED_FORMAT": "tsv", "EVAL_FORMAT": "csv"}
    if dataset.table is not None:
        tables = folder / TABLES
        tables.mkdir(exist_ok=True)
        link = tables / Path(dataset.table).name
        link.unlink(missing_ok=True)
        link.symlink_to(dataset.table)
        environment["LMUData"] = str(tables.resolve())
    return environment


def _scorer(
    benchmark: Benchmark, request: Request, dataset: DataSet
) -> Callable[[Rows], BenchmarkResult]:
    """Reads the harness's verdicts; needs nothing installed."""
    return partial(_score, benchmark, request)


def _score(benchmark: Benchmark, request: Request, rows: Rows) -> BenchmarkResult:
    """The result, with the score that the harness printed."""
    scored = read_scores(_folder(benchmark, request))
    notes = [
        "asked with the harness's prompts of "
        + ("the model" if scored.custom_prompt else "the data set")
    ]
    if scored.n_asked < scored.available:
        notes.append(f"partial: {scored.n_asked} of {scored.available}")
    if scored.split is not None:
        notes.append(f"split {scored.split}")
    if scored.n_asked > len(scored.items) and scored.split is None:
        notes.append("a question is right where it is in all rotations of its choices")
    if scored.n_nan:
        notes.append(f"{scored.n_nan} empty answers, which the harness judges as the text 'nan'")
    result = finish(
        benchmark,
        request,
        scored.items,
        metric=scored.metric,
        style="chat",
        harness=f"VLMEvalKit {scored.version} ({scored.dataset_class})",
        decoding={
            "strategy": GREEDY,  # top_k 1 of the harness's sampling
            "generate": scored.generate,
            "min_pixels": scored.pixels[0],
            "max_pixels": scored.pixels[1],
            "table_sha256": scored.table_sha256,
        },
        notes=notes,
        breakdown=scored.breakdown,
    )
    return as_printed(result, scored.score, None)
