"""Input and output of metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dft_eval.benchmark import Request
from dft_eval.generation.run import Completion
from dft_eval.humaneval_plus.data import EvalPlusProblem
from dft_eval.own_tasks.items import Item
from dft_eval.own_tasks.task import Task
from dft_eval.progress import Progress
from dft_eval.vlm.judge import OpenAIJudge


@dataclass(frozen=True)
class Grade:
    """Grade of one completion.

    Attributes:
        correct: None if undecided.
        reason: for the items file.
        answer: its vote for the majority; None without an answer.
    """

    correct: bool | None
    reason: str
    answer: str | None = None


Answers = Sequence[tuple[Item, Completion]]
"""Items with their completions, cut down to the extracted answer."""


@dataclass(frozen=True)
class Grading:
    """Input of metrics besides the answers.

    Attributes:
        judge: of metric ``judge``.
        problems: of ``pass@1`` with solutions, by item.
    """

    task: Task
    request: Request
    judge: OpenAIJudge | None = None
    problems: Mapping[str, EvalPlusProblem] = field(default_factory=dict)

    def progress(self, doing: str) -> Progress:
        """A progress bar of this task."""
        return Progress(f"{self.request.label} {self.task.name}: {doing}")
