"""Errors that a user can meet. Each message names the value, the choices and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DftFactoryError(Exception):
    """Base of every error of this package; shown without a traceback by the command line."""


class ConfigError(DftFactoryError, ValueError):
    """A training or evaluation setting that cannot be honoured."""


class MissingDependencyError(DftFactoryError, ImportError):
    """Something that must be installed first; the message ends with the command."""


class UpstreamContractError(DftFactoryError, RuntimeError):
    """LLaMA-Factory, transformers or a model behaves differently from what the patch relies on."""


def did_you_mean(value: object, choices: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the choice nearest to ``value``, or nothing."""
    matches = difflib.get_close_matches(str(value), list(choices), n=1, cutoff=0.7)
    return f" Did you mean {matches[0]!r}?" if matches else ""
