"""Verdicts on Python programs by EvalPlus' tests, with its comparison, in our sandbox.

A program runs on all inputs in its own sandbox. Its outputs are compared here with those of the
canonical solution, which ran in another sandbox. Expected outputs never enter a sandbox with a
model's program, nor a file.

The comparison is that of EvalPlus 0.3.1 (``eval.unsafe_execute``), with these differences:
HumanEval/32, which EvalPlus marks as failed whatever its special oracle says, can pass; a call may
take max(4 s, 4 x the canonical solution's) of processor time instead of max(1 s, 4 x) of wall time,
so that a busy machine fails no program; values compare as built-in types do.
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
"""Times the canonical solution's time that a program may take, if more than the limits above."""
REFERENCE_SECONDS = 300.0
RELATIVE_TOLERANCE = 1e-7
ENFORCED_TOLERANCE = 1e-6
"""Absolute, for floats of problems without one."""
SPECIAL = "HumanEval/32"
"""Its find_zero: any zero of the polynomial is right."""


@dataclass(frozen=True)
class Output:
    """What one call returned: its text, or its hash if it is long (see the driver)."""

    text: str | None
    sha256: str | None
    kind: str
    floats: bool
    seconds: float

    def value(self) -> Any:
        """As a Python object; ValueError if only the hash is known."""
        if self.text is None:
            raise ValueError("only the hash of this value is known")
        return _restore(json.loads(self.text))


@dataclass(frozen=True)
class Run:
    """One program on a problem's inputs.

    Attributes:
        ended: why there are fewer outputs than inputs.
        conclusive: False if the sandbox failed or the program got too little processor time.
    """

    outputs: tuple[Output, ...]
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
        return [_restore(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, inner),) = value.items()
    if tag == "q":
        over, under = (int(part, 16) for part in inner)
        return over if under == 1 else over / under
    items = [_restore(item) for item in inner] if tag in "tsd" else inner
    if tag == "t":
        return tuple(items)
    if tag == "d":
        return {_frozen(key): item for key, item in items}
    if tag == "s":
        return {_frozen(item) for item in items}
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
        seconds: limit on each call's processor time; ``total``: on all calls together.

    Raises:
        PrerequisiteError: no sandbox works here.
    """
    job = {"entry_point": problem.entry_point, "inputs": inputs, "seconds": seconds}
    result = sandbox.run(
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
    outputs: list[Output] = []
    ended = "" if result.score == 1.0 else result.reason
    for line in result.stdout.split("\n"):
        try:
            row = json.loads(line)
            if "error" in row:
                ended = str(row["error"])
                break
            outputs.append(
                Output(
                    text=row.get("value"),
                    sha256=row.get("sha256"),
                    kind=str(row["kind"]),
                    floats=bool(row["floats"]),
                    seconds=float(row["seconds"]),
                )
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            break  # the last line, one cut off by a kill, or one of the program
    del outputs[len(inputs) :]
    if len(outputs) < len(inputs) and not ended:
        ended = "the program ended before its tests"
    return Run(tuple(outputs), ended, result.score is not None)


def make_tests(
    problem: EvalPlusProblem, name: Literal["base", "plus"], *, sandboxed: bool
) -> Tests:
    """The tests of that name, with the canonical solution's outputs on this machine."""
    inputs = problem.base_input if name == "base" else problem.plus_input
    program, limit = problem.prompt + problem.canonical_solution, REFERENCE_SECONDS
    run = run_program(program, problem, inputs, [limit] * len(inputs), limit, sandboxed=sandboxed)
    return Tests(name, inputs, run)


def judge(
    program: str, problem: EvalPlusProblem, tests: Tests, *, sandboxed: bool
) -> tuple[float | None, str]:
    """Score (1.0, 0.0, or None if the run was inconclusive) and reason."""
    outputs = tests.expected.outputs
    if len(outputs) < len(tests.inputs):
        return None, f"the canonical solution did not run here: {tests.expected.ended}"
    times = [TIMES_REFERENCE * output.seconds for output in outputs]
    run = run_program(
        program,
        problem,
        tests.inputs,
        [max(CALL_SECONDS, time) for time in times],
        max(PROGRAM_SECONDS, sum(times)),
        sandboxed=sandboxed,
    )
    if not run.conclusive:
        return None, run.ended
    tolerance = problem.atol
    for index, (arguments, expected) in enumerate(zip(tests.inputs, outputs, strict=True)):
        name = f"{tests.name} test {index + 1} of {len(outputs)}"
        if index >= len(run.outputs):
            return 0.0, f"{name}: {run.ended}"
        output = run.outputs[index]
        if problem.task_id == SPECIAL:
            right = _is_zero(arguments, output, tolerance)
        else:
            if tolerance == 0 and expected.floats:
                tolerance = ENFORCED_TOLERANCE  # for all tests that follow, as in EvalPlus
            right = is_right(output, expected, tolerance)
        if not right:
            return 0.0, f"{name}: wrong answer"
    return 1.0, "passed"


def is_right(output: Output, expected: Output, tolerance: float) -> bool:
    """Equal; or, with a tolerance, of equal type and length with all elements close."""
    import numpy

    if (output.text, output.sha256) == (expected.text, expected.sha256):
        return True
    if tolerance == 0 or output.kind != expected.kind:
        return False
    try:
        value, right = output.value(), expected.value()
        if isinstance(right, (list, tuple)) and len(value) != len(right):
            return False
        return bool(numpy.allclose(value, right, rtol=RELATIVE_TOLERANCE, atol=tolerance))
    except Exception:  # not numbers: wrong in EvalPlus too, whatever numpy raises
        return False


def _is_zero(arguments: Sequence[Any], output: Output, tolerance: float) -> bool:
    """EvalPlus' oracle of HumanEval/32."""
    from evalplus.eval._special_oracle import _poly

    try:
        return bool(abs(_poly(*arguments, output.value())) <= tolerance)
    except Exception:  # not a number, or too large a one
        return False
