"""A problem in a configuration file, and how a list of them is printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning"]
Verdict = tuple[Severity, str, str]
"""(severity, key, message)"""


@dataclass(frozen=True)
class Finding:
    """What is wrong with ``key`` of ``file``, and the fix.

    ``key`` is several keys joined by ``, `` if they conflict, and ``-`` for the whole file. An
    error stops a run or changes what it trains; a warning may depend on this machine.
    """

    file: Path
    severity: Severity
    key: str
    message: str

    def __str__(self) -> str:
        mark = "warning: " if self.severity == "warning" else ""
        return f"{self.file}: {self.key}: {mark}{self.message}"


WHOLE = "-"
"""``key`` of a finding about the file as a whole."""


def exit_status(findings: Iterable[Finding]) -> int:
    """2 if there is an error, 0 otherwise; warnings do not count."""
    return 2 if any(finding.severity == "error" for finding in findings) else 0


def render_text(findings: Sequence[Finding]) -> str:
    """One line per finding, ``file: key: message``; empty if there are none."""
    return "".join(f"{finding}\n" for finding in findings)
