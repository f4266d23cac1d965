"""Run a program of any language against its tests, in the sandbox."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from dft_eval.languages import toolchains
from dft_eval.languages.recipes import Harness, Language, Recipe
from dft_eval.sandbox import (
    ALL_PROTECTIONS,
    NO_SANDBOX,
    Completed,
    Protections,
    check_commands,
    check_program,
)

CRASH_PASSES = "crashed, which this harness counts as passing"
_ERROR = re.compile(r"error|exception|assert|fail|terminate", re.IGNORECASE)


@dataclass(frozen=True)
class Program:
    """A program that contains its tests; in Python, ``tests`` are separate."""

    text: str
    tests: str = ""


@lru_cache(maxsize=32)
def _driver(name: str) -> str:
    return (resources.files("dft_eval.languages") / "drivers" / name).read_text(encoding="utf-8")


def run_program(
    language: Language,
    program: Program,
    harness: Harness = "official",
    *,
    protections: Protections = ALL_PROTECTIONS,
) -> tuple[Completed, Recipe | None]:
    """The result of the recipe's last attempt, and the recipe (None for Python)."""
    recipe = language.recipe(harness)
    if recipe is None:
        result = check_program(
            program.text, program.tests, limits=language.limits, protections=protections
        )
        return result, None
    text = program.text + (_driver(language.epilogue) if language.epilogue else "")
    # A lone surrogate cannot be encoded; the compiler rejects its replacement.
    files = {language.source: text.encode("utf-8", "replace")}
    files |= {name: _driver(name).encode() for name in language.drivers}
    for attempt in recipe.attempts:
        result = check_commands(
            [toolchains.resolve(command) for command in attempt],
            files=files,
            read_only=toolchains.readable(language),
            variables=language.variables,
            complaints=language.complaints,
            limits=language.limits,
            protections=protections,
        )
        if result.score != 0.0:
            break
    return result, recipe


def judge(
    language: Language, program: Program, harness: Harness = "official", *, sandboxed: bool = True
) -> tuple[float | None, str]:
    """Score (1.0 passed, 0.0 failed, None: the sandbox did not start) and its reason.

    Raises:
        PrerequisiteError, EvaluationError: as :func:`dft_eval.sandbox.check_commands`.
    """
    protections = ALL_PROTECTIONS if sandboxed else NO_SANDBOX
    result, recipe = run_program(language, program, harness, protections=protections)
    if recipe is None:
        return result.verdict()
    if result.score == 1.0 and recipe.silent and (result.stdout or result.stderr):
        return 0.0, "printed something, which this harness counts as failing"
    if recipe.crashes_pass and _crashed(result):
        return 1.0, f"{CRASH_PASSES}: {_reason(result, len(recipe.attempts[-1]))}"
    return result.score, _reason(result, len(recipe.attempts[-1]))


def _crashed(result: Completed) -> bool:
    """Whether a C# program ended in an exception other than an assertion or one of our limits."""
    return (
        result.complaint == "Unhandled Exception"
        and result.killed_for is None
        and not any(text in result.stderr for text in ("Fail", "OutOfMemoryException"))
    )


def _reason(result: Completed, commands: int) -> str:
    """One line: the first error, since compilers and runtimes print it first."""
    failed = result.started and result.killed_for is None and result.exit_code not in (0, None)
    if not failed:
        return result.reason
    lines = [line.strip() for line in (result.stderr + "\n" + result.stdout).splitlines()]
    lines = [line for line in lines if line]
    last = lines[-1] if lines else f"exit status {result.exit_code}"
    line = next((line for line in lines if _ERROR.search(line)), last)
    return f"does not compile: {line[:300]}" if result.steps < commands - 1 else line[:300]


@lru_cache(maxsize=16)
def _trial(code: str, sandboxed: bool) -> str | None:
    from dft_eval.languages.recipes import LANGUAGES

    language = LANGUAGES[code]
    score, reason = judge(language, Program(language.trial), sandboxed=sandboxed)
    return None if score == 1.0 else reason


def unusable(language: Language, *, sandboxed: bool = True) -> str | None:
    """Why programs of this language cannot be judged here, with the fix; None if they can.

    Runs a program that must pass, once per process.
    """
    missing = toolchains.missing_toolchain(language)
    if missing is not None:
        return f"{missing.name}. Install it: `{missing.fix}`"
    reason = _trial(language.code, sandboxed)
    if reason is None:
        return None
    fix = f"apt-get install --reinstall {' '.join(language.packages)}"
    return f"{language.title}: a program that must pass does not: {reason}. Try `{fix}`"
