"""Start the process of one sandbox with its pipes, as the sandbox's user."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from dft_eval.errors import PrerequisiteError
from dft_eval.sandbox import host
from dft_eval.sandbox.command import bubblewrap_command, environment
from dft_eval.sandbox.interface import Place, Sandbox
from dft_eval.sandbox.limits import RunConfig
from dft_eval.sandbox.seccomp import refusal_filter


@lru_cache(maxsize=1)
def _launcher() -> str:
    return resources.files("dft_eval.sandbox").joinpath("launcher.py").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Pipes:
    """The process's ends of its pipes."""

    stdin: int
    stdout: int
    stderr: int
    control: int
    report: int
    info: int


def spawn(
    pipes: Pipes, place: Place, backend: Sandbox, config: RunConfig
) -> subprocess.Popen[bytes]:
    """Start the launcher, under bubblewrap for that backend; it inherits only the pipes.

    Raises:
        PrerequisiteError: no bubblewrap or Python that the user can run, or root cannot become it.
    """
    python = host.interpreter()
    command = [python.path, "-I", "-S", "-B", "-X", "utf8", "-c", _launcher()]
    command += ["0", "2"] if place.command else [str(pipes.control), str(pipes.report)]
    inherited = [] if place.command else [pipes.control, pipes.report]
    executable, filter_fd = python.path, None
    try:
        if place.command:
            executable, command = place.command[0], [*place.command, *command]
        elif backend.namespaces:
            executable = host.bubblewrap().path
            program = refusal_filter() if config.protections.system_calls else None
            if program is not None:
                filter_fd = os.memfd_create("seccomp")
                os.write(filter_fd, program)
                os.lseek(filter_fd, 0, os.SEEK_SET)
                inherited.append(filter_fd)
            inherited.append(pipes.info)
            prefix = bubblewrap_command(
                config.limits,
                config.protections,
                read_only=[*python.prefixes, *config.read_only],
                seccomp_fd=filter_fd,
                info_fd=pipes.info,
            )
            command = [*prefix, *command]
        return subprocess.Popen(
            command,
            executable=executable,
            stdin=pipes.stdin,
            stdout=pipes.stdout,
            stderr=pipes.stderr,
            cwd="/" if backend.namespaces or place.command else place.home,
            env=None
            if place.command
            else environment(config.protections, place.home, config.variables),
            pass_fds=inherited,
            start_new_session=True,
            **({} if place.command else host.user_options(place.uid)),
        )
    except PermissionError as error:
        raise PrerequisiteError(
            f"Cannot start {executable} ({error}). Root must be able to become uid {place.uid} "
            "(CAP_SETUID, CAP_SETGID): run the evaluation as an ordinary user instead."
        ) from error
    finally:
        if filter_fd is not None:
            os.close(filter_fd)
