"""Apply the patch table to modules as they load, say what became of each patch, undo it."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
import traceback
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any

from dft_factory.errors import DftFactoryError, UpstreamContractError
from dft_factory.patch.contract import llamafactory_folder, unknown_targets
from dft_factory.patch.table import (
    INSTALL_LLAMAFACTORY,
    PATCHES,
    SUPPORTED_LLAMAFACTORY,
    Patch,
)

WAITING, APPLIED, FAILED, UNSUPPORTED = "waiting", "applied", "failed", "unsupported"


@dataclass(frozen=True)
class PatchStatus:
    """What became of one patch in this process. ``detail`` says why, where there is a why."""

    patch: Patch
    state: str
    detail: str = ""


@dataclass(frozen=True)
class _Applied:
    module: ModuleType
    original: Any
    replacement: Any


_applied: dict[str, _Applied] = {}
_failures: dict[str, str] = {}


def llamafactory_version() -> str | None:
    """Version of the LLaMA-Factory that this process would run; None where there is none.

    Read from the source that would be imported, since a checkout on the path may differ from the
    installed metadata.
    """
    folder = llamafactory_folder()
    if folder is not None and (source := folder / "extras" / "env.py").is_file():
        match = re.search(
            r"""^VERSION\s*=\s*["']([^"']+)["']""", source.read_text("utf-8"), re.MULTILINE
        )
        if match:
            return match.group(1)
    try:
        return importlib.metadata.version("llamafactory")
    except importlib.metadata.PackageNotFoundError:
        return None


INSTALL_SUPPORTED = f"Install a supported release: `{INSTALL_LLAMAFACTORY}`."


def unsupported_reason() -> str:
    """Why our objectives are refused where LLaMA-Factory's sources are unknown."""
    return (
        f"LLaMA-Factory {llamafactory_version()} is not supported by this dft-factory: "
        f"{', '.join(unknown_targets())} differs from the supported releases "
        f"({', '.join(SUPPORTED_LLAMAFACTORY)}). Stock runs are untouched"
    )


def _load(factory: str) -> Any:
    module, _, function = factory.partition(":")
    return getattr(importlib.import_module(module), function)


def _check_hooks(patch: Patch, original: Any) -> None:
    missing = [name for name in patch.requires if not hasattr(original, name)]
    if missing:
        requirements = importlib.metadata.requires("dft-factory") or ()
        line = next(line for line in requirements if line.startswith("transformers"))
        transformers = line.partition(";")[0].strip()
        raise UpstreamContractError(
            f"transformers {importlib.metadata.version('transformers')} has no "
            f"{', '.join(missing)}. Install another: `pip install '{transformers}'`"
        )


def apply_to(module: ModuleType) -> None:
    """Apply every patch of ``module``; called right after the module has run.

    A patch that fails leaves LLaMA-Factory's attribute as it was, so that stock runs go on; runs
    with our objectives are then refused by :func:`require_intact`.
    """
    supported = not unknown_targets()
    for patch in PATCHES:
        if patch.module != module.__name__ or patch.name in _applied:
            continue
        factory = patch.factory if supported else patch.on_unsupported
        if factory is None:
            continue
        try:
            # Not getattr, whose error blames a circular import: the module is still being imported.
            if patch.attribute not in vars(module):
                raise UpstreamContractError(f"{patch.module} has no {patch.attribute}")
            original = vars(module)[patch.attribute]
            if supported:
                _check_hooks(patch, original)
            replacement = _load(factory)(original)
            setattr(module, patch.attribute, replacement)
        except Exception as error:
            _failures[patch.name] = f"{type(error).__name__}: {error}"
            if supported:
                sys.stderr.write(
                    f"dft-factory: cannot patch {patch.target} ({_failures[patch.name]}). Stock "
                    "runs are untouched, runs with dft or sft objectives are refused. "
                    "`dft-factory doctor` says more.\n"
                )
        else:
            _applied[patch.name] = _Applied(module, original, replacement)
            _failures.pop(patch.name, None)
    _show_our_errors_without_traceback()


def status() -> list[PatchStatus]:
    """What became of every patch in this process."""
    unknown = unknown_targets()
    rows: list[PatchStatus] = []
    for patch in PATCHES:
        if patch.name in _failures:
            rows.append(PatchStatus(patch, FAILED, _failures[patch.name]))
        elif unknown:
            detail = f"LLaMA-Factory {llamafactory_version()}: unknown {', '.join(unknown)}"
            rows.append(PatchStatus(patch, UNSUPPORTED, detail))
        elif patch.name not in _applied:
            loaded = patch.module in sys.modules
            detail = "its module was imported before activation" if loaded else ""
            rows.append(PatchStatus(patch, FAILED if loaded else WAITING, detail))
        elif getattr(_applied[patch.name].module, patch.attribute, None) is not (
            _applied[patch.name].replacement
        ):
            rows.append(PatchStatus(patch, FAILED, "replaced again by somebody else"))
        else:
            rows.append(PatchStatus(patch, APPLIED))
    return rows


def require_intact() -> None:
    """Raise unless every patch holds whose module is loaded.

    Raises:
        UpstreamContractError: a patch is missing, so that a run with one of our objectives would
            train something else than asked.
    """
    broken = [row for row in status() if row.state == FAILED]
    if broken:
        listed = "; ".join(f"{row.patch.target}: {row.detail}" for row in broken)
        raise UpstreamContractError(
            f"The patch of LLaMA-Factory is broken ({listed}), so this run would train plain SFT. "
            "It is refused. Run `dft-factory doctor`."
        )


def revert() -> None:
    """Undo every patch: each attribute is LLaMA-Factory's own again, and no new one is patched.

    Copies that other modules took by ``from X import Y`` keep what they copied.
    """
    from dft_factory import startup

    startup.uninstall()
    for patch in reversed(PATCHES):
        done = _applied.pop(patch.name, None)
        if done is not None:
            setattr(done.module, patch.attribute, done.original)
    _failures.clear()
    if isinstance(sys.excepthook, _ErrorPrinter):
        sys.excepthook = sys.excepthook.former


class _ErrorPrinter:
    """Prints our own errors as one message; leaves every other exception to the former hook."""

    def __init__(self, former: Any) -> None:
        self.former = former
        self.dataset = ""

    def __call__(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if isinstance(error, DftFactoryError):
            sys.stderr.write(f"dft-factory: {error}\n")
        elif self.dataset and kind.__name__ == "DatasetGenerationError":  # of datasets
            sys.stderr.write(
                f"dft-factory: dataset: {self.dataset}: a record cannot be read: "
                f"{error.__cause__}. The file is named above. Correct or remove the record; "
                "checkpoints are untouched.\n"
            )
        elif self.former is not None:
            self.former(kind, error, trace)
        else:
            traceback.print_exception(kind, error, trace)


def explain_unreadable_records(dataset: str) -> None:
    """One message instead of a traceback that names neither record nor reason."""
    if isinstance(sys.excepthook, _ErrorPrinter):
        sys.excepthook.dataset = dataset


def _show_our_errors_without_traceback() -> None:
    if not isinstance(sys.excepthook, _ErrorPrinter):
        sys.excepthook = _ErrorPrinter(sys.excepthook)
