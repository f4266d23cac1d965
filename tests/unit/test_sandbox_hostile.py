"""Attacks on each protection, run twice: fully protected, and with that one protection off.

With it off, the attack must leave its mark, or the test would prove nothing. Every program limits
itself (at most 60 forks, 250 MB, 40 MB of disk, 60,000 empty files, 20 s) and touches only what
``support/hostile.py`` made for it: a directory, a process, a port, a variable. ``test_sandbox.py``
has harmless programs, ``test_sandbox_hostile_languages.py`` other languages.
"""

from __future__ import annotations

import os
import signal
import site
import subprocess
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import pytest

from dft_eval.sandbox import ALL_PROTECTIONS, Protections, host
from tests.support.hostile import (
    JUDGED_WRONG,
    MARK,
    MIB,
    PASSED,
    Attack,
    Evidence,
    Scene,
    killed_for,
    launch,
    says,
    scene,
)
from tests.support.landlock import assert_contained_or_listed, landlock


def attempt(body: str) -> str:
    """``body`` with the mark printed after it, or the error that stopped it."""
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return (
        f"try:\n{indented}\nexcept (OSError, MemoryError) as error:\n"
        "    print('contained:', type(error).__name__, error, flush=True)\n"
        "else:\n    print('@MARK@', flush=True)\n"
    )


FORK_BOMB = """
import os, signal, time
children = []
try:
    for _ in range(60):
        pid = os.fork()
        if pid == 0:
            time.sleep(10)
            os._exit(0)
        children.append(pid)
    print('@MARK@', len(children))
except OSError as error:
    print('contained:', type(error).__name__, len(children))
for pid in children:
    os.kill(pid, signal.SIGKILL)
"""

MEMORY_IN_CHILDREN = """
import os, time
ready, done = os.pipe()
for _ in range(5):
    if os.fork() == 0:
        held = b'x' * 40_000_000
        os.write(done, b'.')
        time.sleep(3)
        os._exit(0)
have = b''
while len(have) < 5:
    have += os.read(ready, 5)
time.sleep(1)
print('@MARK@')
"""

FILL = """
import os
for number in range(20):
    with open(f'@PLACE@/filler{number}', 'wb') as stream:
        stream.write(bytes(2_000_000))
"""

MANY_FILES = """
for number in range(60_000):
    open(f'{number}', 'w').close()
"""

ROOT_FILLER = """
import os
errors = []
for place in ('/', '/dev'):
    try:
        with open(os.path.join(place, 'filler'), 'wb') as stream:
            stream.write(bytes(20_000_000))
    except OSError as error:
        errors.append(error)
if len(errors) == 2:
    raise errors[0]
"""

FLOOD = """
import os
for _ in range(30):
    os.write(1, b'x' * 1_000_000)
"""

LOOP = """
import time
end = time.monotonic() + 4
while time.monotonic() < end:
    pass
print('@MARK@')
"""

DEAF = """
import os, signal, time
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
os.fork()
end = time.monotonic() + 4
while time.monotonic() < end:
    time.sleep(0.1)
print('@MARK@')
"""

DAEMON = """
import ctypes, os, time
up, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, b'@DAEMON@', 0, 0, 0)
        os.write(tell, b'.')
        for stream in (0, 1, 2):
            os.close(stream)
        time.sleep(15)
    os._exit(0)
os.read(up, 1)
print('daemon is up')
"""

CONNECT = """
import socket
socket.create_connection(('127.0.0.1', @PORT@), timeout=5).close()
"""

OTHER_ROUTES = """
import os
target = '@SECRET_FILE@'
os.symlink(target, 'link')
os.symlink('../' * 20 + target.lstrip('/'), 'climb')
routes = ['link', 'climb', '/proc/self/root' + target, '/proc/1/root' + target]
routes += ['/proc/1/cwd' + '/..' * 20 + target, '/proc/self/cwd' + '/..' * 20 + target]
for route in routes:
    try:
        open(route).read()
    except OSError as caught:
        error = caught
    else:
        break
else:
    raise error
"""

READ_VARIABLE = """
import os
with open('/proc/1/environ', 'rb') as stream:
    first = stream.read()
if 'DFT_TEST_SECRET' not in os.environ and b'DFT_TEST_SECRET' not in first:
    raise OSError('no such variable')
"""

MEMFD = """
import os
held = os.memfd_create('held')
os.write(held, bytes(40_000_000))
"""

REGAIN_CAPABILITIES = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000 | 0x00020000):  # CLONE_NEWUSER | CLONE_NEWNS
    raise OSError(ctypes.get_errno(), 'unshare')
status = open('/proc/self/status').read()
if 'CapEff:\\t0000000000000000' in status:
    raise OSError('no capabilities')
"""

KILL_DECOY = """
import os
os.kill(@DECOY@, 9)
"""

WRITE_TO_HOST = """
open('@DIRECTORY@/written', 'w').write('hello')
"""

GUESS_MARKER = """
import glob, os, re, sys
seen = ' '.join(sys.orig_argv) + repr(dict(os.environ))
for pattern in ('/proc/*/cmdline', '/proc/*/environ', '/proc/*/fd/*', '/work/*', '/dev/shm/*'):
    for path in glob.glob(pattern):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            seen += os.read(handle, 1_000_000).decode(errors='replace')
        except OSError:
            pass
guesses = ['finish', 'finished', 'passed', 'OK', '0' * 32] + re.findall('[0-9a-f]{16,}', seen)
for descriptor in range(1, 64):
    try:
        os.write(descriptor, '\\n'.join(guesses).encode())
    except OSError:
        pass
os._exit(0)
"""

VSOCK = """
import socket
socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
"""

# The numbers of x86-64 and of AArch64.
READ_MEMORY = """
import ctypes, os, platform
number = {'x86_64': (310, 311, 312), 'aarch64': (270, 271, 272)}[platform.machine()][@WHICH@]
libc = ctypes.CDLL(None, use_errno=True)
held = ctypes.create_string_buffer(b'held', 8)
class Vector(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
vector = Vector(ctypes.addressof(held), 4)
me = os.getpid()
vectors = (ctypes.byref(vector), ctypes.c_ulong(1)) * 2
arguments = (me, me, 0, 0, 0) if @WHICH@ == 2 else (me, *vectors, ctypes.c_ulong(0))
if libc.syscall(number, *arguments) < 0:
    raise OSError(ctypes.get_errno(), 'refused')
"""

DELETED_FILES = """
import os, time
held = []
for number in range(10):
    held.append(os.open('filler', os.O_CREAT | os.O_RDWR))
    os.unlink('filler')
    os.write(held[-1], bytes(2_000_000))
time.sleep(2)
"""

SLOW_FILL = (
    FILL.replace("@PLACE@", ".").replace("import os", "import time") + "    time.sleep(0.2)\n"
)
SLOW_FORKS = FORK_BOMB.replace(
    "children.append(pid)\n", "children.append(pid)\n        time.sleep(0.02)\n"
)

STAT = """
import os
os.stat('@SECRET_FILE@')
"""

SMALL_MEMORY = {"memory_bytes": 100 * MIB, "address_space_bytes": 150 * MIB}
SMALL_DISK = {"disk_bytes": 8 * MIB}
ONE_SECOND = {"wall_seconds": 1}

ATTACKS = [
    Attack("fork bomb", "processes", FORK_BOMB, says("BlockingIOError"), limits={"processes": 16}),
    Attack(
        "memory of one process",
        "memory",
        attempt("held = b'x' * 250_000_000"),
        says("MemoryError"),
        limits=SMALL_MEMORY,
    ),
    Attack(
        "memory of many processes",
        "memory",
        MEMORY_IN_CHILDREN,
        killed_for("memory"),
        limits=SMALL_MEMORY,
    ),
    Attack("memory of no process", "system_calls", attempt(MEMFD), says("OSError [Errno 38]")),
    Attack(
        "opens a socket that no network namespace holds",
        "system_calls",
        attempt(VSOCK),
        says("OSError [Errno 97]", "OSError [Errno 38]"),
    ),
    *(
        Attack(
            f"calls {name}",
            "system_calls",
            attempt(READ_MEMORY.replace("@WHICH@", str(which))),
            says("OSError [Errno 38]"),
        )
        for which, name in enumerate(("process_vm_readv", "process_vm_writev", "kcmp"))
    ),
    Attack("learns that a file exists", "private_root", attempt(STAT), says("FileNotFoundError")),
    Attack(
        "fills the working directory slowly",
        "disk",
        attempt(SLOW_FILL),
        lambda done, _: done.killed_for == "disk" or "Errno 28" in done.stdout,
        limits=SMALL_DISK,
    ),
    Attack(
        "fills the disk with deleted files",
        "disk",
        attempt(DELETED_FILES),
        lambda done, _: done.killed_for == "disk" or "Errno 28" in done.stdout,
        limits=SMALL_DISK,
    ),
    Attack(
        "forks slowly",
        "processes",
        SLOW_FORKS,
        lambda done, _: done.killed_for == "processes" or "contained" in done.stdout,
        limits={"processes": 16},
    ),
    Attack(
        "fills the working directory",
        "disk",
        attempt(FILL.replace("@PLACE@", ".")),
        says("OSError [Errno 28]"),
        limits=SMALL_DISK,
    ),
    Attack(
        "fills shared memory",
        "disk",
        attempt(FILL.replace("@PLACE@", "/dev/shm")),
        says("OSError [Errno 28]"),
        limits=SMALL_DISK,
    ),
    Attack(
        "fills the kernel with empty files",
        "disk",
        attempt(MANY_FILES),
        killed_for("files"),
        limits={"files": 1_000},
    ),
    Attack(
        "fills the bare root", "read_only_root", attempt(ROOT_FILLER), says("OSError [Errno 30]")
    ),
    Attack(
        "floods stdout",
        "output",
        FLOOD,
        lambda done, _: done.killed_for == "output" and len(done.stdout) < 70_000,
        mark=lambda done, _: len(done.stdout) == 30_000_000,
        limits={"output_kill_bytes": 2 * MIB},
    ),
    Attack("loops for ever", "wall_time", LOOP, killed_for("wall time"), limits=ONE_SECOND),
    Attack("ignores signals", "wall_time", DEAF, killed_for("wall time"), limits=ONE_SECOND),
    Attack(
        "leaves a daemon",
        "pid_namespace",
        DAEMON,
        lambda done, scene: "daemon is up" in done.stdout and not scene.daemons(),
        mark=lambda done, scene: "daemon is up" in done.stdout and len(scene.daemons()) == 1,
    ),
    Attack(
        "kills another process",
        "pid_namespace",
        attempt(KILL_DECOY),
        lambda done, scene: "ProcessLookupError" in done.stdout and scene.decoy.poll() is None,
        mark=lambda _, scene: scene.decoy.wait(timeout=10) == -signal.SIGKILL,
    ),
    Attack(
        "connects to this host",
        "network",
        attempt(CONNECT),
        lambda done, scene: "contained: " in done.stdout and not scene.connected(),
        mark=lambda _, scene: scene.connected(),
    ),
    Attack(
        "reads a file below home",
        "private_root",
        attempt("open('@SECRET_FILE@').read()"),
        says("FileNotFoundError"),
    ),
    Attack(
        "reads it by other routes",
        "private_root",
        attempt(OTHER_ROUTES),
        says("FileNotFoundError", "PermissionError"),
    ),
    Attack(
        "writes to this host",
        "private_root",
        attempt(WRITE_TO_HOST),
        lambda _, scene: not (scene.directory / "written").exists(),
        mark=lambda _, scene: (scene.directory / "written").read_text() == "hello",
    ),
    Attack(
        "meets no sandbox at all",
        "sandbox",
        attempt(WRITE_TO_HOST),
        lambda _, scene: not (scene.directory / "written").exists(),
        mark=lambda _, scene: (scene.directory / "written").read_text() == "hello",
    ),
    Attack(
        "reads a variable",
        "environment",
        attempt(READ_VARIABLE),
        says("OSError no such variable"),
    ),
    Attack(
        "regains capabilities",
        "no_new_userns",
        attempt(REGAIN_CAPABILITIES),
        says("OSError [Errno 28]", "PermissionError", "OSError [Errno 1]"),
    ),
    Attack("leaves before the tests", "markers", "exit(0)", JUDGED_WRONG, mark=PASSED),
    Attack("guesses the marker", "markers", GUESS_MARKER, JUDGED_WRONG, mark=PASSED),
]

__all__ = ["scene"]  # a fixture

each_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


LANDLOCK_LETS_THROUGH = {
    "learns that a file exists": "stat() is not restricted",
    "fills the working directory": "the disk is sampled: a burst between two looks gets through",
}
"""What the tier without namespaces does not contain. Each row is proven below."""

LANDLOCK_CONTAINS_OTHERWISE: dict[str, Evidence] = {
    # The fork fails or the watchdog ends it, whichever comes first.
    "fork bomb": lambda done, _: "contained" in done.stdout or done.killed_for == "processes",
    "fills shared memory": says("PermissionError"),
    "fills the bare root": says("PermissionError"),
    "kills another process": lambda done, scene: (
        "PermissionError" in done.stdout and scene.decoy.poll() is None
    ),
    "reads a file below home": says("PermissionError"),
    "reads a variable": says("PermissionError", "OSError no such variable"),
    "regains capabilities": says("OSError [Errno 38]"),
}
"""Contained all the same, with another error than in namespaces."""


@each_attack
def test_landlock_contains_or_is_listed(attack: Attack, scene: Scene) -> None:
    with landlock():
        done = launch(attack, scene, ALL_PROTECTIONS)
    if attack.name == "fork bomb" and os.getuid() != 0:
        # Without a uid of its own, processes are sampled: a burst may end between two looks.
        assert done.finished or done.killed_for == "processes", done
        assert not scene.daemons()
        return
    assert_contained_or_listed(
        done,
        scene,
        attack,
        lets_through=LANDLOCK_LETS_THROUGH,
        contains_otherwise=LANDLOCK_CONTAINS_OTHERWISE,
    )


def test_the_lists_name_attacks() -> None:
    names = {attack.name for attack in ATTACKS}
    assert len(names) == len(ATTACKS)
    assert {*LANDLOCK_LETS_THROUGH, *LANDLOCK_CONTAINS_OTHERWISE} <= names


@each_attack
def test_contained(attack: Attack, scene: Scene) -> None:
    done = launch(attack, scene, ALL_PROTECTIONS)
    assert attack.contained(done, scene), done
    assert MARK not in done.stdout


@each_attack
def test_leaves_its_mark_without_its_one_protection(attack: Attack, scene: Scene) -> None:
    done = launch(attack, scene, replace(ALL_PROTECTIONS, **{attack.protection: False}))
    assert attack.mark(done, scene), done


def test_every_protection_has_its_attack() -> None:
    assert {attack.protection for attack in ATTACKS} == {f.name for f in fields(Protections)}


def test_landlock_contains_them_without_root() -> None:
    """The same programs, launched by uid 65534, which can drop to no uid of its own."""
    with landlock():
        root = Path(__file__).parents[2]
    paths = [str(root), str(root / "eval"), *site.getsitepackages()]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        done = subprocess.run(
            [
                *(host.interpreter().path, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *(str(Path(__file__).relative_to(root)), "-k", "test_landlock_contains_or"),
            ],
            cwd=root,
            env={
                "PATH": os.environ["PATH"],
                "HOME": folder,
                "TMPDIR": folder,
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONPATH": os.pathsep.join(paths),
            },
            capture_output=True,
            text=True,
            check=False,
            **host.user_options(),
        )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{len(ATTACKS)} passed" in done.stdout, done.stdout
