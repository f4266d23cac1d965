"""Natural Questions, closed book: NQ-open's 3,610 development questions (arXiv 1906.00300).

The paper gives neither the model nor the protocol of its figures on this set; the protocol here
is ours. The score is ``exact_match``. The breakdown has the other rules of
:mod:`dft_eval.natural_questions.rules`, and each item's reason all three verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version

from dft_eval.benchmark import Benchmark, Part, Request, Rows, finish, size_notes
from dft_eval.errors import UsageError
from dft_eval.generation.run import Completion, Failure, Prompt
from dft_eval.natural_questions.data import Question, QuestionSet, from_hub, read_data
from dft_eval.natural_questions.prompts import (
    COMPLETION_STOP,
    EXAMPLES,
    chat_prompt,
    completion_prompt,
)
from dft_eval.natural_questions.rules import Verdict, judge
from dft_eval.results import BenchmarkResult, ItemScore
from dft_eval.statistics import mean_and_stderr

LM_EVAL = "exact_match of lm-eval"
CONTAINS = "contains"
MAX_NEW_TOKENS = 32
"""Enough for the longest answers in a short sentence, which ``contains`` accepts."""
REASON_CHARS = 120
"""Characters of the prediction and of the answers in an item's reason."""
PROMPTS = {
    "completion": f"{len(EXAMPLES)} fixed examples before the question, cut at the line's end",
    "chat": "the prompt that data prepare nq trains on",
}


def make_prompt(question: Question, style: str) -> Prompt:
    """The prompt of one question in the given style."""
    if style == "completion":
        return Prompt(question.id, completion_prompt(question.question))
    return Prompt(question.id, chat_prompt(question.question), chat=True)


def score_item(question: Question, row: Completion | Failure) -> tuple[ItemScore, Verdict | None]:
    """The item, scored by ``exact_match``, and all verdicts (None without a completion)."""
    if isinstance(row, Failure):
        return ItemScore(id=question.id, score=None, reason=row.reason), None
    verdict = judge(row.completion, question.answer)
    prediction = row.completion.strip()
    reason = (
        f"exact_match {verdict.exact_match:d}, lm-eval {verdict.lm_eval:d}, "
        f"contains {verdict.contains:d}: {_shorten(repr(prediction))}, right is "
        f"{_shorten(' or '.join(map(repr, question.answer)))}"
    )
    if not prediction:
        reason = f"{reason} (empty answer)"
    elif row.finish_reason == "length":
        reason = f"{reason} (cut at max_new_tokens)"
    return ItemScore(id=question.id, score=float(verdict.exact_match), reason=reason), verdict


def _shorten(text: str) -> str:
    return text if len(text) <= REASON_CHARS else f"{text[: REASON_CHARS - 3]}..."


def breakdown(verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    """Means of the two other rules over the scored items."""
    return {
        LM_EVAL: mean_and_stderr([float(verdict.lm_eval) for verdict in verdicts])[0],
        CONTAINS: mean_and_stderr([float(verdict.contains) for verdict in verdicts])[0],
    }


def load(benchmark: Benchmark, request: Request) -> QuestionSet:
    """The questions of ``--data``, or of the hub.

    Raises:
        UsageError, PrerequisiteError: malformed, or not available.
    """
    if request.decoding.temperature > 0:
        raise UsageError(
            f"--temperature {request.decoding.temperature}: {benchmark.name} takes the one greedy "
            "answer of each question (--temperature 0)."
        )
    return read_data(request.data) if request.data else from_hub()


def parts(benchmark: Benchmark, request: Request, data: QuestionSet) -> list[Part]:
    """One prompt per question."""
    style = request.prompt_style or benchmark.default_style
    decoding = replace(request.decoding, stop=COMPLETION_STOP if style == "completion" else ())
    prompts = [make_prompt(question, style) for question in data.questions[: request.limit]]
    return [Part(f"{benchmark.name}.{style}", prompts, decoding)]


def scorer(
    benchmark: Benchmark, request: Request, data: QuestionSet
) -> Callable[[Rows], BenchmarkResult]:
    """Compares answers; needs nothing installed."""
    return partial(_score, benchmark, request, data)


def _score(
    benchmark: Benchmark, request: Request, data: QuestionSet, rows: Rows
) -> BenchmarkResult:
    (part,) = parts(benchmark, request, data)
    style = request.prompt_style or benchmark.default_style
    questions = data.questions[: request.limit]
    scored = [score_item(question, row) for question, row in zip(questions, rows[0], strict=True)]
    return finish(
        benchmark,
        request,
        [item for item, _ in scored],
        metric="exact_match",
        style=style,
        harness=f"dft-factory {version('dft-factory')} (exact_match after DPR's normalisation)",
        decoding=part.decoding.record(),
        breakdown=breakdown([verdict for _, verdict in scored if verdict is not None]),
        notes=[
            *size_notes(len(questions), len(data.questions), benchmark.published),
            data.source,
            f"our protocol (the paper gives none): closed book, {PROMPTS[style]}",
            f"'{LM_EVAL}': the answer cut at the first '.', ',' or line break, by nq_open 4.0; "
            f"'{CONTAINS}': an answer's words in a row within the model's",
        ],
    )


NATURAL_QUESTIONS = Benchmark(
    name="nq",
    summary="Natural Questions, closed book: 3,610 questions of NQ-open dev (arXiv 1906.00300)",
    published=3610,
    default_style="chat",
    missing=list,  # needs nothing
    data=QuestionSet,
    load=load,
    parts=parts,
    scorer=scorer,
    max_new_tokens=MAX_NEW_TOKENS,
)
