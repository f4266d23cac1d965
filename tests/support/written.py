"""Answers written by hand, scored by the real benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dft_eval.benchmark import Benchmark, JudgeChoice, PixelRange, Request
from dft_eval.benchmarks import evaluate
from dft_eval.errors import EvaluationError
from dft_eval.generation.run import Completion, Decoding, Failure, Prompt, cut
from dft_eval.results import BenchmarkResult, read_results
from tests.support.vlm_tables import write_table


@dataclass
class Written:
    """A model with answers written by hand, by prompt id; None is a failed prompt.

    Attributes:
        cut_off: ids of answers that reached max_new_tokens.
        asked: the prompts so far.
    """

    answers: dict[str, str | None]
    cut_off: Collection[str] = ()
    sha256: str | None = None
    identity: str = "by hand"
    pixels: list[PixelRange] = field(default_factory=list)
    asked: list[Prompt] = field(default_factory=list)
    decoding: Decoding | None = None

    def record(self) -> dict[str, Any]:
        return {}

    @property
    def text(self) -> Any:
        return self

    def vision(self, pixels: PixelRange) -> Any:
        self.pixels.append(pixels)
        return self

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        return [list(range(len(prompts)))]

    def complete(
        self, prompts: Sequence[Prompt], decoding: Decoding, _: Callable[[Completion], None]
    ) -> list[Completion | Failure]:
        self.asked += prompts
        self.decoding = decoding
        return [
            Failure(prompt.id, "no answer came")
            if (answer := self.answers[prompt.id]) is None
            else Completion(
                id=prompt.id,
                prompt=prompt.text,
                completion=cut(answer, decoding.stop)[0],
                finish_reason="length" if prompt.id in self.cut_off else "stop",
                n_tokens=1,
            )
            for prompt in prompts
        ]


def run(
    benchmark: Benchmark,
    folder: Path,
    rows: list[dict[str, Any]],
    answers: Sequence[str | None],
    *,
    judge: JudgeChoice | None = None,
    **changes: Any,
) -> BenchmarkResult:
    tables = {"mathvision": "MathVision", "mathverse": "MathVerse_MINI", "wemath": "WeMath"}
    write_table(folder / "data" / f"{tables[benchmark.name]}.tsv", rows)
    by_id = {str(row["index"]): text for row, text in zip(rows, answers, strict=True)}
    changes |= {"data": folder / "data", "judge": judge}
    request = Request("by hand", folder / "out", "hand", **changes)
    return evaluate_with(benchmark, request, Written(by_id))


def evaluate_with(benchmark: Benchmark, request: Request, subject: Any) -> BenchmarkResult:
    """``dft_eval.benchmarks.evaluate`` of one benchmark with this model; items may be unscored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dft_eval.benchmarks.open_subject", lambda *_: subject)
        try:
            evaluate([benchmark.name], request)
        except EvaluationError as error:
            if not str(error).startswith("Items without a score"):
                raise
    rows = read_results(request.out).results
    style = request.prompt_style or benchmark.default_style
    key = (benchmark.name, style)
    (row,) = (row for row in rows if (row.benchmark, row.prompt_style) == key)
    return row
