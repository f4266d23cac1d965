"""One server process: start it, wait until it answers, say why it ended, stop it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from dft_eval.errors import EvaluationError, PrerequisiteError
from dft_eval.serving.guard import GRACE_SECONDS

HOST = "127.0.0.1"
_STOP_SECONDS = GRACE_SECONDS + 15.0
_POLL_SECONDS = 0.5
_NEWS_SECONDS = 30.0
"""Between lines about a server that is not ready yet."""
_TAIL_LINES = 20
_READ_BYTES = 200_000
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|std::bad_alloc|Cannot allocate memory|DefaultCPUAllocator"
    r"|No available memory for the cache|available KV cache memory|Not enough memory",
    re.IGNORECASE,
)
_ERROR = re.compile(r"^.*\b\w+(?:Error|Exception): .+$", re.MULTILINE)
_KILLED = 128 + 9


class ServerEndedError(EvaluationError):
    """A server that ended while it was needed; the message holds the end of its log."""


class Server:
    """Context manager: a server on a free port of this machine, in a process of its own.

    It ends with the context, and with this process however that ends (:mod:`.guard`).
    """

    def __init__(self, name: str, log: Path) -> None:
        """``name`` is for messages; ``log`` gets the server's output."""
        self.name = name
        self.log = log
        self.port = _free_port()
        self.url = f"http://{HOST}:{self.port}"
        self._words: Sequence[str] = ()
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, words: Sequence[str], timeout: float) -> None:
        """Run ``words`` and return when the server answers.

        Raises:
            PrerequisiteError: it ended, or did not answer within ``timeout`` seconds.
        """
        self._words = words
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # A key of the user's is no business of the server's, and would make vLLM ask for it.
        environment = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
        sys.stderr.write(f"dft-factory: starting {self.name}; its log: {self.log}\n")
        with self.log.open("wb") as stream:
            stream.write(f"$ {shlex.join(words)}\n".encode())
            stream.flush()
            self._guard = subprocess.Popen(
                [sys.executable, "-m", "dft_eval.serving.guard", str(os.getpid()), *words],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                start_new_session=True,  # Ctrl-C is for this process, which then stops the server
            )
        started = news = time.monotonic()
        while not self._is_ready():
            if self._guard.poll() is not None:
                raise PrerequisiteError(self._why_it_ended("before it was ready"))
            now = time.monotonic()
            if now - started > timeout:
                self.stop()
                raise PrerequisiteError(
                    f"{self.name} did not answer within {timeout:g} s and was stopped "
                    f"(--serve-timeout). Command: {shlex.join(words)}\n{self._log_end()}"
                )
            if now - news > _NEWS_SECONDS:
                last = (self._log_lines() or [""])[-1][:150]
                sys.stderr.write(f"{self.name}: not ready after {now - started:.0f} s: {last}\n")
                news = now
            time.sleep(_POLL_SECONDS)
        sys.stderr.write(f"{self.name}: ready after {time.monotonic() - started:.0f} s\n")

    def check(self, wait: float) -> None:
        """Called after a request without an answer: whether the server ended.

        Args:
            wait: seconds that it may take to end.

        Raises:
            ServerEndedError: it did.
        """
        assert self._guard is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(wait)
        if self._guard.poll() is not None:
            raise ServerEndedError(
                f"{self._why_it_ended('in the middle of its work')}\nThe same command goes on with "
                "what was completed."
            )

    def stop(self) -> None:
        """End the server and everything that it started.

        Raises:
            EvaluationError: something survives.
        """
        if self._guard is None:
            return
        self._guard.terminate()
        try:
            self._guard.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise EvaluationError(
                f"{self.name} (process {self._guard.pid}) does not end; see {self.log}."
            ) from None
        self._guard = None

    def _is_ready(self) -> bool:
        """Whether ``/health`` answers 200, or, without one, ``/v1/models`` in any good way."""
        status = self._status("/health")
        return status == 200 or (status in (404, 405) and self._status("/v1/models") in range(500))

    def _status(self, path: str) -> int | None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}{path}", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except (OSError, ValueError):
            return None

    def _why_it_ended(self, when: str) -> str:
        assert self._guard is not None
        status = self._guard.wait()
        text = self._log_text()
        how = f"ended with exit status {status}"
        hint = ""
        if status in (_KILLED, -9):
            how = "was killed (SIGKILL)"
            hint = "The kernel does that where a machine runs out of memory: see `dmesg`.\n"
        elif _OUT_OF_MEMORY.search(text):
            hint = (
                "It ran out of memory: give more GPUs (--tensor-parallel), a shorter context "
                "(--serve-args '--max-model-len 4096'; sglang: '--context-length 4096'), or end "
                "what else uses the GPU (nvidia-smi).\n"
            )
        elif re.search(r"Address already in use|Errno 98", text, re.IGNORECASE):
            hint = "Another process took its port meanwhile: run the command again.\n"
        elif missing := re.search(r"(\S+): .*No module named '?(vllm|sglang)", text):
            python, engine = missing.groups()
            hint = f"Install it: uv pip install --python {python} {engine}\n"
        return (
            f"{self.name} {how} {when}.\n{hint}Command: {shlex.join(self._words)}\n"
            f"{self._log_end()}"
        )

    def _log_end(self) -> str:
        lines = self._log_lines()
        tail = lines[-_TAIL_LINES:]
        # vLLM prints the cause long before its last lines.
        causes = [m.strip() for m in _ERROR.findall("\n".join(lines[:-_TAIL_LINES]))][:3]
        text = "".join(f"Error further up: {cause[:300]}\n" for cause in dict.fromkeys(causes))
        return f"{text}The end of {self.log}:\n" + "\n".join(f"  {line[:300]}" for line in tail)

    def _log_lines(self) -> list[str]:
        """Without empty ones; of a progress bar its last state."""
        lines = (line.rstrip("\r").rpartition("\r")[2] for line in self._log_text().split("\n"))
        return [line for line in lines if line.strip()]

    def _log_text(self) -> str:
        with self.log.open("rb") as stream:
            stream.readline()  # the command
            start = stream.tell()
            stream.seek(max(start, stream.seek(0, os.SEEK_END) - _READ_BYTES))
            return stream.read().decode("utf-8", errors="replace")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])
