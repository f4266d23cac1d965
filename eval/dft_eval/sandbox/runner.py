"""Run one program in one sandbox: start it, watch it, end it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from dft_eval import processes
from dft_eval.sandbox import host
from dft_eval.sandbox.backends import UNCONFINED, Sandbox, selected
from dft_eval.sandbox.channels import Channels, Output, Report
from dft_eval.sandbox.command import resource_limits
from dft_eval.sandbox.limits import ALL_PROTECTIONS, Completed, Limits, Protections, RunConfig
from dft_eval.sandbox.start import Pipes, spawn
from dft_eval.sandbox.turns import Turns
from dft_eval.sandbox.watch import Watchdog

_DEFAULT_LIMITS = Limits()
_turns = Turns()


@dataclass(frozen=True)
class _Job:
    """What the launcher runs.

    Attributes:
        header: ``commands`` with ``input``, or ``solution`` and ``test``.
        marker: a passing program prints it on standard output.
        complaints: a program whose standard error contains one of these texts fails.
    """

    header: Mapping[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    stdin: bytes = b""
    marker: str = ""
    complaints: Sequence[str] = ()


def check_program(
    solution: str,
    test: str,
    *,
    limits: Limits = _DEFAULT_LIMITS,
    protections: Protections = ALL_PROTECTIONS,
    backend: Sandbox | None = None,
) -> Completed:
    """Run ``solution`` and then ``test`` in one Python module; see :attr:`Completed.score`.

    They are compiled separately, so a solution cannot swallow the test in an open string. The
    module is not ``__main__``: guarded blocks do not run, as in HumanEval. Standard input is empty.

    Raises:
        PrerequisiteError: no bubblewrap or Python that the sandbox's user can run.
        EvaluationError: a process survives SIGKILL.
    """
    job = _Job({"commands": [], "solution": solution, "test": test})
    done = _run(job, RunConfig(limits, protections), backend)
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

    The last of ``commands`` gets two secrets on standard input, one per line, and passes by
    printing the second directly followed by the first. The driver in ``files`` does this: it reads
    them before model code runs where its language can, so that the program has an empty standard
    input, and prints them after the tests.

    Args:
        commands: Run one after the other, in one sandbox, until one fails.
        files, read_only, variables: as for :func:`run`.
        complaints: Texts that fail a program whose standard error contains one.
        limits: Wall time, memory, disk and output hold for all commands together, the others for
            each.

    Raises:
        ValueError, PrerequisiteError, EvaluationError: as :func:`run`.
    """
    _check(commands, files)
    first, second = secrets.token_hex(16), secrets.token_hex(16)
    marker = second + first
    header = {"commands": [list(command) for command in commands], "input": f"{first}\n{second}\n"}
    done = _run(
        _Job(header, files, marker=marker, complaints=complaints),
        RunConfig(limits, protections, read_only, variables or {}),
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
    """Run ``command`` in its own sandbox.

    Args:
        command: Program (searched on the sandbox's PATH) and arguments.
        files: Relative path -> content, written into the working directory first.
        payload: Standard input.
        read_only: Host paths mounted read-only at the same path (a toolchain outside ``/usr``).
        variables: Environment in addition to PATH, LANG, HOME and TMPDIR.

    Raises:
        ValueError: no command, or a file whose path leads out of the working directory.
        PrerequisiteError, EvaluationError: as :func:`check_program`.
    """
    _check([command], files or {})
    job = _Job({"commands": [list(command)], "input": None}, files or {}, payload)
    done = _run(job, RunConfig(limits, protections, read_only, variables or {}))
    return replace(done, finished=done.started and done.exit_code == 0)


def _check(commands: Sequence[Sequence[str]], files: Mapping[str, bytes]) -> None:
    if not commands or not all(commands):
        raise ValueError("No command to run.")
    for name in files:
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
            raise ValueError(f"File {name!r}: give a relative path inside the working directory.")


def _run(job: _Job, config: RunConfig, backend: Sandbox | None = None) -> Completed:
    """:func:`_run_once`, repeated with nothing beside it if that run was starved."""
    if not config.protections.sandbox:
        backend = UNCONFINED
    backend = backend or selected()
    with _turns.shared():
        done = _run_once(job, config, backend)
    if not done.starved and done.killed_for != "start":
        return done
    with _turns.alone():
        return _run_once(job, config, backend)


def _run_once(job: _Job, config: RunConfig, backend: Sandbox) -> Completed:
    """Start, feed, watch and end one sandbox. Secrets go with the job, over its pipe only."""
    limits, protections = config.limits, config.protections
    start, finish, step = (secrets.token_hex(16) for _ in range(3))
    called = time.monotonic()
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(backend.place(config))
        # RLIMIT_NPROC counts this program alone: by user namespace, or by its own uid.
        if backend.namespaces:
            own_user = host.counts_processes_by_namespace()
        else:
            own_user = place.on_host and os.getuid() == 0
        header = {
            **job.header,
            "start": start,
            "finish": finish,
            "step": step,
            "files": [[name, len(content)] for name, content in job.files.items()],
            "limits": resource_limits(limits, protections, own_user=own_user),
            "confinement": place.confinement,
        }
        encoded = json.dumps(header).encode()
        message = b"".join([len(encoded).to_bytes(8, "big"), encoded, *job.files.values()])
        keep = limits.output_bytes if protections.output else None
        report = Report(start.encode(), finish.encode(), step.encode())
        stdout = Output(keep, [job.marker.encode()] if job.marker else [])
        stderr = Output(keep, [text.encode() for text in job.complaints])
        info = Output(4096)

        def report_and_stderr(data: bytes) -> None:
            report.take(data)
            stderr.take(data)

        cpu_seconds: float | None = None
        channels = stack.enter_context(Channels())
        pipes = Pipes(
            stdin=channels.outgoing(message + job.stdin if place.command else job.stdin),
            stdout=channels.incoming(stdout.take),
            stderr=channels.incoming(report_and_stderr if place.command else stderr.take),
            control=channels.outgoing(message),
            report=channels.incoming(report.take),
            info=channels.incoming(info.take),
        )
        try:
            process = spawn(pipes, place, backend, config)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOMEM):
                raise
            # The host is out of processes or memory: not the program's fault.
            return Completed(
                False, False, None, None, "", str(error), None, time.monotonic() - called
            )
        watchdog = Watchdog(process, channels, stdout, stderr, report, info, called, config, place)
        try:
            channels.close_theirs()
            killed_for = watchdog.watch()
            if killed_for == "wall time":
                pids = processes.descendants(process.pid)
                cpu_seconds = processes.cpu_seconds([process.pid, *pids])
        finally:
            has_pids = backend.namespaces and protections.pid_namespace
            processes.end(process, first_pid=watchdog.first_pid() if has_pids else None)
        channels.drain()
    status = process.returncode
    signal = -status if status < 0 else status - 128 if 128 < status <= 128 + 64 else None
    return Completed(
        started=report.started_at is not None,
        finished=stdout.contains(job.marker.encode()) if job.marker else report.finished,
        exit_code=None if signal else status,
        signal=signal,
        stdout=stdout.text(),
        stderr=re.sub(f"{start}|{finish}|{step}", "", stderr.text()),
        killed_for=killed_for,
        seconds=time.monotonic() - (report.started_at or called),
        steps=report.steps,
        complaint=next((text for text in job.complaints if stderr.contains(text.encode())), None),
        cpu_seconds=cpu_seconds,
        starved=cpu_seconds is not None
        and cpu_seconds < limits.cpu_seconds * max(1, len(job.header["commands"])),
    )
