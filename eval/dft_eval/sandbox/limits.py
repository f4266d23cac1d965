"""Limits, protections and result of a run."""

from __future__ import annotations

import math
import signal as signals
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

MIB = 1024 * 1024

KilledFor = Literal["start", "wall time", "memory", "output", "processes", "files", "disk"]


@dataclass(frozen=True)
class Limits:
    """Limits of one run, in bytes and seconds. ValueError if one is negative.

    Attributes:
        wall_seconds: From the launcher's first marker to the program's end. Generous: verdicts rest
            on processor time, this ends programs that wait (see ``Completed.starved``).
        start_seconds: For the sandbox to start; a breach leaves the item unscored.
        cpu_seconds: Processor time per process.
        memory_bytes: Resident memory of all processes; shared pages count once.
        address_space_bytes: Virtual memory per process; None for runtimes that reserve far more
            than they use (JVM, V8, Mono), which have a heap limit instead.
        processes: Processes and threads, including the launcher.
        disk_bytes: All of ``/work``, each single file, and (separately) ``/dev/shm``.
        files: Files and directories in ``/work`` and ``/dev/shm``, which use kernel memory even if
            empty.
        output_bytes: Kept of stdout and of stderr: the first and the last half of it.
        output_kill_bytes: Written in total before the program is killed.
        open_files: File descriptors per process.
    """

    wall_seconds: float = 120.0
    start_seconds: float = 60.0
    cpu_seconds: float = 15.0
    memory_bytes: int = 1024 * MIB
    address_space_bytes: int | None = 1024 * MIB
    processes: int = 32
    disk_bytes: int = 64 * MIB
    files: int = 10_000
    output_bytes: int = 64 * 1024
    output_kill_bytes: int = 16 * MIB
    open_files: int = 256

    def __post_init__(self) -> None:
        for field_ in fields(self):
            value = getattr(self, field_.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"Limits.{field_.name} is {value!r}: it must be finite and >= 0.")


@dataclass(frozen=True)
class Protections:
    """One switch per protection, all on. Tests turn each one off to show that it matters.

    Attributes:
        sandbox: Off: no sandbox. The launcher runs in a temporary directory with resource limits
            and wall time; of the next seven only ``environment`` has an effect.
        network: No network. Off: the host's.
        private_root: A root without the host's files. Off: the host's root, writable where the user
            may write, and a sized working directory in ``/dev/shm``.
        read_only_root: The bare ``/`` and ``/dev`` cannot be written. Off: they can, without bound.
        environment: An empty environment. Off: that of our process.
        pid_namespace: Only its own processes exist, and all die with the first. Off: the host's.
        no_new_userns: User namespaces cannot be created inside.
        system_calls: Some system calls are refused (see ``seccomp.py``).
        processes, memory, output, wall_time: That limit holds.
        disk: The limits on the size and the number of files hold.
        markers: A judged program passes by the second marker. Off: by exit status 0.
    """

    sandbox: bool = True
    network: bool = True
    private_root: bool = True
    read_only_root: bool = True
    environment: bool = True
    pid_namespace: bool = True
    no_new_userns: bool = True
    system_calls: bool = True
    processes: bool = True
    memory: bool = True
    disk: bool = True
    output: bool = True
    wall_time: bool = True
    markers: bool = True


ALL_PROTECTIONS = Protections()

#: ``--unsafe-no-sandbox``: the caller prints the warning. Without a user namespace RLIMIT_NPROC
#: would count everything that the user runs, hence no limit on processes.
NO_SANDBOX = Protections(sandbox=False, processes=False)


@dataclass(frozen=True)
class RunConfig:
    """Settings of one run; see :func:`dft_eval.sandbox.run`."""

    limits: Limits = field(default_factory=Limits)
    protections: Protections = ALL_PROTECTIONS
    read_only: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Completed:
    """Result of one run.

    Attributes:
        started: The launcher's first marker came: what follows is the program's responsibility.
        finished: A judged program: the second marker came, and a compiled one also exited with
            status 0. A command of :func:`run`: it exited with status 0.
        exit_code: 0..255; None if a signal ended it.
        signal: Signal that ended it. The launcher, like a shell, reports signal n as status 128 +
        n,
            so a program that exits with such a status looks the same.
        stdout, stderr: The kept part (``Limits.output_bytes``), UTF-8 with replacements.
        killed_for: The limit for which the watchdog killed it, else None.
        seconds: From the first marker to the end; from the call, if it never started.
        steps: Number of commands that exited with status 0.
        complaint: The forbidden text that standard error contains.
        cpu_seconds: Processor time used, if the wall time was up.
        starved: The wall time was up before the program had its processor time, also when it ran
            alone: a busy machine and a program that waits look the same.
    """

    started: bool
    finished: bool
    exit_code: int | None
    signal: int | None
    stdout: str
    stderr: str
    killed_for: KilledFor | None
    seconds: float
    steps: int = 0
    complaint: str | None = None
    cpu_seconds: float | None = None
    starved: bool = False

    @property
    def score(self) -> float | None:
        """1.0 if the program finished, 0.0 if not, None if it never started or was starved."""
        if not self.started or self.starved:
            return None
        return float(self.finished and self.killed_for is None)

    @property
    def reason(self) -> str:
        """The reason for the score, in one line."""
        lines = self.stderr.strip().splitlines()
        last = lines[-1][:300] if lines else ""
        if not self.started:
            if self.killed_for == "start":
                return f"the sandbox did not start within {self.seconds:.0f} s"
            return f"the sandbox did not start: {last or f'exit status {self.exit_code}'}"
        if self.starved:
            return (
                f"not judged: {self.seconds:.0f} s of wall time were up with "
                f"{self.cpu_seconds:.1f} s of processor time used, also when it ran alone"
            )
        if self.killed_for is not None:
            return f"killed for its {self.killed_for}"
        if self.finished:
            return "passed"
        if self.complaint is not None:
            return f"standard error contains {self.complaint!r}"
        if self.signal == signals.SIGXCPU:
            return "CPU time was up"
        if self.signal is not None:
            return f"ended by signal {self.signal}"
        if self.exit_code == 0:
            return "exited with status 0 before the tests had ended"
        return last or f"exit status {self.exit_code}"

    def verdict(self) -> tuple[float | None, str]:
        """``(score, reason)``."""
        return self.score, self.reason
