"""Packed rows train the tokens that their examples train apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bench
from tests.support.cli import Run, relative_error, train


def _train(bench: Bench, folder: Path, **changes: Any) -> Run:
    """One step on all eight examples, which fit into one packed row."""
    settings = {"cutoff_len": 1024, "per_device_train_batch_size": 8, **changes}
    return train(bench.config(**settings), folder).ok()


def _labelled_tokens(run: Run) -> int:
    (row,) = (run.folder / "token_probabilities.jsonl").read_text().splitlines()
    return int(json.loads(row)["n_tokens"])


@pytest.mark.cli
@pytest.mark.parametrize("train_on_prompt", [False, True])
@pytest.mark.parametrize("modality", ["text", "vl"])
def test_neat_packing_changes_no_gradient(
    request: pytest.FixtureRequest, tmp_path: Path, modality: str, train_on_prompt: bool
) -> None:
    """LLaMA-Factory labels an example's first token under train_on_prompt. In a packed row it
    would be predicted from the end of the example before: 837 tokens instead of 830.
    """
    bench = request.getfixturevalue(f"{modality}_bench")
    apart = _train(bench, tmp_path / "apart", train_on_prompt=train_on_prompt)
    packed = _train(bench, tmp_path / "packed", train_on_prompt=train_on_prompt, neat_packing=True)
    assert _labelled_tokens(packed) == _labelled_tokens(apart)
    assert relative_error(packed.gradients, apart.gradients) < 1e-6


@pytest.mark.cli
def test_pretokenized_packing_has_the_same_labels(text_bench: Bench, tmp_path: Path) -> None:
    """``tokenized_path`` ignores every data argument: only the rows tell that they are packed."""
    tokenized = str(tmp_path / "tokenized")
    apart = _train(text_bench, tmp_path / "apart", train_on_prompt=True)
    _train(
        text_bench,
        tmp_path / "packed",
        train_on_prompt=True,
        packing=True,
        tokenized_path=tokenized,
    )
    again = _train(text_bench, tmp_path / "again", tokenized_path=tokenized)
    assert _labelled_tokens(again) == _labelled_tokens(apart)
