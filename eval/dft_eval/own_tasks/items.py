"""The rows of a task's data as items: rendered prompts and right answers."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_eval.data_files import UNREADABLE, decompressed, load_hub
from dft_eval.errors import UsageError
from dft_eval.own_tasks.numbers import last_number
from dft_eval.own_tasks.task import COMPLETION, Task, TaskFile
from dft_eval.own_tasks.template import field_of, fill, split_at, template_fields, text_of

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Item:
    """One item.

    Attributes:
        answers: every answer that counts as right; for ``choice`` the letter.
        choices: texts of A, B, ...
        judge_prompt: what comes before and after the completion.
    """

    id: str
    prompt: str
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    tests: str = ""
    entry_point: str = ""
    solution: str = ""
    cluster: str | None = None
    judge_prompt: tuple[str, str] | None = None


@dataclass(frozen=True)
class TaskData:
    """All items of a task, before ``--limit``, with name and hash of the data."""

    items: list[Item]
    source: str
    sha256: str


def load_items(task_file: TaskFile, data: Path | None = None) -> TaskData:
    """The items of a task.

    Args:
        data: a file instead of the task's own.

    Raises:
        UsageError: no such file, or a row that cannot be asked or scored, by its line.
        PrerequisiteError: the hub is out of reach.
    """
    task = task_file.task
    if data is None and task.split is not None:
        fix = f"Give 'data: FILE.jsonl' in {task_file.file}."
        rows = load_hub(task.data, split=task.split, fix=fix)
        lines = [json.dumps(row, sort_keys=True, default=str).encode() for row in rows]
        source, where, sha256 = f"{task.data}, {task.split}", task.data, _sha256(lines)
        named: Iterable[tuple[int, Any]] = enumerate(rows, start=1)
    else:
        path = data or task_file.folder / task.data
        where, content = str(path), _read(path, task_file)
        source, sha256 = path.name, _sha256([content])
        named = _parsed(path, content)
    items: dict[str, Item] = {}
    for number, row in named:
        try:
            item = make_item(task, row, number)
        except (ValueError, SyntaxError) as error:
            raise UsageError(f"{where}, line {number}: {error}.") from error
        if item.id in items:
            raise UsageError(f"{where}, line {number}: the id {item.id!r} is there twice.")
        items[item.id] = item
    if not items:
        raise UsageError(f"{where} holds no rows.")
    return TaskData(list(items.values()), source, sha256)


def data_path(task_file: TaskFile) -> Path | None:
    """The task's data on this machine; None for a data set of the hub."""
    return None if task_file.task.split else task_file.folder / task_file.task.data


def _sha256(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


def _read(path: Path, task_file: TaskFile) -> bytes:
    try:
        return decompressed(path)
    except UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(
            f"{task_file.file}: data: {path} cannot be read: {reason}. Give a JSONL file beside "
            "the task file, or a data set of the hub with 'split'."
        ) from error


def _parsed(path: Path, content: bytes) -> Iterable[tuple[int, Any]]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{path}, line {number}: no JSON: {error}.") from error


def make_item(task: Task, row: Any, number: int) -> Item:
    """One row as an item.

    Raises:
        ValueError, SyntaxError: it cannot be asked or scored.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"a {type(row).__name__}, not an object with fields")
    choices = _choices(task, row)
    answers = _answers(task, row, choices)
    prompt = fill(task.prompt, _texts(task, task.prompt, row, choices))
    tests = "" if task.tests is None else _tests(task.tests, row)
    judging = None
    if task.metric == "judge":
        judging = _judge_prompt(task, row, prompt, answers)
    return Item(
        id=str(number) if task.id is None else _text(row, task.id),
        prompt=prompt,
        answers=answers,
        choices=choices,
        tests=tests,
        entry_point="" if task.entry_point is None else _text(row, task.entry_point),
        solution="" if task.solution is None else _text(row, task.solution),
        cluster=None if task.cluster is None else _text(row, task.cluster),
        judge_prompt=judging,
    )


def _texts(
    task: Task, template: str, row: Mapping[str, Any], choices: tuple[str, ...]
) -> dict[str, str]:
    """The fields of a template as texts."""
    texts = {}
    for name in template_fields(template):
        if choices and name == task.choices:
            lines = zip(LETTERS, choices, strict=False)
            texts[name] = "\n".join(f"{letter}. {text}" for letter, text in lines)
        elif name != COMPLETION or template is not task.judge_prompt:
            texts[name] = _text(row, name)
    return texts


def _text(row: Mapping[str, Any], field: str) -> str:
    return text_of(field_of(row, field), field)


def _choices(task: Task, row: Mapping[str, Any]) -> tuple[str, ...]:
    if task.choices is None:
        return ()
    value = field_of(row, task.choices)
    if not isinstance(value, list) or not 2 <= len(value) <= len(LETTERS):
        raise ValueError(f"the field {task.choices!r} is no list of 2 to {len(LETTERS)} texts")
    choices = tuple(text_of(choice, task.choices).strip() for choice in value)
    if not all(choices) or len(set(choices)) < len(choices):
        raise ValueError(f"the field {task.choices!r} holds an empty text, or one twice")
    return choices


def _answers(task: Task, row: Mapping[str, Any], choices: tuple[str, ...]) -> tuple[str, ...]:
    if task.answer is None:
        return ()
    value = field_of(row, task.answer)
    if choices:
        return (_letter(task.answer, value, choices),)
    values = value if isinstance(value, list) else [value]
    answers = tuple(text_of(answer, task.answer).strip() for answer in values)
    if not answers or not all(answers):
        raise ValueError(f"the field {task.answer!r} holds no answer")
    for answer in answers:
        if task.metric == "numeric" and last_number(answer) is None:
            raise ValueError(f"the field {task.answer!r} is {answer!r}, no number")
    return answers


def _letter(field: str, value: Any, choices: tuple[str, ...]) -> str:
    """The right letter: named by letter, by text, or by place from 0 (a number)."""
    letters = LETTERS[: len(choices)]
    text = "" if isinstance(value, bool) else str(value).strip()
    named = {letters[choices.index(text)]} if text in choices else set()
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(choices):
        named.add(letters[value])
    if isinstance(value, str) and len(text) == 1 and text in letters:
        named.add(text)
    if len(named) > 1:
        kind = "letter" if isinstance(value, str) else "place"
        raise ValueError(
            f"the field {field!r} is {value!r}, the {kind} of one choice and the text of another. "
            f"Give the {'place from 0 as a number' if kind == 'letter' else 'letter'}"
        )
    if named:
        return named.pop()
    raise ValueError(
        f"the field {field!r} is {value!r}. Give a letter of {letters}, the text of a choice, or "
        "its place from 0 as a number"
    )


def _tests(field: str, row: Mapping[str, Any]) -> str:
    value = field_of(row, field)
    lines = value if isinstance(value, list) else [value]
    tests = "\n".join(text_of(line, field) for line in lines)
    if not ast.parse(tests).body:
        raise ValueError(f"the field {field!r} holds no test")
    return tests


JUDGE_PROMPT = """\
You grade an answer to a question. Only whether it agrees with the right answer counts, not its \
wording and not its explanation.

[Question]
{prompt}

[Right answer]
{answer}

[Answer to grade]
{completion}
"""


def _judge_prompt(
    task: Task, row: Mapping[str, Any], prompt: str, answers: tuple[str, ...]
) -> tuple[str, str]:
    if task.judge_prompt is None:
        texts = {"prompt": prompt, "answer": " or ".join(answers)}
        return split_at(JUDGE_PROMPT, COMPLETION, texts)
    return split_at(task.judge_prompt, COMPLETION, _texts(task, task.judge_prompt, row, ()))
