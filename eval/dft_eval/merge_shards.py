"""Puts the shards of ``generate --shard K/N`` together, as one call would have left them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dft_eval import flow
from dft_eval.benchmark import Benchmark
from dft_eval.errors import UsageError
from dft_eval.flow import Generation, Run
from dft_eval.generation.run import Completion
from dft_eval.generation.shard import FOLDER, Shard
from dft_eval.results import atomic_write

_NAME = re.compile(r"(\d+)-of-(\d+)")
_OF_THE_MACHINE = (
    *("out", "shard", "fresh", "model", "data", "base_url", "serve"),
    "device_map",
    *("judge", "judge_workers", "sandboxed", "sandbox"),
)
"""Fields of a request in which shards may differ: places, and what only scoring uses."""
_PICTURES = re.compile(r'"[^"]*/(?=pictures/[^"/]*")')


def merge_shards(folder: Path, find: Callable[[Run], Benchmark]) -> None:
    """Write ``generation.json``, data and completions of all shards into ``folder``.

    Args:
        find: the benchmark of a run.

    Raises:
        UsageError: a shard is missing or unfinished, or was generated with other settings.
    """
    shards = _shards(folder)
    generations = {shard: flow.read_generation(shard.folder(folder)) for shard in shards}
    _refuse_other_models(folder, generations)
    first = generations[shards[0]]
    keys = dict.fromkeys(
        _key(run) for generation in generations.values() for run in generation.runs
    )
    runs = []
    for key in keys:
        named = {
            shard: run for shard in shards for run in generations[shard].runs if _key(run) == key
        }
        if len(named) < len(shards):
            unfinished = [shard for shard in shards if shard not in named]
            raise UsageError(_unfinished(folder, unfinished, f" of {key[0]} ({key[1]})"))
        runs.append(_merge_run(folder, find(named[shards[0]]), named))
    merged = first.model_copy(update={"runs": runs})
    atomic_write(folder / flow.GENERATION_NAME, f"{merged.model_dump_json(indent=2)}\n")


def present_shards(folder: Path) -> set[Shard]:
    """Those that were begun."""
    names = [_NAME.fullmatch(path.name) for path in (folder / FOLDER).iterdir()]
    return {Shard(int(name[1]), int(name[2])) for name in names if name}


def _shards(folder: Path) -> list[Shard]:
    """All shards, in order.

    Raises:
        UsageError: one is missing or unfinished, or there are those of several partitions.
    """
    totals = sorted({shard.total for shard in present_shards(folder)})
    if len(totals) != 1:
        raise UsageError(
            f"{folder / FOLDER} holds parts of {' and of '.join(map(str, totals)) or 'nothing'}: "
            "delete those that do not count."
        )
    shards = [Shard(number, totals[0]) for number in range(1, totals[0] + 1)]
    unfinished = [
        shard for shard in shards if not (shard.folder(folder) / flow.GENERATION_NAME).is_file()
    ]
    if unfinished:
        raise UsageError(_unfinished(folder, unfinished))
    return shards


def _unfinished(folder: Path, shards: Sequence[Shard], what: str = "") -> str:
    return (
        f"{folder}: not finished: shard {', '.join(map(str, shards))}{what}. Run its `dft-factory "
        f"generate ... --shard {shards[0]} --out {folder}` (again): what it completed is kept."
    )


def _refuse_other_models(folder: Path, generations: Mapping[Shard, Generation]) -> None:
    headers = {f"shard {shard}": header for shard, header in generations.items()}
    if (folder / flow.GENERATION_NAME).is_file():
        headers[flow.GENERATION_NAME] = flow.read_generation(folder)
    models = {name: header.model_sha256 or header.model for name, header in headers.items()}
    if len(set(models.values())) > 1:
        listed = ", ".join(f"{name} is of {model}" for name, model in models.items())
        raise UsageError(f"{folder} holds several models: {listed}. Use an --out for each.")


def _key(run: Run) -> tuple[str, str]:
    return run.benchmark, run.prompt_style


def _merge_run(folder: Path, benchmark: Benchmark, runs: Mapping[Shard, Run]) -> Run:
    """Write one benchmark's data and completions; gives its run."""
    first_shard, first = next(iter(runs.items()))
    settings = {shard: _settings(folder, shard, run) for shard, run in runs.items()}
    for shard, values in settings.items():
        for name, value in values.items():
            if value != settings[first_shard][name]:
                other = settings[first_shard][name]
                raise UsageError(
                    f"{folder}: {first.benchmark}: {name} of shard {shard} is {repr(value)[:80]}, "
                    f"of shard {first_shard} {repr(other)[:80]}. Generate one of them again."
                )
    failures = {id: reason for run in runs.values() for id, reason in run.failures.items()}
    data = flow.read_data(benchmark, first_shard.folder(folder), first)
    for part in benchmark.parts(benchmark, first.request, data):
        name = f"{part.stem}.completions.jsonl"
        lines: dict[str, str] = {}
        for shard in runs:
            path = shard.folder(folder) / name
            completed = {Completion.model_validate_json(line).id: line for line in _lines(path)}
            own = shard.select(part.prompts, part.decoding.samples)
            if any(prompt.id not in completed and prompt.id not in failures for prompt in own):
                raise UsageError(_unfinished(folder, [shard], f" of {part.stem}"))
            lines |= {prompt.id: completed[prompt.id] for prompt in own if prompt.id in completed}
        rows = (lines[prompt.id] for prompt in part.prompts if prompt.id in lines)
        atomic_write(folder / name, "".join(f"{line}\n" for line in rows))
    merged = first.model_copy(
        update={"failures": failures, "request": replace(first.request, out=folder, shard=None)}
    )
    text = flow.data_path(first_shard.folder(folder), first).read_text(encoding="utf-8")
    atomic_write(flow.data_path(folder, merged), text)
    return merged


def _settings(folder: Path, shard: Shard, run: Run) -> dict[str, Any]:
    """What must be the same for all shards, by name."""
    values = asdict(run.request)
    for name in _OF_THE_MACHINE:
        del values[name]
    values |= {f"decoding.{name}": value for name, value in values.pop("decoding").items()}
    del values["decoding.batch_size"]
    values["task"] = None if run.task is None else run.task.task
    values[flow.FINGERPRINT] = run.record.get(flow.FINGERPRINT)
    text = flow.data_path(shard.folder(folder), run).read_text(encoding="utf-8")
    values["data"] = _PICTURES.sub('"', text)
    return values


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]
