"""NQ-open's questions: from the published file, or from the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from dft_eval.data_files import load_hub, parse_records, read_jsonl

HUB_ID = "google-research-datasets/nq_open"
SPLIT = "validation"
SHA256 = "f15567f38099f3615f5b8a685c0aef449c11ad90d3da3735e8d1b98115b40616"
"""Of ``nq_open/NQ-open.dev.jsonl`` of github.com/google-research-datasets/natural-questions."""
EXPECTED = "a question of NQ-open ('question', and 'answer', a list of texts)"


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is blank")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]


class Question(BaseModel):
    """One question with all its accepted answers."""

    question: Text
    answer: list[Text] = Field(min_length=1)

    @property
    def id(self) -> str:
        """Hash of the question, so that runs on different parts of one set can be paired."""
        return hashlib.sha256(self.question.encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True)
class QuestionSet:
    """All questions of one source; ``source`` describes the data in ``results.json``."""

    questions: list[Question]
    source: str


def read_data(path: Path) -> QuestionSet:
    """Questions of a ``.jsonl`` or ``.jsonl.gz`` file with ``question`` and ``answer`` per line.

    Raises:
        UsageError: no such file, or a line that is invalid or repeats a question, by number.
    """
    questions, content = read_jsonl(path, _unique_questions(), EXPECTED)
    sha256 = hashlib.sha256(content).hexdigest()
    name = "NQ-open dev" if sha256 == SHA256 else "not NQ-open dev as published"
    return QuestionSet(questions, f"data: {name}, sha256 {sha256}")


def from_hub() -> QuestionSet:
    """NQ-open's validation split from the hub.

    Raises:
        PrerequisiteError: it cannot be loaded.
    """
    fix = (
        "Give the file by --data FILE (NQ-open.dev.jsonl of "
        "github.com/google-research-datasets/natural-questions, nq_open/)."
    )
    rows = load_hub(HUB_ID, split=SPLIT, fix=fix)
    named = ((f"{HUB_ID}, row {number}", row) for number, row in enumerate(rows))
    questions = parse_records(named, _unique_questions(), EXPECTED)
    return QuestionSet(questions, f"data: {HUB_ID}, {SPLIT}")


def _unique_questions() -> Callable[[Any], Question]:
    """Validates rows as questions; ValueError for one that came before."""
    ids: set[str] = set()

    def parse(row: Any) -> Question:
        question = Question.model_validate(row)
        if question.id in ids:
            raise ValueError(f"the question {question.question!r} is there twice")
        ids.add(question.id)
        return question

    return parse
