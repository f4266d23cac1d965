"""HumanEval+ as EvalPlus publishes it: from a file, or through EvalPlus' own loader."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from dft_eval.errors import PrerequisiteError, UsageError

VERSION = "v0.1.10"
MD5 = "fe585eb4df8c88d844eeb463ea4d0302"
"""Of the decompressed file of that version."""


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
    """All problems of one file and the MD5 of its decompressed content."""

    problems: list[EvalPlusProblem]
    md5: str

    def note(self) -> str:
        """Which data it is, for ``results.json``."""
        known = f"HumanEval+ {VERSION}" if self.md5 == MD5 else f"not HumanEval+ {VERSION}"
        return f"data: {known}, md5 {self.md5}"


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
    mend = (
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
                f"HumanEval+ did not come from {url} ({type(error).__name__}: {error}). {mend}"
            ) from error
        if (found := _md5(fresh)) != MD5:
            raise PrerequisiteError(f"{url} gave a file of md5 {found} instead of {MD5}. {mend}")
        os.replace(fresh, target)
    return target


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
