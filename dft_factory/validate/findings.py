"""One thing wrong with one file, and how a list of them is shown."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """What is wrong with ``key`` of ``file``, and what mends it.

    ``key`` names several keys, joined by ``, ``, where they clash with one another, and is ``-``
    where the whole file is meant. An error stops a run or makes it train something else than
    asked; a warning may depend on this machine.
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
    """One line a finding, ``file: key: message``; empty where nothing was found."""
    return "".join(f"{finding}\n" for finding in findings)


def near(value: object, choices: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the choice nearest to ``value``, or nothing."""
    found = difflib.get_close_matches(str(value), list(choices), n=1, cutoff=0.7)
    return f" Did you mean {found[0]!r}?" if found else ""
