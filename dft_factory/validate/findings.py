"""A problem in a configuration file, and how a list of them is printed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """What is wrong with ``key`` of ``file``, and the fix.

    ``key`` is several keys, joined by ``, ``, if they conflict, and ``-`` for the file as a whole.
    An error stops a run or makes it train something else than asked; a warning may depend on this
    machine.
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


def near(value: object, choices: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the choice nearest to ``value``, or nothing."""
    matches = difflib.get_close_matches(str(value), list(choices), n=1, cutoff=0.7)
    return f" Did you mean {matches[0]!r}?" if matches else ""
