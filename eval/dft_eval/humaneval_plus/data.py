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

from pydantic import BaseModel, Field

from dft_eval import sandbox
from dft_eval.code_problems import CodeProblem
from dft_eval.data_files import read_jsonl
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
        base_input, plus_input: HumanEval's inputs, and those that EvalPlus added.
        atol: absolute tolerance; 0 compares exactly, except floats.
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
    """All problems, with the MD5 of their decompressed file or the name of another source."""

    problems: list[EvalPlusProblem]
    md5: str = ""
    source: str | None = None

    def note(self) -> str:
        """Which data it is, for ``results.json``."""
        if self.source is not None:
            return f"data: {self.source}"
        prefix = "" if self.md5 == MD5 else "not "
        return f"data: {prefix}HumanEval+ {VERSION}, md5 {self.md5}"


def from_human_eval(
    problems: Sequence[CodeProblem], source: str, *, sandboxed: bool
) -> EvalPlusData:
    """HumanEval's problems, with the inputs on which their tests call the function.

    A program in the same process can disarm HumanEval's assertions. So the tests run once with the
    canonical solutions to record their inputs, and outputs are compared outside the sandbox.

    Raises:
        UsageError: a canonical solution does not pass its tests, by task.
        PrerequisiteError: there is no working sandbox here.
    """
    jobs = [[p.prompt + p.canonical_solution, p.test, p.entry_point] for p in problems]
    script = resources.files("dft_eval.humaneval_plus").joinpath("recorder.py").read_bytes()
    result = sandbox.run(
        [host.interpreter().path, *("-I", "-S", "-B", "-X", "utf8"), "recorder.py"],
        files={"recorder.py": script, "problems.json": json.dumps(jobs).encode()},
        limits=sandbox.Limits(
            cpu_seconds=300, wall_seconds=1200, output_bytes=2**27, output_kill_bytes=2**26
        ),
        protections=sandbox.ALL_PROTECTIONS if sandboxed else sandbox.NO_SANDBOX,
    )
    lines = result.stdout.splitlines()
    if result.score is None:
        raise PrerequisiteError(f"{source}: cannot record the inputs of its tests: {result.reason}")
    if result.score != 1.0 or len(lines) != len(problems):
        failed = problems[min(len(lines), len(problems) - 1)].task_id
        raise UsageError(f"{source}: {failed}: canonical_solution fails its tests: {result.reason}")
    return EvalPlusData(
        [
            EvalPlusProblem(
                **problem.model_dump(),
                base_input=ast.literal_eval(line),
                plus_input=[],
                atol=TOLERANCES.get(problem.entry_point, 0.0),
            )
            for problem, line in zip(problems, lines, strict=True)
        ],
        source=f"{source}, on the inputs of its own tests",
    )


def has_evalplus_format(path: Path) -> bool:
    """Whether the first line of ``path`` is a problem with EvalPlus' inputs."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return "base_input" in json.loads(stream.readline())
    except (OSError, ValueError, TypeError):
        return False


def read_data(path: Path) -> EvalPlusData:
    """Problems of ``HumanEvalPlus.jsonl`` or ``.jsonl.gz``.

    Raises:
        UsageError: no such file, or an invalid line, by number.
    """
    problems, content = read_jsonl(path, EvalPlusProblem.model_validate, "a HumanEval+ problem")
    return EvalPlusData(problems, hashlib.md5(content, usedforsecurity=False).hexdigest())


def download() -> Path:
    """HumanEval+ from EvalPlus' release, cached and checked against its published MD5.

    Raises:
        PrerequisiteError: EvalPlus is not installed, or its release cannot be downloaded.
    """
    # Sandboxed programs cannot reach this folder.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    target = cache / "dft-factory" / f"HumanEvalPlus-{VERSION}.jsonl"
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
            f"The Python package evalplus is missing ({error}): uv pip install 'dft-factory[code]'."
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
                f"{url} cannot be downloaded ({type(error).__name__}: {error}). {fix}"
            ) from error
        if (md5 := _md5(fresh)) != MD5:
            raise PrerequisiteError(f"{url}: the file has md5 {md5}, expected {MD5}. {fix}")
        os.replace(fresh, target)
    return target


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
