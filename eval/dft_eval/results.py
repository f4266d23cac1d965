"""The result schema: the one thing that every benchmark adapter returns.

``results.json`` holds one :class:`ResultFile`; beside it lies one JSONL of items a benchmark, from
which every interval and paired comparison is made. Scores are fractions; ``None`` means unscored,
which is never the same as wrong.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dft_eval.errors import UsageError
from dft_eval.statistics import mean_and_stderr

SCHEMA_VERSION = 1
RESULTS_NAME = "results.json"
GREEDY = "greedy"


class ItemScore(BaseModel):
    """One item of a benchmark: its id, its score (0..1, or ``None`` for unscored) and why.

    ``cluster`` names what the items of one problem share; ``None`` where an item is a problem of
    its own. ``category`` is the part of the benchmark that it belongs to, ``pictures`` the files
    that the model saw.
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    score: float | None = Field(default=None, ge=0.0, le=1.0)
    reason: str = ""
    cluster: str | None = None
    category: str | None = None
    pictures: tuple[str, ...] = ()


class BenchmarkResult(BaseModel):
    """One benchmark's score.

    Attributes:
        stderr: standard error of the mean over scored items, robust to clusters.
        cluster: what items are clustered by; None where every item is its own.
        sandbox: what held the model's programs (``none``: ``--unsafe-no-sandbox``); None where
            no program runs.
        n_completions: with ``samples`` more than the items; None in results of earlier versions.
        n_truncated: completions cut at ``max_new_tokens``.
        n_empty: completions without a text.
        mean_tokens: of a completion.
        mean_entropy: nats a token, the mean over completions of each one's own
            (:class:`~dft_eval.generation.run.Completion`); None where one of them has none.
    """

    model_config = ConfigDict(extra="forbid")

    benchmark: str
    metric: str
    score: float | None = Field(ge=0.0, le=1.0)
    stderr: float | None = Field(ge=0.0)
    n_total: int = Field(ge=0)
    n_scored: int = Field(ge=0)
    cluster: str | None = None
    breakdown: dict[str, float | None] = Field(default_factory=dict)
    items: str
    harness: str
    prompt_style: Literal["completion", "chat"]
    decoding: dict[str, Any] = Field(default_factory=dict)
    judge: str | None = None
    seed: int = 0
    n_completions: int | None = Field(default=None, ge=0)
    n_truncated: int | None = Field(default=None, ge=0)
    n_empty: int | None = Field(default=None, ge=0)
    mean_tokens: float | None = Field(default=None, ge=0.0)
    mean_entropy: float | None = None
    notes: list[str] = Field(default_factory=list)
    sandbox: str | None = None

    @property
    def decoding_name(self) -> str:
        """``greedy`` or ``temperature 0.7, top-p 0.95``; empty where it is not recorded.

        With ``--match-entropy`` that of the results that are matched, since it is compared with
        them.
        """
        if "match_entropy" in self.decoding:
            return str(self.decoding["match_entropy"]["decoding"])
        strategy, temperature = self.decoding.get("strategy"), self.decoding.get("temperature")
        if strategy == GREEDY or not isinstance(temperature, int | float):
            return str(strategy or "")
        limits = [
            f"{name.replace('_', '-')} {self.decoding[name]}"
            for name, neutral in (("top_p", 1), ("top_k", -1), ("min_p", 0))
            if self.decoding.get(name, neutral) != neutral
        ]
        return ", ".join([f"temperature {temperature:g}", *limits])


class Training(BaseModel):
    """How a model was trained, as far as its folder says.

    Attributes:
        objective: ``dft`` or ``sft``, or another that dft-factory trains.
        method: ``full``, ``lora``, ``freeze`` or ``oft``.
        dataset: names of the training data sets.
        weight: token weight of the objective, ``token`` or ``floor:0.1``.
        seed: of the training; runs that differ in it alone are one row of a report.
        variant: name of the recipe in an experiment.
        step: optimizer steps behind the weights; None in results of earlier versions too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    objective: str | None = None
    method: str | None = None
    dataset: tuple[str, ...] = ()
    weight: str | None = None
    seed: int | None = None
    variant: str | None = None
    step: int | None = Field(default=None, ge=0)


class ResultFile(BaseModel):
    """The whole ``results.json`` of one model; ``training`` is None where nothing is recorded."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    model: str
    model_sha256: str | None
    base_model: str | None = None
    label: str
    training: Training | None = None
    results: list[BenchmarkResult] = Field(default_factory=list)


def summarise(items: Iterable[ItemScore]) -> dict[str, Any]:
    """``score``, ``stderr``, ``n_total`` and ``n_scored`` of a benchmark, from its items."""
    rows = list(items)
    scored = [row for row in rows if row.score is not None]
    clusters = [row.cluster or row.id for row in scored]
    score, stderr = mean_and_stderr([row.score or 0.0 for row in scored], clusters)
    return {"score": score, "stderr": stderr, "n_total": len(rows), "n_scored": len(scored)}


def atomic_write(path: Path, text: str) -> None:
    """Write ``text`` so that a reader, or a kill of this process, never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Waits until no other command writes into ``folder``: it would drop what this one wrote.

    On a file system without locks, as some clusters have, a line on stderr says so instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"{folder}: waiting for another command that writes into it\n")
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            sys.stderr.write(
                f"{folder}: this file system has no locks; run one command at a time in it\n"
            )
        yield


def write_items(path: Path, items: Iterable[ItemScore]) -> None:
    """Write the items file of one benchmark."""
    atomic_write(path, "".join(item.model_dump_json() + "\n" for item in items))


def problems_path(folder: Path, row: BenchmarkResult) -> Path:
    """The items file of whole problems, where a benchmark scores those (WeMath)."""
    return folder / f"{row.items.removesuffix('.items.jsonl')}.problems.jsonl"


def read_utf8(path: Path) -> str:
    """The text of a file; :class:`UsageError` where it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}") from error


def read_items(path: Path) -> list[ItemScore]:
    """Read an items file; :class:`UsageError` names the line that is malformed."""
    rows: list[ItemScore] = []
    # Not splitlines(): JSON leaves U+2028 and its like inside a string unescaped.
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        if not line:
            continue
        try:
            rows.append(ItemScore.model_validate_json(line))
        except ValidationError as error:
            raise UsageError(f"{path}, line {number}: not an item score: {error}") from error
    return rows


def read_results(path: Path) -> ResultFile:
    """Read a ``results.json`` (or the folder that holds one)."""
    file = path / RESULTS_NAME if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"No results at {file}: run `dft-factory eval ... --out {file.parent}`.")
    try:
        return ResultFile.model_validate_json(read_utf8(file))
    except ValidationError as error:
        raise UsageError(f"{file} does not follow the result schema: {error}") from error


def merge_results(out: Path, header: ResultFile, new: Iterable[BenchmarkResult]) -> ResultFile:
    """Write ``new`` into ``out/results.json``.

    A benchmark scored again (same name and prompt style) replaces its former row. Results of
    another model in the same folder are refused: their items would be mixed up.
    """
    target = out / RESULTS_NAME
    rows: list[BenchmarkResult] = []
    if target.exists():
        former = read_results(target)
        if (former.model, former.model_sha256) != (header.model, header.model_sha256):
            raise UsageError(
                f"{target} holds the results of {former.model!r} (sha256 {former.model_sha256}), "
                f"not of {header.model!r} (sha256 {header.model_sha256}). Use another --out, or "
                "delete it."
            )
        rows = list(former.results)
    for result in new:
        key = (result.benchmark, result.prompt_style)
        rows = [row for row in rows if (row.benchmark, row.prompt_style) != key]
        rows.append(result)
    merged = header.model_copy(update={"results": rows})
    payload = json.loads(merged.model_dump_json())
    atomic_write(target, json.dumps(payload, indent=2, ensure_ascii=False) + "\n")
    return merged
