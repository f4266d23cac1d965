"""Rows of a data set of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dft_eval.errors import PrerequisiteError


def load_split(hub_id: str, split: str, fix: str) -> Iterable[Mapping[str, Any]]:
    """The rows of one split.

    Args:
        fix: what to do where the hub is out of reach.

    Raises:
        PrerequisiteError: it cannot be loaded.
    """
    try:
        import datasets

        rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(hub_id, split=split)
    except Exception as error:  # of any of the libraries below it
        message = " ".join(str(error).split())[:300]
        raise PrerequisiteError(
            f"{hub_id} ({split}) cannot be loaded: {type(error).__name__}: {message}\n{fix}"
        ) from error
    return rows
