"""Errors of an evaluation, by the exit status that they lead to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EvaluationError(Exception):
    """Base: an evaluation that did not do all that was asked (exit status 1)."""

    exit_status = 1


class UnscoredError(EvaluationError):
    """Everything was done, but some items have no score."""


class UsageError(EvaluationError, ValueError):
    """A wrong option or malformed data file (exit status 2)."""

    exit_status = 2


class PrerequisiteError(EvaluationError):
    """Something missing on this machine; the message ends with the fix (exit status 3)."""

    exit_status = 3


def did_you_mean(value: str, choices: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the choice nearest to ``value``, or nothing."""
    near = difflib.get_close_matches(value, list(choices), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
