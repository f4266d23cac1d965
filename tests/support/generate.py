"""Completions where every prompt must have one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dft_eval.generation.resume import generate_each
from dft_eval.generation.run import Backend, Completion, Decoding, Prompt


def generate(
    prompts: Sequence[Prompt],
    decoding: Decoding,
    path: Path,
    *,
    backend: Backend,
    progress: Callable[[int, int], None],
) -> list[Completion]:
    """As :func:`generate_each`; a failure fails the test."""
    rows = generate_each(prompts, decoding, path, backend=backend, progress=progress)
    completions = [row for row in rows if isinstance(row, Completion)]
    assert len(completions) == len(prompts), rows
    return completions
