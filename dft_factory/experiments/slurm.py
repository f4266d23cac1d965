"""SLURM jobs that outlive the ``dft-factory run`` that submitted them.

snakemake-executor-plugin-slurm 2.8.0 does not know the jobs of a former call and submits them again
while they run. Their names tell which experiment they belong to.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

from dft_factory.errors import DftFactoryError, MissingDependencyError

POLL_SECONDS = 5
ATTEMPTS = 60
"""Of asking SLURM: a busy or restarting controller does not answer for a while."""


def job_name_prefix(root: Path) -> str:
    """What the names of all SLURM jobs of the experiment in ``root`` begin with."""
    return f"dft-{hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]}"


def wait_for_jobs(root: Path) -> None:
    """Wait until no SLURM job of the experiment in ``root`` is queued or runs.

    They are not cancelled: they may have waited for days, and what they finish is not done again.

    Raises:
        MissingDependencyError: this machine has no SLURM commands.
        DftFactoryError: SLURM does not answer.
    """
    jobs = queued_jobs(root)
    if not jobs:
        return
    sys.stderr.write(
        "dft-factory: waiting for SLURM jobs of an earlier run of this experiment: "
        f"{', '.join(jobs)}. What they finish is not done again. To give them up: "
        f"scancel {' '.join(jobs)}\n"
    )
    while jobs:
        time.sleep(POLL_SECONDS)
        jobs = queued_jobs(root)


def queued_jobs(root: Path) -> list[str]:
    """Ids of the experiment's jobs that are queued or run; raises as :func:`wait_for_jobs`."""
    prefix = job_name_prefix(root)
    rows = [line.split(maxsplit=1) for line in _squeue().splitlines()]
    return [row[0] for row in rows if len(row) == 2 and row[1].startswith(prefix)]


def _squeue() -> str:
    """Id and name of each of the user's jobs; asks again while SLURM does not answer."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            answer = subprocess.run(
                ["squeue", "--me", "--noheader", "--format=%A %j"],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError as error:
            raise MissingDependencyError(
                "--executor slurm: squeue is not on PATH. Run this where SLURM is installed, "
                "usually a login node."
            ) from error
        if answer.returncode == 0:
            return answer.stdout
        message = f"squeue failed: {answer.stderr.strip()}"
        if attempt == 1:
            minutes = ATTEMPTS * POLL_SECONDS // 60
            sys.stderr.write(f"dft-factory: {message}. Asking again for {minutes} minutes.\n")
        time.sleep(POLL_SECONDS)
    raise DftFactoryError(f"--executor slurm: {message}. Try `sinfo`.")
