"""Run and judge programs in the sandbox of this process."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from dft_eval.sandbox.backends import UNCONFINED
from dft_eval.sandbox.execution import Job, execute
from dft_eval.sandbox.interface import Sandbox
from dft_eval.sandbox.limits import ALL_PROTECTIONS, Completed, Limits, Protections, RunConfig
from dft_eval.sandbox.selection import selected

_DEFAULT_LIMITS = Limits()


def check_program(
    solution: str,
    test: str,
    *,
    limits: Limits = _DEFAULT_LIMITS,
    protections: Protections = ALL_PROTECTIONS,
    backend: Sandbox | None = None,
) -> Completed:
    """Run ``solution`` and then ``test`` in one Python module; see :attr:`Completed.score`.

    They are compiled separately, so a solution cannot swallow the test in an open string. The
    module is not ``__main__``: guarded blocks do not run, as in HumanEval. Standard input is empty.

    Raises:
        PrerequisiteError: no bubblewrap or Python that the sandbox's user can run.
        EvaluationError: a process survives SIGKILL.
    """
    job = Job.of_program(solution, test)
    done = _run(job, RunConfig(limits, protections), backend)
    if protections.markers:
        return done
    return replace(done, finished=done.exit_code == 0)


def check_commands(
    commands: Sequence[Sequence[str]],
    *,
    files: Mapping[str, bytes],
    read_only: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    complaints: Sequence[str] = (),
    limits: Limits = _DEFAULT_LIMITS,
    protections: Protections = ALL_PROTECTIONS,
) -> Completed:
    """Compile and judge a program of any language; see :attr:`Completed.score`.

    The last of ``commands`` gets two secrets on standard input, one per line, and passes by
    printing the second directly followed by the first. The driver in ``files`` does this: it reads
    them before model code runs where its language can, so that the program has an empty standard
    input, and prints them after the tests.

    Args:
        commands: Run one after the other, in one sandbox, until one fails.
        files, read_only, variables: as for :func:`run`.
        complaints: Texts that fail a program whose standard error contains one.
        limits: Wall time, memory, disk and output hold for all commands together, the others for
            each.

    Raises:
        ValueError, PrerequisiteError, EvaluationError: as :func:`run`.
    """
    _check(commands, files)
    first, second = secrets.token_hex(16), secrets.token_hex(16)
    marker = second + first
    header = {"commands": [list(command) for command in commands], "input": f"{first}\n{second}\n"}
    done = _run(
        Job(header, files, marker=marker, complaints=complaints),
        RunConfig(limits, protections, read_only, variables or {}),
    )
    passed = done.exit_code == 0 and done.started and done.complaint is None
    if protections.markers:
        passed = passed and done.finished
    return replace(done, finished=passed, stdout=done.stdout.replace(marker, ""))


def run(
    command: Sequence[str],
    *,
    files: Mapping[str, bytes] | None = None,
    payload: bytes = b"",
    read_only: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    limits: Limits = _DEFAULT_LIMITS,
    protections: Protections = ALL_PROTECTIONS,
) -> Completed:
    """Run ``command`` in its own sandbox.

    Args:
        command: Program (searched on the sandbox's PATH) and arguments.
        files: Relative path -> content, written into the working directory first.
        payload: Standard input.
        read_only: Host paths mounted read-only at the same path (a toolchain outside ``/usr``).
        variables: Environment in addition to PATH, LANG, HOME and TMPDIR.

    Raises:
        ValueError: no command, or a file whose path leads out of the working directory.
        PrerequisiteError, EvaluationError: as :func:`check_program`.
    """
    _check([command], files or {})
    job = Job({"commands": [list(command)], "input": None}, files or {}, payload)
    done = _run(job, RunConfig(limits, protections, read_only, variables or {}))
    return replace(done, finished=done.started and done.exit_code == 0)


def _check(commands: Sequence[Sequence[str]], files: Mapping[str, bytes]) -> None:
    if not commands or not all(commands):
        raise ValueError("No command to run.")
    for name in files:
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
            raise ValueError(f"File {name!r}: give a relative path inside the working directory.")


def _run(job: Job, config: RunConfig, backend: Sandbox | None = None) -> Completed:
    if not config.protections.sandbox:
        backend = UNCONFINED
    return execute(job, config, backend or selected())
