"""Run one program in one sandbox: feed it, watch it, end it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from dft_eval.sandbox import host, landlock, processes
from dft_eval.sandbox.backends import UNCONFINED, Place, Sandbox, selected
from dft_eval.sandbox.channels import Both, Channels, Output, Report
from dft_eval.sandbox.command import HOME, resource_limits
from dft_eval.sandbox.limits import ALL_PROTECTIONS, Completed, KilledFor, Limits, Protections
from dft_eval.sandbox.start import Pipes, spawn

_TICK_SECONDS = 0.05
_DEFAULT_LIMITS = Limits()


def check_program(
    solution: str,
    test: str,
    *,
    limits: Limits = _DEFAULT_LIMITS,
    protections: Protections = ALL_PROTECTIONS,
    backend: Sandbox | None = None,
) -> Completed:
    """Run ``solution`` and then ``test`` in one Python module; see :attr:`Completed.score`.

    Each is compiled by itself, so a solution cannot swallow the test in an open string. The module
    is not ``__main__``: guarded blocks do not run, as in HumanEval. Standard input is empty.

    Raises:
        PrerequisiteError: no bubblewrap or no Python that the sandbox's user can run.
        EvaluationError: a killed process does not go away.
    """
    job = {"commands": [], "solution": solution, "test": test}
    done = _run(job, {}, b"", (), {}, limits, protections, backend=backend)
    if protections.markers:
        return done
    return replace(done, finished=done.exit_code == 0)


def check_commands(
    commands: Sequence[Sequence[str]],
    *,
    files: Mapping[str, bytes],
    read_only: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    complaints: Sequence[str] = (),
    limits: Limits = _DEFAULT_LIMITS,
    protections: Protections = ALL_PROTECTIONS,
) -> Completed:
    """Compile and judge a program of any language; see :attr:`Completed.score`.

    The last of ``commands`` finds two secrets on its standard input, a line each, and passes by
    printing the second and then the first, put together, on standard output. That is the duty of
    the driver in ``files``, which reads them before model code runs wherever its language can, so
    that the program meets an empty standard input, and prints them once the tests have ended.

    Args:
        commands: Run one after the other, in one sandbox, until one fails.
        files, read_only, variables: as for :func:`run`.
        complaints: Texts that standard error of a passing program does not hold.
        limits: Wall time, memory, disk and output of all commands together; the rest of each.

    Raises:
        ValueError, PrerequisiteError, EvaluationError: as :func:`run`.
    """
    _check(commands, files)
    first, second = secrets.token_hex(16), secrets.token_hex(16)
    marker = second + first
    job = {"commands": [list(each) for each in commands], "input": f"{first}\n{second}\n"}
    done = _run(
        job, files, b"", read_only, variables or {}, limits, protections, marker, complaints
    )
    passed = done.exit_code == 0 and done.started and done.complaint is None
    if protections.markers:
        passed = passed and done.finished
    return replace(done, finished=passed, stdout=done.stdout.replace(marker, ""))


def run(
    command: Sequence[str],
    *,
    files: Mapping[str, bytes] | None = None,
    payload: bytes = b"",
    read_only: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    limits: Limits = _DEFAULT_LIMITS,
    protections: Protections = ALL_PROTECTIONS,
) -> Completed:
    """Run ``command`` in a sandbox of its own.

    Args:
        command: Program (looked for on the sandbox's PATH) and arguments.
        files: Written into the working directory before: relative path -> content.
        payload: Standard input.
        read_only: Host paths shown at the same place, read-only (a toolchain outside ``/usr``).
        variables: Environment beside PATH, LANG, HOME and TMPDIR.

    Raises:
        ValueError: no command, or a file whose path leads out of the working directory.
        PrerequisiteError, EvaluationError: as :func:`check_program`.
    """
    _check([command], files or {})
    job = {"commands": [list(command)], "input": None}
    done = _run(job, files or {}, payload, read_only, variables or {}, limits, protections)
    return replace(done, finished=done.started and done.exit_code == 0)


def _check(commands: Sequence[Sequence[str]], files: Mapping[str, bytes]) -> None:
    if not commands or not all(commands):
        raise ValueError("No command to run.")
    for name in files:
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
            raise ValueError(f"File {name!r}: give a relative path inside the working directory.")


class _Turns:
    """Many runs at once, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._closed = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Run beside others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for the others to end, and hold back new ones."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._closed = True
            self._changed.wait_for(lambda: self._running == 0)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()


_turns = _Turns()


def _run(
    job: Mapping[str, Any],
    files: Mapping[str, bytes],
    stdin: bytes,
    read_only: Sequence[str],
    variables: Mapping[str, str],
    limits: Limits,
    protections: Protections,
    marker: str = "",
    complaints: Sequence[str] = (),
    backend: Sandbox | None = None,
) -> Completed:
    """:func:`_run_once`, and once more alone where that run was too slow to judge by."""
    if not protections.sandbox:
        backend = UNCONFINED
    once = partial(
        _run_once,
        backend or selected(),
        job,
        files,
        stdin,
        read_only,
        variables,
        limits,
        protections,
        marker,
        complaints,
    )
    with _turns.shared():
        done = once()
    if not done.starved and done.killed_for != "start":
        return done
    with _turns.alone():
        return once()


def _run_once(
    backend: Sandbox,
    job: Mapping[str, Any],
    files: Mapping[str, bytes],
    stdin: bytes,
    read_only: Sequence[str],
    variables: Mapping[str, str],
    limits: Limits,
    protections: Protections,
    marker: str,
    complaints: Sequence[str],
) -> Completed:
    """Start, feed, watch and end one sandbox. Secrets go with the job, over its pipe only."""
    start, finish, step = (secrets.token_hex(16) for _ in range(3))
    called = time.monotonic()
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(backend.place(read_only, variables, limits, protections))
        # Of a program's own: the user namespace's from Linux 5.14, or a uid that nobody else has.
        own_user = (
            host.counts_processes_by_namespace()
            if backend.namespaces
            else place.confinement is not None and os.getuid() == 0
        )
        header = {
            **job,
            "start": start,
            "finish": finish,
            "step": step,
            "files": [[name, len(content)] for name, content in files.items()],
            "limits": resource_limits(limits, protections, own_user=own_user),
            "confinement": place.confinement,
        }
        encoded = json.dumps(header).encode()
        message = b"".join([len(encoded).to_bytes(8, "big"), encoded, *files.values()])
        keep = limits.output_bytes if protections.output else None
        report = Report(start.encode(), finish.encode(), step.encode())
        stdout = Output(keep, [marker.encode()] if marker else [])
        stderr = Output(keep, [text.encode() for text in complaints])
        info = Output(4096)
        inside = backend.namespaces and protections.pid_namespace
        cpu_seconds: float | None = None
        channels = stack.enter_context(Channels())
        pipes = Pipes(
            stdin=channels.outgoing(message + stdin if place.command else stdin),
            stdout=channels.incoming(stdout),
            stderr=channels.incoming(Both(report, stderr) if place.command else stderr),
            control=channels.outgoing(message),
            report=channels.incoming(report),
            info=channels.incoming(info),
        )
        try:
            process = spawn(pipes, place, backend, read_only, variables, limits, protections)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOMEM):
                raise
            # No process to be had just now, which is not the program's fault.
            return Completed(
                False, False, None, None, "", str(error), None, time.monotonic() - called
            )
        try:
            channels.close_theirs()
            outputs = (stdout, stderr, report)
            killed_for = _watch(
                process, channels, outputs, info, called, limits, protections, backend, place
            )
            if killed_for == "wall time":
                pids = processes.descendants(process.pid)
                cpu_seconds = processes.cpu_seconds([process.pid, *pids])
        finally:
            processes.end(process, first_pid=_first_pid(info) if inside else None)
        channels.drain()
    status = process.returncode
    signal = -status if status < 0 else status - 128 if 128 < status <= 128 + 64 else None
    return Completed(
        started=report.begun is not None,
        finished=stdout.held(marker.encode()) if marker else report.finished,
        exit_code=None if signal else status,
        signal=signal,
        stdout=stdout.text(),
        stderr=re.sub(f"{start}|{finish}|{step}", "", stderr.text()),
        killed_for=killed_for,
        seconds=time.monotonic() - (report.begun or called),
        steps=report.steps,
        complaint=next((text for text in complaints if stderr.held(text.encode())), None),
        cpu_seconds=cpu_seconds,
        starved=cpu_seconds is not None
        and cpu_seconds < limits.cpu_seconds * max(1, len(job["commands"])),
    )


def _first_pid(info: Output) -> int | None:
    """Host pid of the namespace's first process, from ``bwrap --info-fd``."""
    match = re.search(r'"child-pid": *(\d+)', info.text())
    return int(match.group(1)) if match else None


def _files(pid: int, protections: Protections) -> int:
    """Files and directories in the file systems that the sandbox of ``pid`` can write to."""
    count = 0
    for place in ("/dev/shm", HOME) if protections.private_root else ("/dev/shm",):
        with contextlib.suppress(OSError):  # it has just ended, or there is no such place
            seen = os.statvfs(f"/proc/{pid}/root{place}")
            count += seen.f_files - seen.f_ffree
    return count


def _watch(
    process: subprocess.Popen[bytes],
    channels: Channels,
    outputs: tuple[Output, Output, Report],
    info: Output,
    called: float,
    limits: Limits,
    protections: Protections,
    backend: Sandbox,
    place: Place,
) -> KilledFor | None:
    """Serve the pipes until the process ends (``None``) or passes a limit."""
    report = outputs[2]
    next_look = 0.0
    while process.poll() is None:
        if channels.all_ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_TICK_SECONDS)
        else:
            channels.step(_TICK_SECONDS)
        now = time.monotonic()
        if report.begun is None and now - called > limits.start_seconds:
            return "start"
        running = 0.0 if report.begun is None else now - report.begun
        if protections.wall_time and running > limits.wall_seconds:
            return "wall time"
        if protections.output and sum(o.total for o in outputs) > limits.output_kill_bytes:
            return "output"
        if now < next_look:
            continue
        next_look = now + _TICK_SECONDS
        pids = processes.descendants(process.pid)
        if protections.memory and processes.holds_more_than(pids, limits.memory_bytes):
            return "memory"
        if protections.processes and len(pids) > limits.processes:
            return "processes"
        # Before the launcher's marker the first process still has the host's root.
        first = _first_pid(info) if backend.namespaces and report.begun is not None else None
        if protections.disk and first is not None and _files(first, protections) > limits.files:
            return "files"
        if protections.disk and place.confinement is not None:
            files, size = landlock.usage(place.home, process.pid, limits)
            if files > limits.files:
                return "files"
            if size > limits.disk_bytes:
                return "disk"
    return None
