"""A sandbox without namespaces, for containers and pods that may not create them.

Landlock restricts the files that a program opens, seccomp its system calls (no sockets), resource
limits and the watchdog its resources; root drops to a uid of its own for each program. The launcher
is the parent and not confined: it adopts and ends orphans.

Rights and structures: Linux ``include/uapi/linux/landlock.h``. ``ctypes`` and not a package from
PyPI: the launcher runs in a bare interpreter that sees no site-packages.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import struct
import tempfile
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

from dft_eval import processes
from dft_eval.errors import PrerequisiteError
from dft_eval.sandbox import host
from dft_eval.sandbox.command import SYSTEM_FILES, TOP_DIRECTORIES
from dft_eval.sandbox.limits import Limits, Protections
from dft_eval.sandbox.seccomp import SIGNALS, TRUNCATE, refusal_filter

_CREATE_RULESET = 444
_CREATE_RULESET_VERSION = 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_TRUNCATE, _IOCTL_DEVICE = 1 << 14, 1 << 15
#: ABI -> number of rights on files that it knows
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP = 0b11  # bind and connect, since ABI 4
_SCOPES = 0b11  # abstract sockets and signals, since ABI 6
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_READABLE = (
    "/etc/ssl/openssl.cnf",  # Node.js ends where it exists and cannot be read
    "/proc/self",  # of the program itself; its children's own stay closed
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/filesystems",
)
_FIRST_UID, _UIDS = 65_100, 400

_free_uids = list(range(_FIRST_UID, _FIRST_UID + _UIDS))
_lock = Lock()


def abi() -> int:
    """Version of the kernel's Landlock; 0 if it is missing or disabled."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    return max(0, int(version))


@contextlib.contextmanager
def user() -> Iterator[int]:
    """An unused uid; our own if we are not root.

    With it RLIMIT_NPROC counts one program, and programs cannot signal each other.
    """
    if os.getuid() != 0:
        yield os.getuid()
        return
    with _lock:
        uid = _free_uids.pop()
    try:
        yield uid
    finally:
        with _lock:
            _free_uids.append(uid)


@contextlib.contextmanager
def working_directory(uid: int) -> Iterator[str]:
    """A directory of the host for one program, removed afterwards."""
    path = tempfile.mkdtemp(prefix="dft-sandbox-")
    try:
        if os.getuid() == 0:
            os.chown(path, uid, uid)
        yield path
    finally:
        for folder, _, _ in os.walk(path):  # a program may have removed our permissions
            with contextlib.suppress(OSError):
                for entry in os.scandir(folder):
                    if entry.is_dir(follow_symlinks=False):
                        os.chmod(entry.path, 0o700)
        shutil.rmtree(path, ignore_errors=True)


def confinement(home: str, read_only: Sequence[str], protections: Protections) -> dict[str, Any]:
    """Rules that the launcher applies before the program starts (``launcher.confine``)."""
    version = abi()
    handled = (1 << _RIGHTS[min(version, max(_RIGHTS))]) - 1
    readable = TOP_DIRECTORIES if protections.private_root else ("/",)
    writable = [home] if protections.private_root else [home, "/"]
    ruleset = struct.pack(
        "=QQQ", handled, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0
    )
    ruleset = ruleset[: 24 if version >= 6 else 16 if version >= 4 else 8]
    of_devices = handled & (_WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE)
    read = [*readable, "/usr", *SYSTEM_FILES, *_READABLE, *read_only]
    paths = [
        [path, _READ_FILE | _EXECUTE | (_READ_DIR if os.path.isdir(path) else 0)]
        for path in read
        if os.path.exists(path)
    ]
    paths += [[path, of_devices] for path in _DEVICES]
    paths += [[path, handled & ~(_MAKE_CHAR | _MAKE_BLOCK)] for path in writable]
    also = [*(SIGNALS.values() if version < 6 else ()), *(TRUNCATE.values() if version < 3 else ())]
    program = refusal_filter(namespaces=False, also=also) if protections.system_calls else None
    return {
        "ruleset": ruleset.hex(),
        "paths": paths,
        "seccomp": None if program is None else program.hex(),
    }


def usage(home: str, pid: int, limits: Limits) -> tuple[int, int]:
    """Files and bytes of a working directory, including deleted files that are still open.

    A directory that we cannot read (too deep, no permission) counts as more than the limit.
    """
    files = size = 0
    blocked = (limits.files + 1, 0)

    def failed(error: OSError) -> None:
        if error.errno != errno.ENOENT:
            raise error

    try:
        for _, directories, names, folder in os.fwalk(home, onerror=failed):
            files += len(directories) + len(names)
            if files > limits.files:
                return blocked
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    size += 512 * os.stat(name, dir_fd=folder, follow_symlinks=False).st_blocks
    except FileNotFoundError:
        pass
    except (OSError, RecursionError):
        return blocked
    deleted: dict[tuple[int, int], int] = {}
    for child in processes.descendants(pid):
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{child}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"/proc/{child}/fd/{name}")
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        deleted[status.st_dev, status.st_ino] = 512 * status.st_blocks
    return files, size + sum(deleted.values())


def require() -> None:
    """PrerequisiteError if this kernel has no Landlock, or we lack its call numbers."""
    if abi() == 0:
        raise PrerequisiteError(
            "This kernel has no Landlock (Linux 5.13 with `landlock` in /sys/kernel/security/lsm), "
            "or the container's seccomp profile refuses it (Docker before 20.10.10). Boot with "
            "`lsm=landlock,...`, or give --sandbox bubblewrap."
        )
    if refusal_filter() is None:
        raise PrerequisiteError(
            f"No system call numbers for {os.uname().machine}: --sandbox landlock needs x86_64 or "
            "aarch64. Give --sandbox bubblewrap."
        )
    host.interpreter()
