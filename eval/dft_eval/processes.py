"""Child processes that do not outlive us. Standard library only."""

from __future__ import annotations

import ctypes
import signal


def die_with_parent() -> None:
    """For ``preexec_fn``: the kernel kills this process when the one that started it ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
