"""The report of ``dft-factory doctor``: plain frozen data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dft_eval.requirements import MissingRequirement

BROKEN, PREREQUISITE = 1, 3
"""Exit status of a problem: something here is broken, or something must be installed first."""

SWITCHED_OFF = "switched off"
"""State of the activation, and of every patch, under ``TORCH_DEVICE_BACKEND_AUTOLOAD=0``."""


@dataclass(frozen=True)
class Version:
    """One package or program. ``version`` is None if it is not installed."""

    name: str
    version: str | None
    note: str = ""


@dataclass(frozen=True)
class Gpu:
    """One device that ``torch.cuda`` sees."""

    name: str
    memory_gib: float
    bf16: bool


@dataclass(frozen=True)
class Activation:
    """Whether ``import torch`` activates this package.

    Attributes:
        state: ``on``, ``switched off`` (by the environment) or ``broken``.
        entry_point: the ``torch.backends`` entry point of this distribution, None without one.
        autoload_file: the file that it names, None if it does not exist.
    """

    state: str
    entry_point: str | None
    autoload_file: str | None


@dataclass(frozen=True)
class PatchRow:
    """One row of the patch table and its state in a fresh process.

    ``state`` is ``applied``, ``failed``, ``unsupported``, ``switched off`` or ``unknown``;
    ``detail`` is the reason, if there is one.
    """

    name: str
    target: str
    change: str
    reason: str
    test: str
    state: str
    detail: str


@dataclass(frozen=True)
class BenchmarkRow:
    """One benchmark; it can run here if nothing is missing that blocks it."""

    name: str
    summary: str
    missing: tuple[MissingRequirement, ...]


@dataclass(frozen=True)
class ToolchainRow:
    """The compiler or interpreter of one language. ``version`` is None if it is missing."""

    language: str
    version: str | None
    missing: MissingRequirement | None = None


@dataclass(frozen=True)
class Problem:
    """A reason why DFT cannot be selected, its fix, and the exit status it leads to."""

    message: str
    fix: str
    status: int


@dataclass(frozen=True)
class Report:
    """All findings of ``dft-factory doctor``."""

    versions: tuple[Version, ...]
    supported_llamafactory: tuple[str, ...]
    gpus: tuple[Gpu, ...] | None
    """None if torch could not be imported."""
    activation: Activation
    patches: tuple[PatchRow, ...]
    benchmarks: tuple[BenchmarkRow, ...]
    warnings: tuple[str, ...]
    problems: tuple[Problem, ...]
    toolchains: tuple[ToolchainRow, ...] = ()
    loss_head: str = ""
    """Whether Triton or plain torch computes it, and why; empty if torch cannot be imported."""


def exit_status(report: Report) -> int:
    """0 unless the patch is broken.

    * 3: torch or a supported LLaMA-Factory must be installed first.
    * 1: both are installed and DFT still cannot be selected: a patch failed, the entry point is
      missing or broken, torch or LLaMA-Factory cannot be imported.
    * 0 with a warning: activation is switched off (``TORCH_DEVICE_BACKEND_AUTOLOAD``), the
      environment selects a trainer under which DFT is refused, or a benchmark cannot run here.
    """
    statuses = {problem.status for problem in report.problems}
    if PREREQUISITE in statuses:
        return PREREQUISITE
    return BROKEN if statuses else 0


def to_json(report: Report) -> dict[str, Any]:
    """The report as JSON data, with the exit status that it leads to."""
    return {**asdict(report), "exit_status": exit_status(report)}
