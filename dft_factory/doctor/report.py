"""What ``dft-factory doctor`` found: plain frozen data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

BROKEN, PREREQUISITE = 1, 3
"""Exit status of a problem: something here is broken, or something must be installed first."""

SWITCHED_OFF = "switched off"
"""State of the activation, and of every patch, under ``TORCH_DEVICE_BACKEND_AUTOLOAD=0``."""


@dataclass(frozen=True)
class Version:
    """One package or program. ``version`` is None where it is not installed."""

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
    """Whether ``import torch`` wakes this package up.

    Attributes:
        state: ``on``, ``switched off`` (by the environment) or ``broken``.
        entry_point: the ``torch.backends`` entry point of this distribution, None without one.
        autoload_file: the file that it names, None where it cannot be found.
    """

    state: str
    entry_point: str | None
    autoload_file: str | None


@dataclass(frozen=True)
class PatchRow:
    """One row of the patch table and what became of it in a fresh process.

    ``state`` is ``applied``, ``failed``, ``unsupported``, ``switched off`` or ``unknown``;
    ``detail`` says why, where there is a why.
    """

    name: str
    target: str
    change: str
    reason: str
    test: str
    state: str
    detail: str


@dataclass(frozen=True)
class Lack:
    """One thing that a benchmark lacks here, and the command that mends it.

    Without ``blocks`` the rest of the benchmark runs all the same.
    """

    what: str
    mend: str
    blocks: bool = True


@dataclass(frozen=True)
class BenchmarkRow:
    """One benchmark; it can run here if nothing is missing that blocks it."""

    name: str
    summary: str
    missing: tuple[Lack, ...]


@dataclass(frozen=True)
class ToolchainRow:
    """The compiler or interpreter of one language. ``version`` is None where it is missing."""

    language: str
    version: str | None
    missing: Lack | None = None


@dataclass(frozen=True)
class Problem:
    """A reason why DFT cannot be selected, its mend, and the exit status it leads to."""

    what: str
    mend: str
    status: int


@dataclass(frozen=True)
class Report:
    """Everything that ``dft-factory doctor`` says."""

    versions: tuple[Version, ...]
    supported_llamafactory: tuple[str, ...]
    gpus: tuple[Gpu, ...] | None
    """None where torch could not be asked."""
    activation: Activation
    patches: tuple[PatchRow, ...]
    benchmarks: tuple[BenchmarkRow, ...]
    warnings: tuple[str, ...]
    problems: tuple[Problem, ...]
    toolchains: tuple[ToolchainRow, ...] = ()
    loss_head: str = ""
    """Whether Triton or plain torch computes it, and why; empty where torch cannot be imported."""


def exit_status(report: Report) -> int:
    """0 unless the patch is broken.

    * 3: torch or LLaMA-Factory is not installed, or LLaMA-Factory is a release for which there are
      no patches; installing one mends it.
    * 1: everything is installed and DFT cannot be selected all the same: a patch failed, the entry
      point is missing or broken, torch or LLaMA-Factory cannot be imported.
    * 0 with a warning: activation was switched off on purpose (``TORCH_DEVICE_BACKEND_AUTOLOAD``),
      the environment selects a trainer under which DFT is refused, or a benchmark cannot run here.
    """
    statuses = {problem.status for problem in report.problems}
    if PREREQUISITE in statuses:
        return PREREQUISITE
    return BROKEN if statuses else 0


def to_json(report: Report) -> dict[str, Any]:
    """The report as JSON data, with the exit status that it leads to."""
    return {**asdict(report), "exit_status": exit_status(report)}
