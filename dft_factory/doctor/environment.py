"""Activation of this package, and settings of the shell that change what a training run does."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dft_factory
from dft_factory.doctor.report import BROKEN, SWITCHED_OFF, Activation, Problem
from dft_factory.patch.table import OTHER_TRAINERS

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
REINSTALL = (
    "Reinstall dft-factory the way it was installed (in a checkout: `bash scripts/setup.sh`)."
)


def check_activation(
    probed: Mapping[str, Any], torch_installed: bool, switched_off: bool
) -> tuple[Activation, list[Problem]]:
    entries = importlib.metadata.entry_points(group="torch.backends")
    entry = next((entry for entry in entries if entry.name == "dft_factory"), None)
    file = _module_file(entry.module) if entry is not None else None
    message = None
    if entry is None:
        message = (
            "this environment has no torch.backends entry point named dft_factory, so `import "
            "torch` does not activate dft-factory"
        )
    elif file is None:
        message = f"the entry point is {entry.value}, and there is no module {entry.module}"
    elif probed and not probed["active"] and not probed["torch_error"] and not switched_off:
        reason = (
            " ".join(probed.get("messages", ())) or "torch older than 2.5 reads no entry points"
        )
        message = f"`import torch` does not activate dft-factory: {reason}"
    problems = [Problem(message, REINSTALL, BROKEN)] if message else []
    if problems:
        state = "broken"
    elif switched_off:
        state = SWITCHED_OFF
    else:
        state = "on" if probed.get("active") else ("unknown" if torch_installed else "broken")
    return Activation(state, None if entry is None else entry.value, file), problems


def _module_file(name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return None if spec is None else spec.origin


def stale_autoload_warnings(file: str | None) -> list[str]:
    """A warning if the installed file differs from its source, which an editable install copies."""
    source = Path(dft_factory.__file__).with_name("_autoload.py")
    try:
        # A wheel has no copy in the package.
        if file is None or not source.exists() or Path(file).read_bytes() == source.read_bytes():
            return []
    except OSError as error:
        return [f"the autoload file cannot be compared with its source: {error}."]
    return [f"{file} is of another version of dft-factory. {REINSTALL}"]


def environment_warnings(environment: Mapping[str, str]) -> list[str]:
    warnings = [
        f"{variable}={environment[variable]} selects {name}, under which finetuning_type: dft is "
        f"refused. `unset {variable}` to train with it."
        for variable, name in OTHER_TRAINERS.items()
        if environment.get(variable, "0").lower() in ("true", "y", "1")
    ]
    if environment.get(NO_BYTECODE):
        warnings.append(
            f"{NO_BYTECODE}={environment[NO_BYTECODE]}: each process compiles LLaMA-Factory's "
            f"imports again, 47 s instead of 18 on two cores. `unset {NO_BYTECODE}`."
        )
    here = Path(sys.executable).parent / "llamafactory-cli"
    cli = shutil.which("llamafactory-cli", path=environment.get("PATH"))
    if cli is not None and Path(cli).resolve().parent != here.resolve().parent:
        warnings.append(
            f"`llamafactory-cli` on PATH is {cli}, in another environment than this one "
            f"({here.parent}). Activate this one: `source {here.parent / 'activate'}`."
        )
    return warnings
