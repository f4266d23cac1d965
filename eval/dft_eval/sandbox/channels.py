"""The pipes of one sandbox, served by the calling thread alone with bounded memory."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Sequence
from typing import Protocol

_CHUNK = 64 * 1024


class Sink(Protocol):
    """Whatever takes the bytes that a pipe brings."""

    def take(self, data: bytes) -> None:
        """Take the next bytes."""


class Search:
    """Counts some texts in a stream, across the edges of chunks."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.counts = dict.fromkeys(texts, 0)
        self._tails = dict.fromkeys(texts, b"")

    def take(self, data: bytes) -> None:
        """Look at the next bytes."""
        for text, tail in self._tails.items():
            window = tail + data
            self.counts[text] += window.count(text)
            # Too short to hold the text, so nothing is counted twice.
            self._tails[text] = window[max(0, len(window) - len(text) + 1) :]


class Output:
    """The first and the last half of ``keep`` bytes of a stream (all of it if ``None``).

    ``texts``: texts looked for in the whole stream, also in what is not kept.
    """

    def __init__(self, keep: int | None, texts: Sequence[bytes] = ()) -> None:
        self.total = 0
        self._search = Search(texts)
        self._half = None if keep is None else keep // 2
        self._head = bytearray()
        self._tail = bytearray()

    def take(self, data: bytes) -> None:
        """Take the next bytes; drop what belongs to neither half."""
        self.total += len(data)
        self._search.take(data)
        if self._half is None:
            self._head += data
            return
        free = max(0, self._half - len(self._head))
        self._head += data[:free]
        self._tail += data[free:]
        del self._tail[: max(0, len(self._tail) - self._half)]

    def held(self, text: bytes) -> bool:
        """Whether the stream held this one of the texts texts."""
        return self._search.counts[text] > 0

    def text(self) -> str:
        """What was kept, with a line that says how much was dropped between."""
        dropped = self.total - len(self._head) - len(self._tail)
        between = f"\n[... {dropped} bytes dropped ...]\n".encode() if dropped else b""
        return (self._head + between + self._tail).decode(errors="replace")


class Report:
    """Looks for the launcher's secrets in whatever else a program may write to that pipe."""

    def __init__(self, start: bytes, finish: bytes, step: bytes = b"\n") -> None:
        self.begun: float | None = None  # time.monotonic()
        self.finished = False
        self.total = 0
        self._start, self._finish, self._step = start, finish, step
        self._search = Search([step])
        self._recent = b""

    @property
    def steps(self) -> int:
        """How many commands ended well."""
        return self._search.counts[self._step]

    def take(self, data: bytes) -> None:
        """Look at the next bytes, across the edges of chunks."""
        self.total += len(data)
        self._search.take(data)
        window = self._recent + data
        if self.begun is None and self._start in window:
            self.begun = time.monotonic()
        if self.begun is not None and self._finish in window:
            self.finished = True
        self._recent = window[-(len(self._start) + len(self._finish)) :]


class Both:
    """Hands a stream on to two sinks."""

    def __init__(self, first: Sink, second: Sink) -> None:
        self._sinks = first, second

    def take(self, data: bytes) -> None:
        """Take the next bytes."""
        for sink in self._sinks:
            sink.take(data)


class Channels:
    """A context that holds our ends of the pipes; the ends returned go to the process."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._theirs: list[int] = []
        self._writing: dict[int, memoryview] = {}
        self._reading: dict[int, Sink] = {}

    def __enter__(self) -> Channels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_theirs()
        for descriptor in (*self._writing, *self._reading):
            os.close(descriptor)
        self._selector.close()

    def outgoing(self, data: bytes) -> int:
        """A pipe that brings ``data`` and then ends; the reading end."""
        theirs, ours = os.pipe()
        self._theirs.append(theirs)
        self._writing[ours] = memoryview(data)
        os.set_blocking(ours, False)
        self._selector.register(ours, selectors.EVENT_WRITE)
        return theirs

    def incoming(self, sink: Sink) -> int:
        """A pipe that feeds ``sink``; the writing end."""
        ours, theirs = os.pipe()
        self._theirs.append(theirs)
        self._reading[ours] = sink
        os.set_blocking(ours, False)
        self._selector.register(ours, selectors.EVENT_READ)
        return theirs

    def close_theirs(self) -> None:
        """Close our copies of the process's ends, once it has its own."""
        while self._theirs:
            os.close(self._theirs.pop())

    @property
    def all_ended(self) -> bool:
        """Whether nothing more can come."""
        return not self._reading

    def step(self, seconds: float) -> None:
        """Move what can be moved, waiting for it up to ``seconds``."""
        for key, _ in self._selector.select(seconds):
            if key.fd in self._writing:
                self._write(key.fd)
            else:
                self._read(key.fd)

    def drain(self) -> None:
        """Take what already lies in the pipes, without waiting for more (at most a pipe's fill)."""
        for descriptor in list(self._reading):
            for _ in range(32):  # a survivor outside every PID namespace may go on writing
                if not self._read(descriptor):
                    break

    def _write(self, descriptor: int) -> None:
        data = self._writing[descriptor]
        try:
            data = self._writing[descriptor] = data[os.write(descriptor, data[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not want to read it
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
            self._reading[descriptor].take(data)
            return True
        del self._reading[descriptor]
        self._close(descriptor)
        return False

    def _close(self, descriptor: int) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(descriptor)
        os.close(descriptor)
