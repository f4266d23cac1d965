"""The task file: its fields, and how it is read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dft_eval.errors import UsageError
from dft_eval.own_tasks.template import template_fields

SUFFIXES = (".yaml", ".yml")
Metric = Literal["exact_match", "contains", "numeric", "math", "choice", "pass@1", "judge"]
METRICS: tuple[Metric, ...] = get_args(Metric)
PromptStyle = Literal["completion", "chat"]
PROMPT_STYLES: tuple[PromptStyle, ...] = get_args(PromptStyle)
COMPLETION = "completion"
"""In ``judge_prompt``: the completion to judge."""
WHOLE = "-"
"""Key of a problem of the file as a whole."""

_NEEDS: dict[Metric, tuple[str, ...]] = {
    "choice": ("answer", "choices"),
    "pass@1": ("tests",),
    "judge": (),
}
_ONLY: dict[str, tuple[Metric, ...]] = {
    "answer": tuple(metric for metric in METRICS if metric != "pass@1"),
    "choices": ("choice",),
    "tests": ("pass@1",),
    "entry_point": ("pass@1",),
    "solution": ("pass@1",),
    "tolerance": ("numeric",),
    "judge": ("judge",),
    "judge_prompt": ("judge",),
}
"""Fields that have an effect with some metrics alone."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JudgeSpec(_Part):
    """The judge model, unless ``--judge-model`` names one; its key is in ``JUDGE_API_KEY``."""

    model: str
    base_url: str | None = None


class Task(_Part):
    """What the file says. ``id``, ``answer``, ``choices``, ``tests``, ``entry_point``, ``solution``
    and ``cluster`` name fields of the data.

    Attributes:
        data: JSONL file (``.gz`` too) beside the task file, or with ``split`` a data set's hub id.
        id: default: the line's number.
        prompt: template of a row's fields.
        answer: a text, a number, or a list of accepted ones.
        choices: list of texts; in the prompt it becomes lines ``A. ...``.
        tests: Python code that runs after the program and raises where it is wrong. With
            ``entry_point``, a function's name, and ``solution``, a right program, it defines
            ``check(candidate)``, and outputs are compared outside the sandbox.
        tolerance: absolute difference up to which numbers are equal.
        extract: regular expression with one group; its last match in the completion is the answer.
        cluster: items with the same value are versions of one problem.
        stop: texts at the first of which a completion ends.
        judge_prompt: template of a row's fields and ``{completion}``; default: question, right
            answer and completion.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    description: str = ""
    data: str
    split: str | None = None
    id: str | None = None
    prompt: str
    metric: Metric
    answer: str | None = None
    choices: str | None = None
    tests: str | None = None
    entry_point: str | None = None
    solution: str | None = None
    tolerance: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    extract: str | None = None
    cluster: str | None = None
    max_new_tokens: int = Field(default=512, ge=1)
    prompt_style: PromptStyle = "chat"
    system_prompt: str | None = None
    stop: tuple[str, ...] = ()
    judge: JudgeSpec | None = None
    judge_prompt: str | None = None

    @field_validator("prompt", "judge_prompt")
    @classmethod
    def _is_template(cls, text: str | None) -> str | None:
        if text is not None and not template_fields(text):
            raise ValueError("it names no field in braces, such as {question}")
        return text

    @field_validator("judge_prompt")
    @classmethod
    def _shows_the_completion(cls, text: str | None) -> str | None:
        if text is not None and template_fields(text).count(COMPLETION) != 1:
            raise ValueError("it must hold {completion} once")
        return text

    @field_validator("stop")
    @classmethod
    def _stops_somewhere(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(texts):
            raise ValueError("an empty text ends every completion at once")
        return texts

    @field_validator("extract")
    @classmethod
    def _has_one_group(cls, pattern: str | None) -> str | None:
        try:
            groups = 1 if pattern is None else re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"it is no regular expression: {error}") from error
        if groups != 1:
            raise ValueError(f"it has {groups} groups; put the answer in one pair of parentheses")
        return pattern

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        problems = []
        for field in _NEEDS.get(self.metric, ("answer",)):
            if getattr(self, field) is None:
                problems.append(
                    f"metric {self.metric} needs '{field}', the name of a field of the data"
                )
        if (self.entry_point is None) != (self.solution is None):
            problems.append("'entry_point' and 'solution' go together: give both or none")
        if self.metric == "judge" and self.answer is None and self.judge_prompt is None:
            problems.append("metric judge needs 'answer', or a 'judge_prompt' that does without")
        for field, metrics in _ONLY.items():
            default = Task.model_fields[field].default
            if getattr(self, field) != default and self.metric not in metrics:
                problems.append(f"'{field}' has no effect with metric {self.metric}: leave it out")
        if self.system_prompt is not None and self.prompt_style == "completion":
            problems.append(
                "'system_prompt' has no effect with prompt_style completion: leave it out"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


@dataclass(frozen=True)
class TaskFile:
    """A task and the file that it was read from."""

    task: Task
    file: str
    folder: Path
    sha256: str


class InvalidTaskError(UsageError):
    """A task file with problems, each with its key."""

    def __init__(self, path: Path, problems: list[tuple[str, str]]) -> None:
        self.problems = problems
        super().__init__("\n".join(f"{path}: {key}: {message}" for key, message in problems))


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key!r} is there twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)


def is_task_path(name: str) -> bool:
    """Whether a benchmark's name is the path of a task file."""
    return name.endswith(SUFFIXES)


def read_task(path: Path) -> TaskFile:
    """Read a task file.

    Raises:
        InvalidTaskError: with all problems of the file together.
    """
    try:
        content = path.read_bytes()
        values = yaml.load(content.decode("utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise InvalidTaskError(path, [(WHOLE, f"cannot be read as YAML: {reason}.")]) from error
    if not isinstance(values, dict):
        raise InvalidTaskError(path, [(WHOLE, "holds no keys and values.")])
    try:
        task = Task.model_validate({"name": path.stem, **values})
    except ValidationError as error:
        raise InvalidTaskError(path, list(dict.fromkeys(_problems(error)))) from error
    return TaskFile(task, path.name, path.parent, hashlib.sha256(content).hexdigest())


def _problems(error: ValidationError) -> Iterator[tuple[str, str]]:
    for row in error.errors():
        key = ".".join(map(str, row["loc"])) or WHOLE
        if row["type"] == "extra_forbidden":
            model = JudgeSpec if key.startswith("judge.") else Task
            yield key, f"unknown key. Choose from: {', '.join(model.model_fields)}."
        elif row["type"] == "missing":
            yield key, "is missing."
        elif row["type"] == "literal_error":
            choices = METRICS if key == "metric" else PROMPT_STYLES
            yield key, f"{row['input']!r} is unknown. Choose from: {', '.join(choices)}."
        elif row["type"] == "string_pattern_mismatch":
            yield key, f"{row['input']!r}: use letters, digits and . _ + - only."
        else:
            value = "" if key == WHOLE else f"{row['input']!r}: "
            yield key, f"{value}{row['msg'].removeprefix('Value error, ')}."
