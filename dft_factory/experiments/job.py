"""``python -m dft_factory.experiments.job PLAN JOB``: one job of an experiment, wherever it runs.

Holds the job's lock, removes what other settings left, runs its commands with their output in its
log, and writes its stamp when everything that the job makes is there.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dft_eval.errors import EvaluationError
from dft_eval.processes import die_with_parent, is_alive
from dft_eval.progress import tail
from dft_eval.results import atomic_write
from dft_factory.experiments.plan import Job, Plan, read_plan

if TYPE_CHECKING:
    from dft_eval.report import MissingRun

RUN_PROCESS = "DFT_FACTORY_RUN_PROCESS"
"""Process id of the ``dft-factory run`` on this machine with which a local job ends."""

GPUS = "DFT_FACTORY_RUN_GPUS"
"""Ids of the GPUs that local jobs share, joined by commas."""


def main() -> int:
    """Run one job; gives the exit status of the command that failed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path, help="plan.json of the experiment")
    parser.add_argument("job", help="name of a job of the plan")
    parser.add_argument("--threads", type=int, help="of its commands")
    parser.add_argument("--report", action="store_true", help="write the report of that name")
    args = parser.parse_args()
    plan = read_plan(args.plan)
    os.chdir(plan.cwd)
    if args.report:
        try:
            compare(plan, args.job)
        except EvaluationError as error:
            _say(str(error))
            return error.exit_status
        return 0
    job, root = plan.jobs[args.job], Path(plan.root)
    # The commands of this environment, whether it is activated or not.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {**os.environ, "PATH": path}
    if args.threads:
        environment["OMP_NUM_THREADS"] = str(args.threads)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(_locked(root / job.lock, job.name))
        need = plan.resources[job.stage].gpus if job.stage in plan.resources else 0
        if need and GPUS in environment:
            ids = environment[GPUS].split(",")
            environment["CUDA_VISIBLE_DEVICES"] = stack.enter_context(hold_gpus(ids, need))
        return _run(job, root, environment, lock)


def _run(job: Job, root: Path, environment: Mapping[str, str], lock: int) -> int:
    started = time.monotonic()
    _say(f"{job.name}: started, {root / job.log}")
    clear(job, root)
    log = root / job.log
    with log.open("ab") as stream:
        for words in job.commands:
            stream.write(f"$ {' '.join(words)}\n".encode())
            stream.flush()
            status = _call(words, stream.fileno(), environment, lock)
            if status:
                _say(f"{job.name}: failed (exit status {status}); the end of {log}:")
                sys.stderr.write(f"{tail(log)}\n")
                return status
    missing = [path for path in job.makes if not Path(path).exists()]
    if missing:
        _say(f"{job.name}: its command ended well, but made no {', '.join(missing)}.")
        return 1
    atomic_write(root / job.stamp, job.stamp_text)
    _say(f"{job.name}: done in {time.monotonic() - started:.0f} s")
    return 0


def clear(job: Job, root: Path) -> None:
    """Remove what other settings left, and a training without a checkpoint to go on from.

    The lock file holds the settings of the last start.
    """
    former = (root / job.lock).read_text(encoding="utf-8")
    lost = job.stage == "train" and not any(Path(job.makes[0]).glob("checkpoint-*"))
    if former != job.settings or job.stage == "prepare" or lost:
        (root / job.log).unlink(missing_ok=True)
        for path in map(Path, job.outdated):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    (root / job.lock).write_text(job.settings, encoding="utf-8")


def _call(words: Sequence[str], log: int, environment: Mapping[str, str], lock: int) -> int:
    """Run one command; it ends with this process and with the ``dft-factory run`` that began it."""
    process = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
        pass_fds=(lock,),  # nobody runs the job again while one of its processes lives
        preexec_fn=die_with_parent,
    )

    def stop(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def on_signal(number: int, _: object) -> None:
        stop()
        os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, on_signal)
    owner = os.environ.get(RUN_PROCESS)
    if owner is not None:
        threading.Thread(target=_watch, args=(int(owner), stop), daemon=True).start()
    status = process.wait()
    return 128 - status if status < 0 else status


def _watch(owner: int, stop: Callable[[], None]) -> None:
    """Stop the command when the process ``owner`` is gone."""
    while is_alive(owner):
        time.sleep(0.5)
    stop()
    os._exit(1)


@contextlib.contextmanager
def _locked(path: Path, what: str) -> Iterator[int]:
    """Wait until no other process runs the same job."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"{what}: waiting for another process that runs it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream.fileno()


@contextlib.contextmanager
def hold_gpus(ids: Sequence[str], count: int) -> Iterator[str]:
    """Hold ``count`` of the GPUs that no other job of this user on this machine holds."""
    folder = Path(tempfile.gettempdir()) / f"dft-factory-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        held: list[str] = []
        while len(held) < count:
            for id in ids:
                stream = (folder / id).open("w")
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    stream.close()
                    continue
                stack.enter_context(stream)
                held.append(id)
                if len(held) == count:
                    break
            else:
                time.sleep(1)
        yield ",".join(held)


def _say(text: str) -> None:
    sys.stderr.write(f"dft-factory: {text}\n")
    sys.stderr.flush()


def compare(plan: Plan, name: str, missing: Sequence[MissingRun] = ()) -> Path:
    """Write one report of an experiment; gives its page."""
    from dft_eval.report import build_report

    comparison = plan.reports[name]
    folders = [
        Path(folder) for folder in comparison.jobs if (Path(folder) / "results.json").is_file()
    ]
    return build_report(
        folders,
        Path(comparison.out),
        title=comparison.title,
        against_paper=comparison.against_paper,
        pairs=comparison.pairs or None,
        missing=missing,
    ).html


if __name__ == "__main__":
    sys.exit(main())
