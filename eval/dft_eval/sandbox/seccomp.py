"""The system calls refused inside a sandbox, as a classic BPF program.

Always refused (``ENOSYS``): calls that use memory which neither resource limits nor resident memory
show (memfd, System V IPC, message queues, io_uring), calls that access other processes, and a few
that only widen the attack surface. Sockets are AF_UNIX, AF_INET and AF_INET6 only: AF_VSOCK ignores
network namespaces. Without namespaces (``namespaces=False``) also: every socket except a connected
pair, calls that create or enter namespaces or mounts, and other processes' resource limits.

Numbers: Linux ``arch/x86/entry/syscalls/syscall_64.tbl`` and ``include/uapi/asm-generic/unistd.h``.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable

#: machine -> (AUDIT_ARCH_*, index of the number below)
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

_REFUSED = {
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
}
_REFUSED_WITHOUT_NAMESPACES = {
    "socket": (41, 198),
    "unshare": (272, 97),
    "setns": (308, 268),
    "clone3": (435, 435),  # its flags lie in memory; glibc falls back to clone
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "ptrace": (101, 117),
}
#: Where Landlock cannot scope them (before its ABI 6, Linux 6.12): signals to other processes.
SIGNALS = {
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
}
#: Where Landlock cannot refuse it (before its ABI 3, Linux 6.2).
TRUNCATE = {"truncate": (76, 45)}

_SOCKET, _SOCKETPAIR = (41, 198), (53, 199)
_CLONE, _PRLIMIT = (56, 220), (302, 261)
_FAMILIES = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{USER,NS,PID,NET,IPC,UTS,CGROUP}

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER_OFFSET, _ARCH_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 4, 16
_X32_BIT = 0x40000000

Number = tuple[int, int]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _when(number: int, *block: bytes) -> list[bytes]:
    """``block``, which returns, for one system call."""
    return [_instruction(_JUMP_EQUAL, number, if_false=len(block)), *block]


def _refuse(error: int = errno.ENOSYS) -> bytes:
    return _instruction(_RETURN, _ERRNO | error)


def _allow_if_first_argument(values: Iterable[int], error: int) -> list[bytes]:
    allowed = list(values)
    tests = [
        _instruction(_JUMP_EQUAL, value, if_true=len(allowed) - position)
        for position, value in enumerate(allowed)
    ]
    load = _instruction(_LOAD, _FIRST_ARGUMENT_OFFSET)
    return [load, *tests, _refuse(error), _instruction(_RETURN, _ALLOW)]


def refusal_filter(
    machine: str | None = None, *, namespaces: bool = True, also: Iterable[Number] = ()
) -> bytes | None:
    """The BPF program for ``machine`` (default: this one); None if we lack its call numbers.

    A call through another ABI of the same processor (32 bit, x32) is refused altogether.

    Args:
        namespaces: whether the sandbox has namespaces, which contain the rest.
        also: more calls to refuse.
    """
    architecture = _ARCHITECTURES.get(machine or platform.machine())
    if architecture is None:
        return None
    arch, column = architecture
    refused = [*_REFUSED.values(), *also]
    refused += [] if namespaces else _REFUSED_WITHOUT_NAMESPACES.values()
    program = [
        _instruction(_LOAD, _ARCH_OFFSET),
        _instruction(_JUMP_EQUAL, arch, if_true=1),
        _refuse(),
        _instruction(_LOAD, _NUMBER_OFFSET),
        _instruction(_JUMP_AT_LEAST, _X32_BIT, if_false=1),
        _refuse(),
    ]
    for number in refused:
        program += _when(number[column], _refuse())
    for number in (_SOCKET, _SOCKETPAIR):
        program += _when(number[column], *_allow_if_first_argument(_FAMILIES, errno.EAFNOSUPPORT))
    if not namespaces:
        program += _when(_PRLIMIT[column], *_allow_if_first_argument([0], errno.EPERM))
        program += _when(
            _CLONE[column],
            _instruction(_LOAD, _FIRST_ARGUMENT_OFFSET),
            _instruction(_JUMP_ANY_BIT, _NEW_NAMESPACES, if_false=1),
            _refuse(errno.EPERM),
            _instruction(_RETURN, _ALLOW),
        )
    return b"".join([*program, _instruction(_RETURN, _ALLOW)])
