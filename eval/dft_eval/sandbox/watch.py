"""The watchdog of one run: serves its pipes and detects which limit it exceeds."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from dataclasses import dataclass

from dft_eval import processes
from dft_eval.sandbox import landlock
from dft_eval.sandbox.channels import Channels, Output, Report
from dft_eval.sandbox.command import HOME
from dft_eval.sandbox.interface import Place
from dft_eval.sandbox.limits import KilledFor, Protections, RunConfig

_TICK_SECONDS = 0.05


def _files(pid: int, protections: Protections) -> int:
    """Number of files and directories in the sandbox's writable file systems."""
    count = 0
    for path in ("/dev/shm", HOME) if protections.private_root else ("/dev/shm",):
        with contextlib.suppress(OSError):  # the process has just ended, or there is no such path
            status = os.statvfs(f"/proc/{pid}/root{path}")
            count += status.f_files - status.f_ffree
    return count


@dataclass(frozen=True)
class Watchdog:
    """Watches one run.

    Attributes:
        called: start of the call (``time.monotonic()``).
        info: output of ``bwrap --info-fd``; empty without namespaces.
    """

    process: subprocess.Popen[bytes]
    channels: Channels
    stdout: Output
    stderr: Output
    report: Report
    info: Output
    called: float
    config: RunConfig
    place: Place

    def first_pid(self) -> int | None:
        """Host pid of the namespace's first process."""
        match = re.search(r'"child-pid": *(\d+)', self.info.text())
        return int(match.group(1)) if match else None

    def watch(self) -> KilledFor | None:
        """Serve the pipes until the process ends (None) or exceeds a limit (which one)."""
        next_look = 0.0
        while self.process.poll() is None:
            if self.channels.all_ended:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(timeout=_TICK_SECONDS)
            else:
                self.channels.step(_TICK_SECONDS)
            now = time.monotonic()
            if reason := self._streams(now):
                return reason
            if now < next_look:
                continue
            next_look = now + _TICK_SECONDS
            if reason := self._processes() or self._disk():
                return reason
        return None

    def _streams(self, now: float) -> KilledFor | None:
        """Check start, wall time and output."""
        limits, protections = self.config.limits, self.config.protections
        started_at = self.report.started_at
        if started_at is None and now - self.called > limits.start_seconds:
            return "start"
        if protections.wall_time and started_at and now - started_at > limits.wall_seconds:
            return "wall time"
        total = self.stdout.total + self.stderr.total + self.report.total
        return "output" if protections.output and total > limits.output_kill_bytes else None

    def _processes(self) -> KilledFor | None:
        limits, protections = self.config.limits, self.config.protections
        pids = processes.descendants(self.process.pid)
        if protections.memory and processes.holds_more_than(pids, limits.memory_bytes):
            return "memory"
        return "processes" if protections.processes and len(pids) > limits.processes else None

    def _disk(self) -> KilledFor | None:
        limits, protections = self.config.limits, self.config.protections
        if not protections.disk:
            return None
        # Before the launcher's marker the first process still has the host's root.
        first = self.first_pid() if self.report.started_at is not None else None
        if first is not None and _files(first, protections) > limits.files:
            return "files"
        if self.place.on_host:
            files, size = landlock.usage(self.place.home, self.process.pid, limits)
            if files > limits.files:
                return "files"
            if size > limits.disk_bytes:
                return "disk"
        return None
