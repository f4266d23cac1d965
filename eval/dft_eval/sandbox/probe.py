"""Prove that a sandbox works on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dft_eval.errors import PrerequisiteError
from dft_eval.sandbox.execution import Job, execute
from dft_eval.sandbox.interface import Sandbox
from dft_eval.sandbox.limits import RunConfig

_PROBE = """
import hashlib, os, socket
open('probe', 'w').write('x' * 1000)
for place in ('/probe', '/usr/probe', '/dev/probe', '/dev/shm/../probe', '/var/tmp/probe'):
    try:
        open(place, 'w')
    except OSError:
        pass
    else:
        raise AssertionError(place + ' can be written')
for place, digest in HOST.items():
    try:
        seen = hashlib.sha256(open(place, 'rb').read()).hexdigest()
        assert seen != digest, place + ' of the host can be read'
    except OSError:
        pass
"""
_HOST_FILES = ("/etc/passwd", "/etc/hostname")
"""A container engine mounts its own files at these paths."""

_PROBE_NAMESPACES = """
assert os.getuid() == 65534 and os.getcwd() == '/work', (os.getuid(), os.getcwd())
assert [line.split(':')[0].strip() for line in open('/proc/net/dev')][2:] == ['lo']
assert len([name for name in os.listdir('/proc') if name.isdigit()]) <= 3
"""
_PROBE_WITHOUT = """
try:
    open('/proc/1/environ').read()
except OSError:
    pass
else:
    raise AssertionError('/proc/1/environ can be read')
try:
    socket.socket()
except OSError:
    pass
else:
    raise AssertionError('a socket can be made')
try:
    os.kill(os.getppid(), 0)
except OSError:
    pass
else:
    raise AssertionError('other processes can be signalled')
"""

_NOT_PERMITTED = (
    "namespace",
    "uid map",
    "uid_map",
    "Operation not permitted",
    "userns",
    "mount proc",
)


def prove(backend: Sandbox) -> None:
    """Prove with a harmless program that ``backend`` works and contains it.

    Raises:
        PrerequisiteError: it does not; the message has the reason and the fix.
    """
    name = backend.describe()
    host = {
        path: hashlib.sha256(Path(path).read_bytes()).hexdigest()
        for path in _HOST_FILES
        if Path(path).is_file()
    }
    probe = f"HOST = {host!r}\n{_PROBE}"
    probe += _PROBE_WITHOUT if backend.name == "landlock" else _PROBE_NAMESPACES
    job = Job.of_program(probe, "assert open('probe').read() == 'x' * 1000")
    result = execute(job, RunConfig(), backend)
    if result.score == 1.0:
        return
    message = (result.stderr.strip() or result.reason)[-1000:]
    if (
        backend.namespaces
        and not result.started
        and any(text in message for text in _NOT_PERMITTED)
    ):
        raise PrerequisiteError(
            f"{name} may not create namespaces on this machine: {message}\n"
            "Permit user namespaces: `sysctl -w user.max_user_namespaces=10000` and, where it "
            "exists, `sysctl -w kernel.unprivileged_userns_clone=1` (Ubuntu from 23.10: "
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`); a Docker container needs "
            "`--security-opt seccomp=unconfined --security-opt apparmor=unconfined "
            "--security-opt systempaths=unconfined`."
        )
    raise PrerequisiteError(
        f"{name} does not run or does not contain a harmless program: {message}\n"
        "Score on another machine, or see `dft-factory eval --help` for --sandbox and "
        "--unsafe-no-sandbox."
    )
