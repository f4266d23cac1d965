"""Python problems in HumanEval's format: prompts, extraction of the program, verdicts.

Prompts follow EvalPlus 0.3.1 (``codegen``, ``provider.utility``): raw completion with its stop
texts, or chat with its instruction and a begun answer. In chat the program is what the answer's
code block holds, after the part of the prompt before the asked function (imports, helpers), which
a model that answers with the function alone may leave out.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from dft_eval import sandbox
from dft_eval.errors import UsageError
from dft_eval.generation.run import Completion, Failure, Prompt
from dft_eval.results import ItemScore

INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown "
    "code block:"
)
ANSWER_BEGINS = (
    "Below is a Python script with a self-contained function that solves the problem and passes "
    "corresponding tests:\n```python\n"
)
COMPLETION_STOP = (
    "\nif __name__",
    "\ndef main(",
    "\nprint(",
    "\ndef ",
    "\nclass ",
    "\nimport ",
    "\nfrom ",
    "\nassert ",
    "\n```",
)
CHAT_STOP = ("\n```",)


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


def make_prompt(problem: CodeProblem, style: str) -> Prompt:
    """The prompt of one problem in the given style."""
    if style == "completion":
        return Prompt(problem.task_id, f"{problem.prompt.strip()}\n")
    question = f"{INSTRUCTION}\n```\n{problem.prompt.strip()}\n```\n"
    return Prompt(problem.task_id, question, chat=True, answer_begins=ANSWER_BEGINS)


def preamble(problem: CodeProblem) -> str:
    """The prompt before the function that is asked for: imports and helper functions."""
    start = re.search(rf"^def {re.escape(problem.entry_point)}\b", problem.prompt, re.MULTILINE)
    return problem.prompt[: start.start()] if start else ""


def extract_program(problem: CodeProblem, completion: str, style: str) -> str:
    """The program that a completion makes, whole and ready to be tested."""
    if style == "completion":
        return problem.prompt.rstrip() + _as_body(completion)
    code = completion.split("\n```")[0]
    fenced = re.match(r"\s*```(?:python|py)?\s*\n", code)
    return preamble(problem) + (code[fenced.end() :] if fenced else code) + "\n"


def _as_body(completion: str) -> str:
    return completion if completion.startswith("\n") else f"\n{completion}"


def judge(
    problems: Sequence[CodeProblem],
    completions: Sequence[Completion | Failure],
    style: str,
    *,
    sandboxed: bool,
    workers: int | None = None,
    progress: Callable[[int, int], None],
) -> list[ItemScore]:
    """Run every program with its tests, at most ``workers`` at once.

    A prompt without a completion is unscored.

    Raises:
        PrerequisiteError: there is no working sandbox here, and ``sandboxed`` is set.
    """
    protections = sandbox.ALL_PROTECTIONS
    if sandboxed:
        sandbox.check()
    else:
        protections = sandbox.NO_SANDBOX
    finished = 0

    def verdict(pair: tuple[CodeProblem, Completion | Failure]) -> ItemScore:
        problem, completion = pair
        if isinstance(completion, Failure):
            return ItemScore(id=completion.id, score=None, reason=completion.reason)
        program = extract_program(problem, completion.completion, style)
        test = f"{problem.test}\ncheck({problem.entry_point})\n"
        score, reason = sandbox.check_program(program, test, protections=protections).verdict()
        if score == 0.0 and completion.finish_reason == "length":
            reason += " (completion cut at max_new_tokens)"
        return ItemScore(id=completion.id, score=score, reason=reason)

    rows: list[ItemScore] = []
    with ThreadPoolExecutor(sandbox.judge_workers(workers)) as pool:
        for row in pool.map(verdict, zip(problems, completions, strict=True)):
            rows.append(row)
            finished += 1
            progress(finished, len(problems))
    return rows
