"""Attacks on the sandbox: what they may touch, and the evidence that they were contained or not.

Every program limits itself (at most 100 forks or threads, 250 MB, 100 MB of disk, 20 s).
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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dft_eval.languages import LANGUAGES, Program, run_program
from dft_eval.sandbox import Completed, Limits, Protections, check_program, host
from tests.support.toolchains import need

MIB = 1024 * 1024
MARK = "LEFT ITS MARK"


class Scene:
    """The files, process and port that attacks may touch."""

    def __init__(self, directory: Path, decoy: subprocess.Popen[bytes], server: socket.socket):
        self.directory, self.decoy, self.server = directory, decoy, server
        self.secret = secrets.token_hex(8)
        self.daemon = f"d{secrets.token_hex(6)}"
        (directory / "home").mkdir()
        (directory / "home" / "secret").write_text(self.secret)
        (directory / "home").chmod(0o755)
        (directory / "home" / "secret").chmod(0o644)

    def fill_in(self, program: str) -> str:
        """The program with the paths and numbers of this scene."""
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
        """Host pids of processes with this scene's name."""
        pids = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "comm").read_text().strip() == self.daemon:
                    pids.append(int(entry.name))
        return pids

    def connected(self) -> bool:
        """Whether a program connected to our server."""
        try:
            self.server.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A directory, a process, a port and a variable, removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="dft-scene-"))
    directory.chmod(0o777)
    sleeper = [host.interpreter().path, "-I", "-S", "-c", "import time; time.sleep(60)"]
    decoy = subprocess.Popen(sleeper, cwd="/", env={}, **host.user_options())
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    scene = Scene(directory, decoy, server)
    monkeypatch.setenv("DFT_TEST_SECRET", scene.secret)
    yield scene
    for pid in scene.daemons():
        os.kill(pid, signal.SIGKILL)
    decoy.kill()
    decoy.wait()
    server.close()
    shutil.rmtree(directory)


Evidence = Callable[[Completed, Scene], bool]


def printed(result: Completed, _: Scene) -> bool:
    """The program printed the mark: the attack succeeded."""
    return MARK in result.stdout


def says(*errors: str) -> Evidence:
    """The program printed the error that stopped it."""
    return lambda result, _: any(f"contained: {error}" in result.stdout for error in errors)


def killed_for(cause: str) -> Evidence:
    """The watchdog stopped it."""
    return lambda result, _: result.killed_for == cause


# ruff: noqa: E731
PASSED: Evidence = lambda result, _: result.score == 1.0
JUDGED_WRONG: Evidence = lambda result, _: (result.score, result.exit_code) == (0.0, 0)
WRITTEN: Evidence = lambda _, scene: (scene.directory / "written").read_text() == "hello"
NOT_WRITTEN: Evidence = lambda _, scene: not (scene.directory / "written").exists()
CONNECTED: Evidence = lambda _, scene: scene.connected()
DECOY_KILLED: Evidence = lambda _, scene: scene.decoy.wait(timeout=10) == -signal.SIGKILL
DAEMON_UP: Evidence = lambda result, scene: (
    "daemon is up" in result.stdout and len(scene.daemons()) == 1
)
DAEMON_GONE: Evidence = lambda result, scene: (
    "daemon is up" in result.stdout and not scene.daemons()
)


def no_mark(result: Completed, _: Scene) -> bool:
    """The program did not print the mark."""
    return MARK not in result.stdout


@dataclass(frozen=True)
class Attack:
    """A program, the protection that stops it, and the evidence with and without it.

    Attributes:
        language: Python if None.
        limits: changes to the default limits.
    """

    name: str
    protection: str
    program: str
    contained: Evidence = no_mark
    mark: Evidence = printed
    limits: Mapping[str, float] = field(default_factory=dict)
    language: str | None = None


def attack(*fields: Any, language: str | None = None, **limits: float) -> Attack:
    """An attack with these limits."""
    return Attack(*fields, language=language, limits=limits)


def launch(attack: Attack, scene: Scene, protections: Protections) -> Completed:
    """Run an attack in the selected sandbox."""
    program = scene.fill_in(attack.program)
    if attack.language is None:
        test = "assert False, 'reached the test'" if attack.protection == "markers" else ""
        limits = replace(Limits(), **attack.limits)
        result = check_program(program, test, limits=limits, protections=protections)
    else:
        need(attack.language)
        language = LANGUAGES[attack.language]
        language = replace(language, limits=replace(language.limits, **attack.limits))
        result, _ = run_program(language, Program(program), protections=protections)
    assert result.started, result.reason
    return result
