"""Copies of the installed LLaMA-Factory with some of its sources changed."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest


def package_folder() -> Path:
    """Where the installed package is."""
    spec = importlib.util.find_spec("llamafactory")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def altered_copy(folder: Path, changes: Mapping[str, Callable[[str], str]]) -> str:
    """A copy in ``folder``, which goes first on the path; file of the package -> its new text."""
    package = Path(shutil.copytree(package_folder(), folder / "llamafactory"))
    for file, change in changes.items():
        text = (package / file).read_text("utf-8")
        (package / file).write_text(change(text), "utf-8")
    return str(folder)


def skip_without(attribute: str, since: str) -> None:
    """Skip a test of a FinetuningArguments field that older releases do not have."""
    from llamafactory.hparams import FinetuningArguments

    if not hasattr(FinetuningArguments, attribute):
        pytest.skip(f"LLaMA-Factory before {since} has no {attribute}")
