"""A Python module run as a process of its own and asked line by line, JSON against JSON.

For code that may not end (a power tower in an answer). No key of the environment is handed on.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO, Any, Self

from dft_eval.errors import EvaluationError

WALL_SECONDS = 600.0
"""Without an answer for so long, a worker is taken to hang."""


MEMORY_BYTES = 2 << 30


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]], *, cpu_seconds: float) -> None:
    """In the worker: answer questions until there are no more.

    Memory is bounded, no file can be written, and the kernel ends the process (SIGPROF) at a
    question that takes more than ``cpu_seconds`` of processor time, whatever code it is in. Where
    memory or stack ran out, the answer is ``{"error": name}``.
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            reply = answer(json.loads(line))
        except (MemoryError, RecursionError) as error:
            reply = {"error": type(error).__name__}
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


class WorkerEndedError(EvaluationError):
    """The worker ended, or was ended, over a question; ``signal_name`` says by what, if known."""

    def __init__(self, message: str, signal_name: str | None) -> None:
        super().__init__(message)
        self.signal_name = signal_name


class Worker:
    """``python -m module``, started at the first question and again after it has ended."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, question: Any) -> Any:
        """The worker's answer to one question.

        Raises:
            WorkerEndedError: it ended, or was silent for :data:`WALL_SECONDS`.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], WALL_SECONDS)
            line = process.stdout.readline() if ready else b""
        except BrokenPipeError:
            line = b""
        if not line.endswith(b"\n"):
            raise self._ended()
        return json.loads(line)

    def close(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _start(self) -> subprocess.Popen[bytes]:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )
        return self._process

    def _ended(self) -> WorkerEndedError:
        assert self._process is not None
        assert self._errors is not None
        status = self._process.poll()
        if status is None:
            try:
                status = self._process.wait(1)
            except subprocess.TimeoutExpired:
                status = None
        self._errors.seek(0)
        last = self._errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        self.close()
        name = signal.Signals(-status).name if status is not None and status < 0 else None
        how = name or (f"silent for {WALL_SECONDS:.0f} s" if status is None else f"status {status}")
        return WorkerEndedError(f"{self._module} ended ({how}): {last}", name)
