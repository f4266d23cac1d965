"""What an evaluation needs and a machine may not have. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MissingRequirement:
    """Something that a benchmark or a language needs and this machine does not have.

    Attributes:
        fix: the command that installs it.
        blocks: whether the benchmark cannot run at all without it.
    """

    name: str
    fix: str
    blocks: bool = True
