"""Attacks on each protection, run twice: fully protected, and with that one protection off.

With it off, the attack must leave its mark, or the test would prove nothing. Every program limits
itself (at most 60 forks, 250 MB, 40 MB of disk, 60,000 empty files, 20 s) and touches only the
scene of ``support/hostile.py``: a directory, a process, a port, a variable.
``support/hostile_languages.py`` has programs of other languages, ``test_sandbox.py`` harmless ones.
"""

from __future__ import annotations

import os
import site
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import pytest

from dft_eval.sandbox import ALL_PROTECTIONS, Completed, Protections, host
from tests.support.cli import run_command
from tests.support.hostile import (
    CONNECTED,
    DAEMON_GONE,
    DAEMON_UP,
    DECOY_KILLED,
    JUDGED_WRONG,
    MARK,
    MIB,
    NOT_WRITTEN,
    PASSED,
    WRITTEN,
    Attack,
    Evidence,
    Scene,
    attack,
    killed_for,
    launch,
    says,
    scene,
)
from tests.support.hostile_languages import LANGUAGE_ATTACKS
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
        block = b'x' * 40_000_000
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
import time
for number in range(20):
    with open(f'@PLACE@/filler{number}', 'wb') as stream:
        stream.write(bytes(2_000_000))
    time.sleep(@PAUSE@)
"""


def fill(place: str, pause: float = 0) -> str:
    return attempt(FILL.replace("@PLACE@", place).replace("@PAUSE@", str(pause)))


MANY_FILES = attempt("""
for number in range(60_000):
    open(f'{number}', 'w').close()
""")

ROOT_FILLER = attempt("""
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
""")

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

CONNECT = attempt(
    "import socket\nsocket.create_connection(('127.0.0.1', @PORT@), timeout=5).close()"
)

OTHER_ROUTES = attempt("""
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
""")

READ_VARIABLE = attempt("""
import os
with open('/proc/1/environ', 'rb') as stream:
    first = stream.read()
if 'DFT_TEST_SECRET' not in os.environ and b'DFT_TEST_SECRET' not in first:
    raise OSError('no such variable')
""")

MEMFD = attempt("""
import os
held = os.memfd_create('held')
os.write(held, bytes(40_000_000))
""")

REGAIN_CAPABILITIES = attempt("""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000 | 0x00020000):  # CLONE_NEWUSER | CLONE_NEWNS
    raise OSError(ctypes.get_errno(), 'unshare')
status = open('/proc/self/status').read()
if 'CapEff:\\t0000000000000000' in status:
    raise OSError('no capabilities')
""")

KILL_DECOY = attempt("import os\nos.kill(@DECOY@, 9)")

WRITE_TO_HOST = attempt("open('@DIRECTORY@/written', 'w').write('hello')")

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

VSOCK = attempt("import socket\nsocket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()")

# The numbers of x86-64 and of AArch64.
READ_MEMORY = attempt("""
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
""")

DELETED_FILES = attempt("""
import os, time
held = []
for number in range(10):
    held.append(os.open('filler', os.O_CREAT | os.O_RDWR))
    os.unlink('filler')
    os.write(held[-1], bytes(2_000_000))
time.sleep(2)
""")

SLOW_FORKS = FORK_BOMB.replace(
    "children.append(pid)\n", "children.append(pid)\n        time.sleep(0.02)\n"
)

STAT = attempt("import os\nos.stat('@SECRET_FILE@')")
READ_SECRET = attempt("open('@SECRET_FILE@').read()")
ONE_PROCESS = attempt("held = b'x' * 250_000_000")

SMALL_MEMORY = {"memory_bytes": 100 * MIB, "address_space_bytes": 150 * MIB}
SMALL_DISK = {"disk_bytes": 8 * MIB}

NO_CALL = says("OSError [Errno 38]")
NO_SPACE = says("OSError [Errno 28]")
NO_FILE = says("FileNotFoundError")
NO_FILE_OR_PERMISSION = says("FileNotFoundError", "PermissionError")
NO_SOCKET = says("OSError [Errno 97]", "OSError [Errno 38]")
NO_NAMESPACE = says("OSError [Errno 28]", "PermissionError", "OSError [Errno 1]")
FLOODED: Evidence = lambda done, _: len(done.stdout) == 30_000_000  # noqa: E731
DISK: Evidence = lambda done, _: done.killed_for == "disk" or "Errno 28" in done.stdout  # noqa: E731
WALL_TIME, MEMORY, FILES = map(killed_for, ("wall time", "memory", "files"))


def held_by(cause: str) -> Evidence:
    """The watchdog stopped it for this, or the kernel refused it."""
    return lambda done, _: done.killed_for == cause or "contained" in done.stdout


def output_cut(done: Completed, _: Scene) -> bool:
    return done.killed_for == "output" and len(done.stdout) < 70_000


def decoy_lives(done: Completed, scene: Scene) -> bool:
    return "ProcessLookupError" in done.stdout and scene.decoy.poll() is None


def not_connected(done: Completed, scene: Scene) -> bool:
    return "contained: " in done.stdout and not scene.connected()


ATTACKS = [
    attack("fork bomb", "processes", FORK_BOMB, says("BlockingIOError"), processes=16),
    attack("memory of one process", "memory", ONE_PROCESS, says("MemoryError"), **SMALL_MEMORY),
    attack("memory of many processes", "memory", MEMORY_IN_CHILDREN, MEMORY, **SMALL_MEMORY),
    attack("memory of no process", "system_calls", MEMFD, NO_CALL),
    attack("opens a socket outside any network namespace", "system_calls", VSOCK, NO_SOCKET),
    *(
        attack(f"calls {name}", "system_calls", READ_MEMORY.replace("@WHICH@", which), NO_CALL)
        for which, name in {"0": "process_vm_readv", "1": "process_vm_writev", "2": "kcmp"}.items()
    ),
    attack("learns that a file exists", "private_root", STAT, NO_FILE),
    attack("fills the working directory slowly", "disk", fill(".", 0.2), DISK, **SMALL_DISK),
    attack("fills the disk with deleted files", "disk", DELETED_FILES, DISK, **SMALL_DISK),
    attack("forks slowly", "processes", SLOW_FORKS, held_by("processes"), processes=16),
    attack("fills the working directory", "disk", fill("."), NO_SPACE, **SMALL_DISK),
    attack("fills shared memory", "disk", fill("/dev/shm"), NO_SPACE, **SMALL_DISK),
    attack("fills the kernel with empty files", "disk", MANY_FILES, FILES, files=1_000),
    attack("fills the bare root", "read_only_root", ROOT_FILLER, says("OSError [Errno 30]")),
    attack("floods stdout", "output", FLOOD, output_cut, FLOODED, output_kill_bytes=2 * MIB),
    attack("loops for ever", "wall_time", LOOP, WALL_TIME, wall_seconds=1),
    attack("ignores signals", "wall_time", DEAF, WALL_TIME, wall_seconds=1),
    attack("leaves a daemon", "pid_namespace", DAEMON, DAEMON_GONE, DAEMON_UP),
    attack("kills another process", "pid_namespace", KILL_DECOY, decoy_lives, DECOY_KILLED),
    attack("connects to this host", "network", CONNECT, not_connected, CONNECTED),
    attack("reads a file below home", "private_root", READ_SECRET, NO_FILE),
    attack("reads it by other routes", "private_root", OTHER_ROUTES, NO_FILE_OR_PERMISSION),
    attack("writes to this host", "private_root", WRITE_TO_HOST, NOT_WRITTEN, WRITTEN),
    attack("meets no sandbox at all", "sandbox", WRITE_TO_HOST, NOT_WRITTEN, WRITTEN),
    attack("reads a variable", "environment", READ_VARIABLE, says("OSError no such variable")),
    attack("regains capabilities", "no_new_userns", REGAIN_CAPABILITIES, NO_NAMESPACE),
    attack("leaves before the tests", "markers", "exit(0)", JUDGED_WRONG, PASSED),
    attack("guesses the marker", "markers", GUESS_MARKER, JUDGED_WRONG, PASSED),
    *LANGUAGE_ATTACKS,
]

__all__ = ["scene"]  # a fixture

PYTHON_ATTACKS = [attack for attack in ATTACKS if attack.language is None]
each_attack = pytest.mark.parametrize(
    "attack", ATTACKS, ids=lambda attack: f"{attack.language or 'python'}: {attack.name}"
)


LANDLOCK_LETS_THROUGH = {
    "learns that a file exists": "stat() is not restricted",
    "fills the working directory": "the disk is sampled: a burst between two samples succeeds",
    "PHP fills the disk": "the same",
}
"""What Landlock without namespaces does not contain. Each row is proven below."""

LANDLOCK_CONTAINS_OTHERWISE: dict[str, Evidence] = {
    "fork bomb": held_by("processes"),
    "fills shared memory": says("PermissionError"),
    "fills the bare root": says("PermissionError"),
    "kills another process": lambda done, scene: (
        "PermissionError" in done.stdout and scene.decoy.poll() is None
    ),
    "reads a file below home": says("PermissionError"),
    "reads a variable": says("PermissionError", "OSError no such variable"),
    "regains capabilities": says("OSError [Errno 38]"),
    # It waits for its daemon by listing /proc, which is closed to it.
    "JavaScript leaves a daemon": lambda done, _: "node:fs" in done.stderr,
}
"""Contained as well, with another error than in namespaces."""


@each_attack
def test_landlock_contains_or_is_listed(attack: Attack, scene: Scene) -> None:
    with landlock():
        done = launch(attack, scene, ALL_PROTECTIONS)
    if attack.name == "fork bomb" and os.getuid() != 0:
        # Without a uid of its own, processes are sampled: a burst may end between two samples.
        assert done.finished or done.killed_for == "processes", done
        assert not scene.daemons()
        return
    lists = LANDLOCK_LETS_THROUGH, LANDLOCK_CONTAINS_OTHERWISE
    assert_contained_or_listed(done, scene, attack, *lists)


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


def test_each_protection_has_an_attack() -> None:
    protections = {attack.protection for attack in PYTHON_ATTACKS}
    assert protections == {field.name for field in fields(Protections)}


def test_landlock_contains_them_without_root() -> None:
    """The Python programs, launched by uid 65534, which cannot drop to another uid."""
    with landlock():
        root = Path(__file__).parents[2]
    paths = [str(root), str(root / "eval"), *site.getsitepackages()]
    command = [host.interpreter().path, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [Path(__file__).relative_to(root), "-k", "landlock_contains_or and python:"]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            "TMPDIR": folder,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(paths),
        }
        output = run_command(command, cwd=root, env=environment, **host.user_options()).stdout
    assert f"{len(PYTHON_ATTACKS)} passed" in output, output
