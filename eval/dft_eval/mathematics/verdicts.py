"""Verdicts on many completions, on all usable cores, each within bounds.

A completion that takes too long or too much memory to read is wrong, and the reason says so. A
worker that ended otherwise is started again; the question is unscored after :data:`ATTEMPTS`, of
which kills from outside are none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from typing import Literal, get_args

from dft_eval.sandbox.cpus import judge_workers
from dft_eval.worker import Worker, WorkerEndedError

Harness = Literal["math-verify", "qwen"]
HARNESSES: tuple[Harness, ...] = get_args(Harness)
ATTEMPTS = 3
KILLS = 20
"""By :data:`FROM_OUTSIDE` over one question after which it is unscored: the kernel may be out of
memory at every attempt."""
FROM_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
"""Signals that no answer sends: the worker's own bounds and crashes have others."""
TOO_SLOW = "takes too long to read"
TOO_LARGE = "too large to read"


@dataclass(frozen=True)
class Question:
    """A completion and the right answer under one harness; ``keep_units``: :mod:`.qwen_text`."""

    harness: Harness
    completion: str
    gold: str
    keep_units: bool = False


@dataclass(frozen=True)
class Verdict:
    """What a harness says.

    Attributes:
        correct: None where the question could not be judged.
        answer: what it took for the answer; None where it found none.
        problem: why the answer was not read; empty where it was.
    """

    correct: bool | None
    answer: str | None
    problem: str = ""


def judge_all(
    questions: Sequence[Question],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> list[Verdict]:
    """Verdicts in the order of the questions; equal questions are judged once.

    Args:
        workers: most processes at once; None for as many as this machine can.
        progress: called with (done, all).
    """
    distinct = list(dict.fromkeys(questions))
    size = min(judge_workers(workers), max(1, len(distinct)))
    idle: SimpleQueue[Worker] = SimpleQueue()
    pool = [Worker("dft_eval.formula_worker") for _ in range(size)]
    for worker in pool:
        idle.put(worker)

    def verdict(question: Question) -> Verdict:
        worker = idle.get()
        try:
            return _judge(worker, question)
        finally:
            idle.put(worker)

    verdicts: dict[Question, Verdict] = {}
    threads = ThreadPoolExecutor(size)
    try:
        for question, row in zip(distinct, threads.map(verdict, distinct), strict=True):
            verdicts[question] = row
            progress(len(verdicts), len(distinct))
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
        for worker in pool:
            worker.close()
    return [verdicts[question] for question in questions]


def _judge(worker: Worker, question: Question) -> Verdict:
    attempts = kills = 0
    while True:
        try:
            reply = worker.ask(asdict(question))
        except WorkerEndedError as error:
            if error.signal_name == "SIGPROF":
                return Verdict(False, None, TOO_SLOW)
            if error.signal_name in FROM_OUTSIDE:
                kills += 1
            else:
                attempts += 1
            if attempts == ATTEMPTS or kills == KILLS:
                return Verdict(None, None, str(error))
            continue
        if "error" in reply:
            return Verdict(False, None, f"{TOO_LARGE} ({reply['error']})")
        return Verdict(reply["equal"], reply["answer"])
