"""HumanEval+ as EvalPlus publishes it: from a file, or through EvalPlus' own loader."""

from __future__ import annotations

import ast
import contextlib
import gzip
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from dft_eval import sandbox
from dft_eval.code_problems import CodeProblem
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.sandbox import host

VERSION = "v0.1.10"
MD5 = "fe585eb4df8c88d844eeb463ea4d0302"
"""Of the decompressed file of that version."""
TOLERANCES = {"find_zero": 1e-4, "truncate_number": 1e-6, "mean_absolute_deviation": 1e-6}
"""Absolute, by entry point: those of HumanEval's own tests, and of EvalPlus' data."""


class EvalPlusProblem(BaseModel):
    """One problem. An input is the list of a call's arguments.

    Attributes:
        prompt: signature and docstring.
        canonical_solution: what follows ``prompt`` in the solution that defines right outputs.
        base_input, plus_input: HumanEval's own inputs, and those that EvalPlus added.
        atol: absolute tolerance; 0: exact, but for floats.
    """

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    base_input: list[list[Any]] = Field(min_length=1)
    plus_input: list[list[Any]]
    atol: float


@dataclass(frozen=True)
class EvalPlusData:
    """All problems of one file and the MD5 of its decompressed content, or another source."""

    problems: list[EvalPlusProblem]
    md5: str = ""
    source: str | None = None

    def note(self) -> str:
        """Which data it is, for ``results.json``."""
        if self.source is not None:
            return f"data: {self.source}"
        known = f"HumanEval+ {VERSION}" if self.md5 == MD5 else f"not HumanEval+ {VERSION}"
        return f"data: {known}, md5 {self.md5}"


def from_human_eval(
    problems: Sequence[CodeProblem], source: str, *, sandboxed: bool
) -> EvalPlusData:
    """HumanEval's own problems, with the inputs on which their tests call the function.

    The tests are assertions, which a program beside them can disarm. Run once with the canonical
    solutions they tell their inputs; verdicts then come from outputs, compared out of its reach.

    Raises:
        UsageError: a canonical solution does not pass its tests, by task.
        PrerequisiteError: there is no working sandbox here.
    """
    jobs = [
        [each.prompt + each.canonical_solution, each.test, each.entry_point] for each in problems
    ]
    script = resources.files("dft_eval.humaneval_plus").joinpath("recorder.py").read_bytes()
    done = sandbox.run(
        [host.interpreter().path, *("-I", "-S", "-B", "-X", "utf8"), "recorder.py"],
        files={"recorder.py": script, "problems.json": json.dumps(jobs).encode()},
        limits=sandbox.Limits(
            cpu_seconds=300, wall_seconds=1200, output_bytes=2**27, output_kill_bytes=2**26
        ),
        protections=sandbox.ALL_PROTECTIONS if sandboxed else sandbox.NO_SANDBOX,
    )
    lines = done.stdout.splitlines()
    if done.score is None:
        raise PrerequisiteError(f"{source}: the tests' inputs are not known: {done.reason}")
    if done.score != 1.0 or len(lines) != len(problems):
        failed = problems[min(len(lines), len(problems) - 1)].task_id
        raise UsageError(f"{source}: {failed}: canonical_solution fails its tests: {done.reason}")
    return EvalPlusData(
        [
            EvalPlusProblem(
                task_id=each.task_id,
                prompt=each.prompt,
                entry_point=each.entry_point,
                canonical_solution=each.canonical_solution,
                base_input=ast.literal_eval(line),
                plus_input=[],
                atol=TOLERANCES.get(each.entry_point, 0.0),
            )
            for each, line in zip(problems, lines, strict=True)
        ],
        source=f"{source}, on the inputs of its own tests",
    )


def has_evalplus_format(path: Path) -> bool:
    """Whether the first line of ``path`` is a problem with EvalPlus' inputs."""
    try:
        with _open(path) as stream:
            return "base_input" in json.loads(stream.readline())
    except (OSError, ValueError, TypeError):
        return False


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def read_data(path: Path) -> EvalPlusData:
    """Problems of ``HumanEvalPlus.jsonl`` or ``.jsonl.gz``.

    Raises:
        UsageError: no such file, or a line that is no problem, by number.
    """
    if not path.is_file():
        raise UsageError(f"--data {path}: no such file.")
    try:
        with _open(path) as stream:
            content: bytes = stream.read()
    except (OSError, EOFError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    problems: list[EvalPlusProblem] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            try:
                problems.append(EvalPlusProblem.model_validate(json.loads(line)))
            except (ValidationError, ValueError) as error:
                raise UsageError(
                    f"{path}, line {number}: no HumanEval+ problem: {error}"
                ) from error
    if not problems:
        raise UsageError(f"{path} holds no problem.")
    return EvalPlusData(problems, hashlib.md5(content, usedforsecurity=False).hexdigest())


def cache_directory() -> Path:
    """Where downloaded data lies: ours alone, and out of reach of the sandbox."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dft-factory"


def download() -> Path:
    """HumanEval+ from EvalPlus' usual place, once; checked against its published MD5.

    Raises:
        PrerequisiteError: EvalPlus is not installed, or its place is out of reach.
    """
    target = cache_directory() / f"HumanEvalPlus-{VERSION}.jsonl"
    if target.is_file() and _md5(target) == MD5:
        return target
    fix = (
        "Give the file with --data: HumanEvalPlus.jsonl.gz of "
        f"https://github.com/evalplus/humanevalplus_release/releases/tag/{VERSION}."
    )
    try:
        from evalplus.data.utils import get_dataset_metadata, make_cache
    except ImportError as error:
        raise PrerequisiteError(
            f"The Python package evalplus is missing ({error}): uv pip install evalplus==0.3.1."
        ) from error
    url, _ = get_dataset_metadata("HumanEvalPlus", VERSION, False)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        fresh = Path(folder) / "data.jsonl"
        try:
            with contextlib.redirect_stdout(sys.stderr):
                make_cache(url, str(fresh))
        except Exception as error:  # whatever its download raises
            raise PrerequisiteError(
                f"HumanEval+ did not come from {url} ({type(error).__name__}: {error}). {fix}"
            ) from error
        if (found := _md5(fresh)) != MD5:
            raise PrerequisiteError(f"{url} gave a file of md5 {found} instead of {MD5}. {fix}")
        os.replace(fresh, target)
    return target


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
