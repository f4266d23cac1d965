"""The command line of a sandbox, and the resource limits inside it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

from dft_eval.sandbox.host import NOBODY
from dft_eval.sandbox.limits import Limits, Protections

HOME = "/work"
#: The environment of programs.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
TOP_DIRECTORIES = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/alternatives")
_UNCOUNTED = 4096


def working_directory(protections: Protections) -> str:
    """The only directory that a sandboxed program can write, a sized tmpfs."""
    return HOME if protections.private_root else "/dev/shm"


def environment(protections: Protections, home: str, extra: Mapping[str, str]) -> dict[str, str]:
    """The environment that a program starts with."""
    inherited = {} if protections.environment else dict(os.environ)
    return {**inherited, **ENVIRONMENT, "HOME": home, "TMPDIR": home, **extra}


def bubblewrap_command(
    limits: Limits,
    protections: Protections,
    *,
    read_only: Sequence[str] = (),
    seccomp_fd: int | None = None,
    info_fd: int | None = None,
) -> list[str]:
    """``bwrap`` and its options, up to ``--``; the environment is that given to ``bwrap`` itself.

    The program can read this command line (its process 1), so it contains no secret and no host
    path except the mounts. Mounts are made in the given order, so the root becomes read-only last.
    """
    size = ["--size", str(max(limits.disk_bytes, 4096))] if protections.disk else []
    command = ["bwrap", "--die-with-parent", "--new-session"]
    # What --unshare-all does, one by one: there is no --share-pid.
    command += ["--unshare-user", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    # The launcher as process 1: bubblewrap's own sometimes outlives its parent as a zombie.
    command += ["--unshare-pid", "--as-pid-1"] if protections.pid_namespace else []
    command += ["--unshare-net"] if protections.network else []
    command += ["--disable-userns"] if protections.no_new_userns else []
    command += ["--uid", str(NOBODY), "--gid", str(NOBODY), "--cap-drop", "ALL"]
    command += ["--hostname", "sandbox"]
    if seccomp_fd is not None:
        command += ["--seccomp", str(seccomp_fd)]
    if info_fd is not None:
        command += ["--info-fd", str(info_fd)]
    command += _root() if protections.private_root else ["--bind", "/", "/"]
    command += ["--proc", "/proc"] if protections.pid_namespace else ["--bind", "/proc", "/proc"]
    command += ["--dev", "/dev", *size, "--tmpfs", "/dev/shm"]
    command += ["--remount-ro", "/dev"] if protections.read_only_root else []
    if protections.private_root:
        command += [*size, "--tmpfs", HOME, "--symlink", HOME.lstrip("/"), "/tmp"]
        for path in read_only:
            command += ["--ro-bind", path, path]
        command += ["--remount-ro", "/"] if protections.read_only_root else []
    return [*command, "--chdir", working_directory(protections), "--"]


def _root() -> list[str]:
    options = ["--ro-bind", "/usr", "/usr"]
    for path in TOP_DIRECTORIES:
        if os.path.islink(path):
            options += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            options += ["--ro-bind", path, path]
    for path in SYSTEM_FILES:
        options += ["--ro-bind-try", path, path]
    return options


def resource_limits(
    limits: Limits, protections: Protections, *, own_user: bool
) -> dict[str, list[int]]:
    """``{"RLIMIT_X": [soft, hard]}``, for the launcher to set.

    ``own_user``: RLIMIT_NPROC counts this program alone.
    """
    cpu = max(1, math.ceil(limits.cpu_seconds))
    chosen = {
        "RLIMIT_CORE": [0, 0],
        "RLIMIT_NOFILE": [limits.open_files] * 2,
        "RLIMIT_CPU": [cpu, cpu + 1],  # SIGXCPU first, which differs from our own SIGKILL
    }
    if protections.memory and limits.address_space_bytes is not None:
        chosen["RLIMIT_AS"] = [limits.address_space_bytes] * 2
    if protections.disk:
        chosen["RLIMIT_FSIZE"] = [limits.disk_bytes] * 2
    if protections.processes:
        uncounted = 0 if own_user else _UNCOUNTED
        chosen["RLIMIT_NPROC"] = [limits.processes + uncounted] * 2
    return chosen
