"""The pipes of one sandbox, served by the calling thread with bounded memory."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Callable, Sequence

_CHUNK = 64 * 1024


class Search:
    """Counts occurrences of texts in a stream, across chunks."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.counts = dict.fromkeys(texts, 0)
        self._tails = dict.fromkeys(texts, b"")

    def take(self, data: bytes) -> None:
        """Search the next bytes."""
        for text, tail in self._tails.items():
            window = tail + data
            self.counts[text] += window.count(text)
            # Shorter than the text, so nothing is counted twice.
            self._tails[text] = window[max(0, len(window) - len(text) + 1) :]


class Output:
    """Keeps the first and the last ``keep / 2`` bytes of a stream; all of it if ``keep`` is None.

    ``texts`` are searched for in the whole stream.
    """

    def __init__(self, keep: int | None, texts: Sequence[bytes] = ()) -> None:
        self.total = 0
        self._search = Search(texts)
        self._half = None if keep is None else keep // 2
        self._head = bytearray()
        self._tail = bytearray()

    def take(self, data: bytes) -> None:
        """Append bytes; drop those that belong to neither half."""
        self.total += len(data)
        self._search.take(data)
        if self._half is None:
            self._head += data
            return
        free = max(0, self._half - len(self._head))
        self._head += data[:free]
        self._tail += data[free:]
        del self._tail[: max(0, len(self._tail) - self._half)]

    def contains(self, text: bytes) -> bool:
        """Whether the stream contained this one of ``texts``."""
        return self._search.counts[text] > 0

    def text(self) -> str:
        """The kept bytes, with a line for those dropped in between."""
        dropped = self.total - len(self._head) - len(self._tail)
        between = f"\n[... {dropped} bytes dropped ...]\n".encode() if dropped else b""
        return (self._head + between + self._tail).decode(errors="replace")


class Report:
    """Finds the launcher's secrets among anything else that a program writes to its pipe."""

    def __init__(self, start: bytes, finish: bytes, step: bytes = b"\n") -> None:
        self.started_at: float | None = None  # time.monotonic()
        self.finished = False
        self.total = 0
        self._start, self._finish, self._step = start, finish, step
        self._search = Search([step])
        self._recent = b""

    @property
    def steps(self) -> int:
        """Number of commands that exited with status 0."""
        return self._search.counts[self._step]

    def take(self, data: bytes) -> None:
        """Search the next bytes, across chunks."""
        self.total += len(data)
        self._search.take(data)
        window = self._recent + data
        if self.started_at is None and self._start in window:
            self.started_at = time.monotonic()
        if self.started_at is not None and self._finish in window:
            self.finished = True
        self._recent = window[-(len(self._start) + len(self._finish)) :]


class Channels:
    """Context manager of our ends of the pipes; the methods return the process's ends."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._theirs: list[int] = []
        self._writing: dict[int, memoryview] = {}
        self._reading: dict[int, Callable[[bytes], None]] = {}

    def __enter__(self) -> Channels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_theirs()
        for descriptor in (*self._writing, *self._reading):
            os.close(descriptor)
        self._selector.close()

    def outgoing(self, data: bytes) -> int:
        """The reading end of a pipe with ``data``."""
        theirs, ours = os.pipe()
        self._theirs.append(theirs)
        self._writing[ours] = memoryview(data)
        os.set_blocking(ours, False)
        self._selector.register(ours, selectors.EVENT_WRITE)
        return theirs

    def incoming(self, take: Callable[[bytes], None]) -> int:
        """The writing end of a pipe whose bytes go to ``take``."""
        ours, theirs = os.pipe()
        self._theirs.append(theirs)
        self._reading[ours] = take
        os.set_blocking(ours, False)
        self._selector.register(ours, selectors.EVENT_READ)
        return theirs

    def close_theirs(self) -> None:
        """Close our copies of the process's ends once it is started."""
        while self._theirs:
            os.close(self._theirs.pop())

    @property
    def all_ended(self) -> bool:
        """Whether all incoming pipes are closed."""
        return not self._reading

    def step(self, seconds: float) -> None:
        """Read and write what is ready, waiting up to ``seconds``."""
        for key, _ in self._selector.select(seconds):
            if key.fd in self._writing:
                self._write(key.fd)
            else:
                self._read(key.fd)

    def drain(self) -> None:
        """Read what is already in the pipes, at most a pipe's capacity, without waiting."""
        for descriptor in list(self._reading):
            for _ in range(32):  # without a PID namespace, a survivor may go on writing
                if not self._read(descriptor):
                    break

    def _write(self, descriptor: int) -> None:
        data = self._writing[descriptor]
        try:
            data = self._writing[descriptor] = data[os.write(descriptor, data[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # the process closed its end
            data = memoryview(b"")
        if not data:
            del self._writing[descriptor]
            self._close(descriptor)

    def _read(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        if data:
            self._reading[descriptor](data)
            return True
        del self._reading[descriptor]
        self._close(descriptor)
        return False

    def _close(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(descriptor)
        os.close(descriptor)
