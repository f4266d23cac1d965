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
_TELLING = re.compile(r"error|exception|assert|fail|terminate", re.IGNORECASE)


@dataclass(frozen=True)
class Program:
    """A program with its tests, ready to run; ``tests`` is apart from it in Python alone."""

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
    """What came of a program by the last attempt of the recipe, and the recipe (None: Python)."""
    recipe = language.recipe(harness)
    if recipe is None:
        done = check_program(
            program.text, program.tests, limits=language.limits, protections=protections
        )
        return done, None
    text = program.text + (_driver(language.epilogue) if language.epilogue else "")
    # A lone surrogate in a completion cannot be written; compilers say the rest.
    files = {language.source: text.encode("utf-8", "replace")}
    files |= {name: _driver(name).encode() for name in language.drivers}
    for attempt in recipe.attempts:
        done = check_commands(
            [toolchains.resolve(command) for command in attempt],
            files=files,
            read_only=toolchains.readable(language),
            variables=language.variables,
            complaints=language.complaints,
            limits=language.limits,
            protections=protections,
        )
        if done.score != 0.0:
            break
    return done, recipe


def judge(
    language: Language, program: Program, harness: Harness = "official", *, sandboxed: bool = True
) -> tuple[float | None, str]:
    """Score (1.0 passed, 0.0 failed, None: the sandbox did not start) and the reason for it.

    Raises:
        PrerequisiteError, EvaluationError: as :func:`dft_eval.sandbox.check_commands`.
    """
    protections = ALL_PROTECTIONS if sandboxed else NO_SANDBOX
    done, recipe = run_program(language, program, harness, protections=protections)
    if recipe is None:
        return done.verdict()
    if done.score == 1.0 and recipe.silent and (done.stdout or done.stderr):
        return 0.0, "printed something, which this harness counts as failing"
    if recipe.crashes_pass and _crashed(done):
        return 1.0, f"{CRASH_PASSES}: {_reason(done, len(recipe.attempts[-1]))}"
    return done.score, _reason(done, len(recipe.attempts[-1]))


def _crashed(done: Completed) -> bool:
    """Whether a C# program ended in an exception which is neither an assertion nor our limits'."""
    return (
        done.complaint == "Unhandled Exception"
        and done.killed_for is None
        and not any(text in done.stderr for text in ("Fail", "OutOfMemoryException"))
    )


def _reason(done: Completed, commands: int) -> str:
    """One line; compilers and runtimes put what matters first, not last."""
    failed = done.started and done.killed_for is None and done.exit_code not in (0, None)
    if not failed:
        return done.reason
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines()]
    lines = [line for line in lines if line]
    telling = next((line for line in lines if _TELLING.search(line)), None)
    line = telling or (lines[-1] if lines else f"exit status {done.exit_code}")
    return f"does not compile: {line[:300]}" if done.steps < commands - 1 else line[:300]


@lru_cache(maxsize=16)
def _trial(code: str, sandboxed: bool) -> str | None:
    from dft_eval.languages.recipes import LANGUAGES

    language = LANGUAGES[code]
    score, reason = judge(language, Program(language.trial), sandboxed=sandboxed)
    return None if score == 1.0 else reason


def unusable(language: Language, *, sandboxed: bool = True) -> str | None:
    """Why programs of this language cannot be judged here, with the fix; ``None`` if they can.

    Beside looking for the tools it tries them, once a process, with a program that must pass.
    """
    missing = toolchains.missing_toolchain(language)
    if missing is not None:
        return f"{missing.what}. Install it: `{missing.fix}`"
    reason = _trial(language.code, sandboxed)
    if reason is None:
        return None
    fix = f"apt-get install --reinstall {' '.join(language.packages)}"
    return f"{language.title}: a program that must pass does not: {reason}. Try `{fix}`"
