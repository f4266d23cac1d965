"""What hostile programs may touch, and what shows that they were contained or were not.

Every program has its own brake (at most 100 forks or threads, 1 GB, 100 MB of disk, 20 s).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dft_eval.sandbox import Completed, Limits, host

MIB = 1024 * 1024
MARK = "LEFT ITS MARK"
DEFAULT_LIMITS = Limits()


class Scene:
    """What the attacks may touch."""

    def __init__(self, directory: Path, decoy: subprocess.Popen[bytes], server: socket.socket):
        self.directory, self.decoy, self.server = directory, decoy, server
        self.secret = secrets.token_hex(8)
        self.daemon = f"d{secrets.token_hex(6)}"
        (directory / "home").mkdir()
        (directory / "home" / "secret").write_text(self.secret)
        (directory / "home").chmod(0o755)
        (directory / "home" / "secret").chmod(0o644)

    def fill_in(self, program: str) -> str:
        """The program with the places of this scene."""
        for name, value in {
            "DIRECTORY": str(self.directory),
            "SECRET_FILE": str(self.directory / "home" / "secret"),
            "PORT": str(self.server.getsockname()[1]),
            "DECOY": str(self.decoy.pid),
            "DAEMON": self.daemon,
            "MARK": MARK,
        }.items():
            program = program.replace(f"@{name}@", value)
        return program

    def daemons(self) -> list[int]:
        """Host pids of processes that took this scene's name."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "comm").read_text().strip() == self.daemon:
                    found.append(int(entry.name))
        return found

    def connected(self) -> bool:
        """Whether somebody connected to our server."""
        try:
            self.server.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@contextlib.contextmanager
def set_scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A directory, a process, a port and a variable, taken away afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="dft-scene-"))
    directory.chmod(0o777)
    sleeper = [host.interpreter().path, "-I", "-S", "-c", "import time; time.sleep(60)"]
    decoy = subprocess.Popen(sleeper, cwd="/", env={}, **host.user_options())
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    made = Scene(directory, decoy, server)
    monkeypatch.setenv("DFT_TEST_SECRET", made.secret)
    yield made
    for pid in made.daemons():
        os.kill(pid, signal.SIGKILL)
    decoy.kill()
    decoy.wait()
    server.close()
    shutil.rmtree(directory)


Evidence = Callable[[Completed, Scene], bool]


def printed(done: Completed, _: Scene) -> bool:
    """The program itself says that it got through."""
    return MARK in done.stdout


def says(*words: str) -> Evidence:
    """The program itself says what stopped it."""
    return lambda done, _: any(f"contained: {word}" in done.stdout for word in words)


def killed_for(cause: str) -> Evidence:
    """The watchdog stopped it."""
    return lambda done, _: done.killed_for == cause


PASSED: Evidence = lambda done, _: done.score == 1.0  # noqa: E731
JUDGED_WRONG: Evidence = lambda done, _: (done.score, done.exit_code) == (0.0, 0)  # noqa: E731
