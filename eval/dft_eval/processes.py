"""Processes below another: list, measure and end them by ``/proc``, or let them end with it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time

from dft_eval.errors import EvaluationError

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_END_SECONDS = 10.0


def die_with_parent() -> None:
    """For ``preexec_fn``: the kernel kills this process when the one that started it ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Direct children of ``pid``; none if it is gone."""
    pids: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as stream:
                pids += [int(word) for word in stream.read().split()]
    except FileNotFoundError:
        if os.path.exists("/proc/thread-self/children"):
            return pids
        return _children_by_scan(pid)  # a kernel without CONFIG_PROC_CHILDREN
    except (ProcessLookupError, PermissionError):
        pass
    return pids


def _children_by_scan(pid: int) -> list[int]:
    numbers = [name for name in os.listdir("/proc") if name.isdigit()]
    return [int(name) for name in numbers if _stat(name)[1:2] == [str(pid)]]


def _stat(pid: int | str) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the state on; empty if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """All processes below ``pid``, parents before their children."""
    pids = children(pid)
    for child in pids:  # the list grows during the loop
        pids += children(child)
    return pids


def cpu_seconds(pids: list[int]) -> float:
    """Processor time of ``pids`` and of their reaped children."""
    return sum(sum(map(int, _stat(pid)[11:15])) for pid in pids) / _TICKS_PER_SECOND


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as stream:
            return int(stream.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    """Resident memory in which a page shared by n processes counts 1/n."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return _resident(pid)


def holds_more_than(pids: list[int], limit: int) -> bool:
    """Whether the resident memory of ``pids`` together exceeds ``limit`` bytes.

    The plain sum counts shared pages several times; the exact one is computed only if that is too
    high.
    """
    if sum(map(_resident, pids)) <= limit:
        return False
    return sum(map(_proportional, pids)) > limit


def end(process: subprocess.Popen[bytes], *, first_pid: int | None) -> None:
    """Kill ``process`` and all below it with SIGKILL, wait until they are gone, and reap it.

    In a PID namespace the kernel kills everything with its first process, ``first_pid``. We kill
    that one and let its parent, bubblewrap's monitor, reap it: killing the monitor first would
    leave a zombie to this host's process 1, which in a container often reaps nothing. Without a
    namespace (None) we kill the descendants until none is left, then the process itself; the
    launcher adopts orphans. Without a sandbox nobody does, and orphans escape.

    Raises:
        EvaluationError: something is still alive after 10 s.
    """
    running = process.poll() is None
    if first_pid is None and running:
        end_descendants(process.pid)
    pids = [first_pid] if first_pid is not None else []
    if first_pid is None and running:
        pids = descendants(process.pid)
    below = [(pid, born) for pid in pids if (born := _birth(pid)) is not None]
    if running:
        for pid, _ in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if first_pid is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_END_SECONDS / 2)
    if first_pid is None or process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + _END_SECONDS
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_END_SECONDS)
    while (alive := [pid for pid, born in below if _birth(pid) == born]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.001)
    if process.poll() is None or alive:
        raise EvaluationError(
            f"Processes {[process.pid, *alive]} of a sandbox survive SIGKILL (a hanging file "
            "system?). Look at them with `ps -o pid,stat,wchan,cmd`, and run the evaluation again."
        )


def end_descendants(pid: int) -> None:
    """Kill all descendants of ``pid`` until no new one appears (at most 10 s)."""
    deadline = time.monotonic() + _END_SECONDS
    while (alive := [p for p in descendants(pid) if is_alive(p)]) and (time.monotonic() < deadline):
        for child in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.001)


def is_alive(pid: int) -> bool:
    """Whether it runs; a process that ended and that nobody waited for does not."""
    return _birth(pid) is not None


def _birth(pid: int) -> str | None:
    """Start time of a live process in clock ticks, which identifies a reused pid; else None."""
    fields = _stat(pid)
    return None if not fields or fields[0] in ("Z", "X") else fields[19]
