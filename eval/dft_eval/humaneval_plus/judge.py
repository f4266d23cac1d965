"""Verdicts on Python programs by EvalPlus' tests, with its comparison, in our sandbox.

A program runs on all inputs in a sandbox of its own; what it returned comes out as data and is
compared here with what the canonical solution returned in another. No expected output is ever
where a model's program runs, and none is kept on disk.

The comparison is that of EvalPlus 0.3.1 (``eval.unsafe_execute``), with these differences:
HumanEval/32, whose special oracle leaves every item marked as failed there, can pass; a call may
take max(4 s, 4 x the canonical solution's) of processor time instead of max(1 s, 4 x) of wall time,
so that a busy machine fails nobody; a value equals another only as built-in types do.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from dft_eval import sandbox
from dft_eval.humaneval_plus.data import EvalPlusProblem
from dft_eval.sandbox import host

CALL_SECONDS = 4.0
PROGRAM_SECONDS = 60.0
TIMES_REFERENCE = 4.0
"""A program may take this many times as long as the canonical solution, and at least the above."""
REFERENCE_SECONDS = 300.0
RELATIVE_TOLERANCE = 1e-7
ENFORCED_TOLERANCE = 1e-6
"""Absolute, for floats of problems that name none."""
SPECIAL = "HumanEval/32"
"""Its find_zero: any zero of the polynomial is right."""


@dataclass(frozen=True)
class Returned:
    """What one call returned: its text, or its hash where it is long (see the driver)."""

    text: str | None
    sha256: str | None
    kind: str
    floats: bool
    seconds: float

    def value(self) -> Any:
        """Back in Python's types; ValueError for a hash."""
        if self.text is None:
            raise ValueError("only the hash of this value is known")
        return _restore(json.loads(self.text))


@dataclass(frozen=True)
class Run:
    """One program on a problem's inputs. ``ended``: why there are fewer outputs than inputs.

    ``conclusive`` is False where the sandbox failed or the program got too little processor time,
    which says nothing about the program.
    """

    outputs: tuple[Returned, ...]
    ended: str
    conclusive: bool = True


@dataclass(frozen=True)
class Tests:
    """A problem's ``base`` or ``plus`` inputs, with the canonical solution's run on them."""

    name: str
    inputs: Sequence[Sequence[Any]]
    expected: Run


def _restore(value: Any) -> Any:
    if isinstance(value, list):
        return [_restore(each) for each in value]
    if not isinstance(value, dict):
        return value
    ((tag, inner),) = value.items()
    if tag == "q":
        over, under = (int(part, 16) for part in inner)
        return over if under == 1 else over / under
    items = [_restore(each) for each in inner] if tag in "tsd" else inner
    if tag == "t":
        return tuple(items)
    if tag == "d":
        return {_frozen(key): each for key, each in items}
    if tag == "s":
        return {_frozen(each) for each in items}
    return complex(*inner) if tag == "c" else bytes.fromhex(inner)


def _frozen(value: Any) -> Any:
    return frozenset(value) if isinstance(value, set) else value


@lru_cache(maxsize=1)
def _driver() -> bytes:
    return resources.files("dft_eval.humaneval_plus").joinpath("driver.py").read_bytes()


def run_program(
    program: str,
    problem: EvalPlusProblem,
    inputs: Sequence[Any],
    seconds: Sequence[float],
    total: float,
    *,
    sandboxed: bool,
) -> Run:
    """Call the problem's function on all inputs.

    Args:
        seconds: processor time that each call may take; ``total``: that all may.

    Raises:
        PrerequisiteError: there is no sandbox here.
    """
    job = {"entry_point": problem.entry_point, "inputs": inputs, "seconds": seconds}
    done = sandbox.run(
        [host.interpreter().path, *("-I", "-S", "-B", "-X", "utf8"), "driver.py"],
        files={
            "driver.py": _driver(),
            "job.pickle": pickle.dumps(job),  # JSON has no integer keys and no tuples
            "program.py": program.encode("utf-8", "replace"),
        },
        limits=sandbox.Limits(
            cpu_seconds=total,
            wall_seconds=4 * total,
            address_space_bytes=4096 * 1024 * 1024,  # as EvalPlus
            output_bytes=128 * 1024 * 1024,
            output_kill_bytes=64 * 1024 * 1024,
        ),
        protections=sandbox.ALL_PROTECTIONS if sandboxed else sandbox.NO_SANDBOX,
    )
    outputs: list[Returned] = []
    ended = "" if done.score == 1.0 else done.reason
    for line in done.stdout.split("\n"):
        try:
            row = json.loads(line)
            if "error" in row:
                ended = str(row["error"])
                break
            outputs.append(
                Returned(
                    text=row.get("value"),
                    sha256=row.get("sha256"),
                    kind=str(row["kind"]),
                    floats=bool(row["floats"]),
                    seconds=float(row["seconds"]),
                )
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            break  # the end, or a line cut off by a kill, or not the driver's
    del outputs[len(inputs) :]
    if len(outputs) < len(inputs) and not ended:
        ended = "the program ended before its tests"
    return Run(tuple(outputs), ended, done.score is not None)


def make_tests(
    problem: EvalPlusProblem, name: Literal["base", "plus"], *, sandboxed: bool
) -> Tests:
    """The tests of that name: what the canonical solution returns here and now."""
    inputs = problem.base_input if name == "base" else problem.plus_input
    program, limit = problem.prompt + problem.canonical_solution, REFERENCE_SECONDS
    run = run_program(program, problem, inputs, [limit] * len(inputs), limit, sandboxed=sandboxed)
    return Tests(name, inputs, run)


def judge(
    program: str, problem: EvalPlusProblem, tests: Tests, *, sandboxed: bool
) -> tuple[float | None, str]:
    """1.0 or 0.0 and why; None where it cannot be told, which says nothing about the program."""
    outputs = tests.expected.outputs
    if len(outputs) < len(tests.inputs):
        return None, f"the canonical solution did not run here: {tests.expected.ended}"
    times = [TIMES_REFERENCE * each.seconds for each in outputs]
    done = run_program(
        program,
        problem,
        tests.inputs,
        [max(CALL_SECONDS, time) for time in times],
        max(PROGRAM_SECONDS, sum(times)),
        sandboxed=sandboxed,
    )
    if not done.conclusive:
        return None, done.ended
    tolerance = problem.atol
    for place, (arguments, wanted) in enumerate(zip(tests.inputs, outputs, strict=True)):
        where = f"{tests.name} test {place + 1} of {len(outputs)}"
        if place >= len(done.outputs):
            return 0.0, f"{where}: {done.ended}"
        output = done.outputs[place]
        if problem.task_id == SPECIAL:
            right = _is_zero(arguments, output, tolerance)
        else:
            if tolerance == 0 and wanted.floats:
                tolerance = ENFORCED_TOLERANCE  # for all tests that follow, as in EvalPlus
            right = is_right(output, wanted, tolerance)
        if not right:
            return 0.0, f"{where}: a wrong answer"
    return 1.0, "passed"


def is_right(output: Returned, wanted: Returned, tolerance: float) -> bool:
    """Equal, or, with an absolute tolerance, of one type, length and near in every element."""
    import numpy

    if (output.text, output.sha256) == (wanted.text, wanted.sha256):
        return True
    if tolerance == 0 or output.kind != wanted.kind:
        return False
    try:
        found, right = output.value(), wanted.value()
        if isinstance(right, (list, tuple)) and len(found) != len(right):
            return False
        return bool(numpy.allclose(found, right, rtol=RELATIVE_TOLERANCE, atol=tolerance))
    except Exception:  # no numbers: EvalPlus, too, calls it wrong whatever numpy raises
        return False


def _is_zero(arguments: Sequence[Any], output: Returned, tolerance: float) -> bool:
    """EvalPlus' oracle of HumanEval/32."""
    from evalplus.eval._special_oracle import _poly

    try:
        return bool(abs(_poly(*arguments, output.value())) <= tolerance)
    except Exception:  # no number, or one too large to be put in
        return False
