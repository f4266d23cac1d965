"""One program in one sandbox: start it, feed it, watch it, end it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dft_eval import processes
from dft_eval.sandbox import host
from dft_eval.sandbox.channels import Channels, Output, Report
from dft_eval.sandbox.command import resource_limits
from dft_eval.sandbox.interface import Sandbox
from dft_eval.sandbox.limits import Completed, RunConfig
from dft_eval.sandbox.start import Pipes, spawn
from dft_eval.sandbox.turns import Turns
from dft_eval.sandbox.watch import Watchdog

_turns = Turns()


@dataclass(frozen=True)
class Job:
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

    @classmethod
    def of_program(cls, solution: str, test: str) -> Job:
        """``solution`` and then ``test``, in one Python module."""
        return cls({"commands": [], "solution": solution, "test": test})


def execute(job: Job, config: RunConfig, backend: Sandbox) -> Completed:
    """Run ``job``, again with nothing beside it if that run was starved.

    Raises:
        PrerequisiteError: no bubblewrap or Python that the sandbox's user can run.
        EvaluationError: a process survives SIGKILL.
    """
    with _turns.shared():
        done = _run_once(job, config, backend)
    if not done.starved and done.killed_for != "start":
        return done
    with _turns.alone():
        return _run_once(job, config, backend)


def _run_once(job: Job, config: RunConfig, backend: Sandbox) -> Completed:
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
