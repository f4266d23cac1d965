"""Rows of results.json."""

from __future__ import annotations

from typing import Any

from dft_eval.results import BenchmarkResult


def result(benchmark: str = "humaneval", **changes: Any) -> BenchmarkResult:
    """A row of four items, half of them passed."""
    row = {"benchmark": benchmark, "metric": "pass@1", "score": 0.5, "stderr": 0.1, "seed": 0}
    row |= {"n_total": 4, "n_scored": 4, "items": f"{benchmark}.items.jsonl", "harness": "h 1"}
    return BenchmarkResult.model_validate({**row, "prompt_style": "chat", **changes})
