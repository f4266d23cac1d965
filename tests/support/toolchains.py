"""Tests that need a compiler or interpreter are listed as not run where it is absent."""

from __future__ import annotations

from dft_eval.languages import LANGUAGES, unusable
from tests.conftest import not_run


def need(code: str) -> None:
    """Skip the calling test unless programs of this language can be judged here."""
    reason = unusable(LANGUAGES[code])
    if reason is not None:
        not_run(reason)
