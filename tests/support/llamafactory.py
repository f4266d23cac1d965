"""Copies of the installed LLaMA-Factory with some of its sources changed."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path


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


def has_argument(name: str) -> bool:
    """Whether FinetuningArguments has this field, which older releases lack; imports nothing."""
    source = package_folder() / "hparams" / "finetuning_args.py"
    return f"\n    {name}: " in source.read_text("utf-8")
