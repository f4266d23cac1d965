"""NQ-open's questions: from the published file, or from the hub."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, field_validator

from dft_eval.errors import UsageError
from dft_eval.hub import load_split

HUB_ID = "google-research-datasets/nq_open"
SPLIT = "validation"
SHA256 = "f15567f38099f3615f5b8a685c0aef449c11ad90d3da3735e8d1b98115b40616"
"""Of ``nq_open/NQ-open.dev.jsonl`` of github.com/google-research-datasets/natural-questions."""


class Question(BaseModel):
    """One question with every answer that counts as right."""

    question: str
    answer: list[str] = Field(min_length=1)

    @field_validator("question")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("the question is empty")
        return text

    @field_validator("answer")
    @classmethod
    def _all_say_something(cls, aliases: list[str]) -> list[str]:
        if not all(alias.strip() for alias in aliases):
            raise ValueError("an answer is empty")
        return aliases

    @property
    def id(self) -> str:
        """Of the question's text, so that runs on parts of one set pair up whatever its order."""
        return hashlib.sha256(self.question.encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True)
class QuestionSet:
    """All questions of one place; ``source`` says which data it is, for ``results.json``."""

    questions: list[Question]
    source: str


def read_data(path: Path) -> QuestionSet:
    """Questions of a ``.jsonl`` or ``.jsonl.gz`` file with ``question`` and ``answer`` a line.

    Raises:
        UsageError: no such file, a line that is no question, by number, or a question twice.
    """
    if not path.is_file():
        raise UsageError(f"--data {path}: no such file. Give NQ-open's .jsonl file.")
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    lines = [(n, line) for n, line in enumerate(content.split(b"\n"), start=1) if line.strip()]
    questions = _questions(((f"{path}, line {number}", line) for number, line in lines), str(path))
    sha256 = hashlib.sha256(content).hexdigest()
    known = "NQ-open dev" if sha256 == SHA256 else "not NQ-open dev as published"
    return QuestionSet(questions, f"data: {known}, sha256 {sha256}")


def from_hub() -> QuestionSet:
    """NQ-open's validation split from the hub.

    Raises:
        PrerequisiteError: out of reach.
    """
    fix = (
        "Give the file by --data FILE (NQ-open.dev.jsonl of "
        "github.com/google-research-datasets/natural-questions, nq_open/)."
    )
    rows = load_split(HUB_ID, SPLIT, fix)
    named = ((f"{HUB_ID}, row {number}", row) for number, row in enumerate(rows))
    return QuestionSet(_questions(named, HUB_ID), f"data: {HUB_ID}, {SPLIT}")


def _questions(rows: Iterable[tuple[str, Any]], source: str) -> list[Question]:
    """Rows (JSON text or mappings, each with its place) as questions."""
    found: dict[str, Question] = {}
    for place, row in rows:
        try:
            value = json.loads(row) if isinstance(row, bytes) else row
            question = Question.model_validate(value)
        except (ValidationError, ValueError, RecursionError) as error:
            raise UsageError(
                f"{place}: no question of NQ-open ('question', and 'answer', a list of texts): "
                f"{error}"
            ) from error
        if question.id in found:
            raise UsageError(f"{place}: the question {question.question!r} is there twice.")
        found[question.id] = question
    if not found:
        raise UsageError(f"{source} holds no question.")
    return list(found.values())
