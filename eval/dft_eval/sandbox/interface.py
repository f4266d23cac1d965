"""What every sandbox offers: a place for one program."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dft_eval.sandbox.limits import RunConfig


@dataclass(frozen=True)
class Place:
    """Where one program runs.

    Attributes:
        home: the program's working directory, as it sees it.
        uid: the user that root drops to.
        confinement: rules that the launcher applies before the program starts.
        command: container command that starts the launcher with the standard streams only.
    """

    home: str
    uid: int
    confinement: Mapping[str, Any] | None = None
    command: tuple[str, ...] = ()

    @property
    def on_host(self) -> bool:
        """Whether it is confined in a working directory of the host."""
        return self.confinement is not None and not self.command


class Sandbox(Protocol):
    """One way to contain a program."""

    name: str
    namespaces: bool
    """Its own processes, users and mounts; ``bwrap`` starts the launcher."""
    protects_from: tuple[str, ...]
    does_not_protect_from: tuple[str, ...]

    def describe(self) -> str:
        """Name and version; PrerequisiteError if it is not available."""

    def place(self, config: RunConfig) -> contextlib.AbstractContextManager[Place]:
        """What one program needs while it runs."""
