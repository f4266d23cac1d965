"""What passes between the benchmark and the process of VLMEvalKit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dft_eval.errors import EvaluationError
from dft_eval.results import ItemScore

RUN = "run.json"
SCORES = "scores.json"
WORK = "records"
"""Folder of the harness's own predictions and results."""
TABLES = "LMUData"
REFUSED = "refused"


class Scored(BaseModel):
    """One data set as the harness scored it.

    Attributes:
        score: as it printed it, a fraction.
        split: that the score and the items are of, where the table has several.
        breakdown: its other figures.
        available: rows of the table.
        n_asked: rows after ``--limit``; more than the items where questions are asked in rotations.
        n_nan: answers that the harness reads as missing and judges as the text ``nan``.
        generate: the keywords of ``generate()``.
        custom_prompt: whether the model's own prompts were asked, not the data set's.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    metric: str
    score: float
    split: str | None
    breakdown: dict[str, float | None]
    items: list[ItemScore]
    version: str
    dataset_class: str = Field(alias="class")
    available: int
    n_asked: int
    n_nan: int
    table_sha256: str
    generate: dict[str, Any]
    pixels: tuple[int | None, int | None]
    custom_prompt: bool


def read_scores(folder: Path) -> Scored:
    """What the process left.

    Raises:
        EvaluationError: it is missing or malformed.
    """
    path = folder / SCORES
    try:
        return Scored.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise EvaluationError(
            f"{path} cannot be read ({error}). Evaluate it again with --fresh."
        ) from error
