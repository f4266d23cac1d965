"""Score a model that is in memory, during its training, on the first items of a benchmark.

Prompts, decoding and rules are those of ``dft-factory eval``. No results folder is written.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_eval import sandbox
from dft_eval.benchmark import Benchmark, Part, Request
from dft_eval.benchmarks import BENCHMARKS, own_benchmark
from dft_eval.errors import UsageError, did_you_mean
from dft_eval.flow import as_trained
from dft_eval.generation.hf_text import HfTextBackend, complete_batch
from dft_eval.generation.run import Completion, Decoding
from dft_eval.own_tasks.task import is_task_path, read_task
from dft_eval.results import BenchmarkResult, ItemScore, read_items


@dataclass(frozen=True)
class Scored:
    """One scoring: the result, and each item's score and completion."""

    result: BenchmarkResult
    items: list[ItemScore]
    completions: list[Completion]


def text_benchmark(name: str) -> Benchmark:
    """A benchmark of text alone that asks neither a judge model nor a harness of its own.

    Args:
        name: of the table, or the path of a task file.

    Raises:
        UsageError: any other name, or a malformed task file.
    """
    able = [row.name for row in BENCHMARKS.values() if not row.options]
    if is_task_path(name):
        benchmark = own_benchmark(read_task(Path(name)))
        if not benchmark.options:
            return benchmark
        raise UsageError(f"{name}: metric judge asks another model. Choose another metric.")
    if name in able:
        return BENCHMARKS[name]
    raise UsageError(
        f"{name!r} is no benchmark of text alone. Choose from: {', '.join(able)}, or give the path "
        f"of a task file (.yaml).{did_you_mean(name, able)}"
    )


class InMemory:
    """The first ``limit`` items of ``benchmark``, loaded once; greedy decoding.

    Attributes:
        parts: the prompts.
        sandbox: what holds the model's programs; None where none run.
    """

    def __init__(self, benchmark: Benchmark, model: str, limit: int, batch_size: int) -> None:
        """Load the items and prove that they can be scored here.

        Args:
            model: folder of the training: with its system prompt a chat is asked.

        Raises:
            UsageError: malformed data.
            PrerequisiteError: the data, a package or the sandbox is missing.
        """
        self.sandbox = sandbox.select().name if benchmark.runs_programs else None
        self._folder = tempfile.TemporaryDirectory(prefix="dft-scores-")
        request = Request(
            model=model,
            out=Path(self._folder.name),
            label="training",
            limit=limit,
            decoding=Decoding(batch_size=batch_size),
            own_max_new_tokens=True,
        )
        request, _ = as_trained(benchmark, request)
        data = benchmark.load(benchmark, request)
        self.parts = benchmark.parts(benchmark, request, data)
        self._scorer = benchmark.scorer(benchmark, request, data)

    def check(self, tokenizer: Any) -> None:
        """Render and tokenize all prompts.

        Raises:
            UsageError: a chat, and the tokenizer has no template for it.
        """
        for part in self.parts:
            _batches(part, None, tokenizer)

    def score(self, model: Any, tokenizer: Any) -> Scored:
        """Complete the prompts and judge the completions.

        Args:
            model: of transformers, in evaluation mode.
        """
        rows = [_complete(part, model, tokenizer) for part in self.parts]
        result = self._scorer(rows)
        items = read_items(Path(self._folder.name) / result.items)
        return Scored(result, items, [row for part in rows for row in part])


def _batches(part: Part, model: Any, tokenizer: Any) -> list[list[int]]:
    return HfTextBackend("", lambda: (model, tokenizer)).batches(part.prompts, part.decoding)


def _complete(part: Part, model: Any, tokenizer: Any) -> list[Completion]:
    rows: dict[int, Completion] = {}
    for batch in _batches(part, model, tokenizer):
        prompts = [part.prompts[i] for i in batch]
        rows.update(
            zip(batch, complete_batch(model, tokenizer, prompts, part.decoding), strict=True)
        )
    return [rows[i] for i in range(len(part.prompts))]
