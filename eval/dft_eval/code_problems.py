"""Python problems in HumanEval's format, from a file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dft_eval.errors import UsageError


class CodeProblem(BaseModel):
    """One problem; ``prompt`` is a signature with its docstring, ``test`` defines ``check``."""

    task_id: str
    prompt: str
    entry_point: str
    test: str
    canonical_solution: str = ""


def read_problems(path: Path) -> list[CodeProblem]:
    """Problems of a ``.jsonl`` or ``.jsonl.gz`` file in HumanEval's format.

    Raises:
        UsageError: no such file, or a line that is no problem, by number.
    """
    if not path.is_file():
        raise UsageError(f"--data {path}: no such file.")
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    problems: list[CodeProblem] = []
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    try:
                        problems.append(CodeProblem.model_validate(json.loads(line)))
                    except (ValidationError, ValueError) as error:
                        raise UsageError(f"{path}, line {number}: no problem: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not problems:
        raise UsageError(f"{path} holds no problem.")
    return problems
