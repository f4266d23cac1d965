"""The system calls refused inside the sandbox, as a classic BPF program for ``bwrap --seccomp``.

Refused (``ENOSYS``): those that hold memory which neither resource limits nor resident memory show
(memfd, System V IPC, message queues, io_uring) and a few that only widen the attack surface.
Numbers: Linux ``arch/x86/entry/syscalls/syscall_64.tbl`` and ``include/uapi/asm-generic/unistd.h``.
Whether user namespaces may be created is bubblewrap's ``--disable-userns``, not decided here.
"""

from __future__ import annotations

import errno
import platform
import struct

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
}

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.ENOSYS
_NUMBER_OFFSET, _ARCH_OFFSET = 0, 4
_X32_BIT = 0x40000000


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def refusal_filter(machine: str | None = None) -> bytes | None:
    """The BPF program for ``machine`` (default: this one), ``None`` where we know no numbers.

    A call through another ABI of the same processor (32 bit, x32) is refused altogether.
    """
    known = _ARCHITECTURES.get(machine or platform.machine())
    if known is None:
        return None
    arch, column = known
    numbers = [pair[column] for pair in _REFUSED.values()]
    # Jumps count from the next instruction; the last two are ALLOW and REFUSE.
    program = [
        _instruction(_LOAD, _ARCH_OFFSET),
        _instruction(_JUMP_EQUAL, arch, if_true=0, if_false=len(numbers) + 3),
        _instruction(_LOAD, _NUMBER_OFFSET),
        _instruction(_JUMP_AT_LEAST, _X32_BIT, if_true=len(numbers) + 1),
    ]
    for position, number in enumerate(numbers):
        program.append(_instruction(_JUMP_EQUAL, number, if_true=len(numbers) - position))
    program += [_instruction(_RETURN, _ALLOW), _instruction(_RETURN, _REFUSE)]
    return b"".join(program)
