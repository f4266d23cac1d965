"""Python problems in HumanEval's format, from a file."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from dft_eval.data_files import read_jsonl


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
    return read_jsonl(path, CodeProblem.model_validate, "a problem in HumanEval's format")[0]
