"""``python -m dft_eval.serving.guard OWNER COMMAND...``: run a server that does not outlive OWNER.

The guard is the parent of the server. It watches its own parent, the process OWNER, and ends the
server with everything that it started when OWNER is gone (killed with SIGKILL, too) or when the
guard itself gets SIGTERM. PR_SET_PDEATHSIG in the server alone would not do: the kernel clears it
for the children, and with ``uv tool run`` the server is one, with worker processes of its own.

Exit status: the server's; 128 + N where signal N ended it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time

from dft_eval.processes import children, die_with_parent, end_descendants

GRACE_SECONDS = 10.0
"""From SIGTERM to SIGKILL."""
_TICK_SECONDS = 0.1
_PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Run the server until it ends, OWNER ends, or SIGTERM arrives."""
    owner, words = int(sys.argv[1]), sys.argv[2:]
    # Processes whose parent ended become children of the guard, so that none escapes.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    try:
        server = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # For the case that the guard itself is killed.
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        sys.stderr.write(f"{words[0]}: {error.strerror}\n")
        return 127
    while server.poll() is None and not stopped and os.getppid() == owner:
        time.sleep(_TICK_SECONDS)
    _end(server)
    status = server.poll()
    if status is None:
        sys.stderr.write(f"Process {server.pid} survives SIGKILL (a hanging driver or disk?).\n")
        return 1
    return 128 - status if status < 0 else status


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server's session: SIGTERM, time to clean up, then SIGKILL to all that is left."""
    if server.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(GRACE_SECONDS)
    end_descendants(os.getpid())
    server.poll()
    for child in children(os.getpid()):  # adopted: reaped here, since process 1 may reap nothing
        if child != server.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)


if __name__ == "__main__":
    sys.exit(main())
