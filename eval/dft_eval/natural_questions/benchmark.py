"""Natural Questions, closed book: NQ-open's 3,610 development questions (arXiv 1906.00300).

The paper gives neither the model nor the protocol of its figures on this set; the protocol here
is ours. ``exact_match`` is the score. The other rules of :mod:`dft_eval.natural_questions.rules`
stand in the breakdown, and all three verdicts in each item's reason.
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
from dft_eval.requirements import MissingRequirement
from dft_eval.results import BenchmarkResult, ItemScore
from dft_eval.statistics import mean_and_stderr

LM_EVAL = "exact_match of lm-eval"
CONTAINS = "contains"
MAX_NEW_TOKENS = 32
"""Beside the longest answers there is room for a short sentence, which ``contains`` looks into."""
SHOWN = 120
"""Characters of a prediction, and aliases, that an item's reason shows."""
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
    """The item (its score is ``exact_match``) and what all rules say; None without a completion."""
    if isinstance(row, Failure):
        return ItemScore(id=question.id, score=None, reason=row.reason), None
    verdict = judge(row.completion, question.answer)
    said = row.completion.strip()
    reason = (
        f"exact_match {verdict.exact_match:d}, lm-eval {verdict.lm_eval:d}, "
        f"contains {verdict.contains:d}: {_shown(repr(said))}, right is "
        f"{_shown(' or '.join(map(repr, question.answer)))}"
    )
    if not said:
        reason = f"{reason} (empty answer)"
    elif row.finish_reason == "length":
        reason = f"{reason} (cut at max_new_tokens)"
    return ItemScore(id=question.id, score=float(verdict.exact_match), reason=reason), verdict


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def breakdown(verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    """Means of the two other rules over the scored items."""
    return {
        LM_EVAL: mean_and_stderr([float(each.lm_eval) for each in verdicts])[0],
        CONTAINS: mean_and_stderr([float(each.contains) for each in verdicts])[0],
    }


def missing() -> list[MissingRequirement]:
    """Nothing: it needs no package of its own."""
    return []


def load(benchmark: Benchmark, request: Request) -> QuestionSet:
    """The questions of ``--data``, or of the hub.

    Raises:
        UsageError, PrerequisiteError: malformed, or out of reach.
    """
    if request.decoding.temperature > 0:
        raise UsageError(
            f"--temperature {request.decoding.temperature}: {benchmark.name} takes the one greedy "
            "answer of each question (--temperature 0)."
        )
    return read_data(request.data) if request.data else from_hub()


def parts(benchmark: Benchmark, request: Request, data: QuestionSet) -> list[Part]:
    """One prompt a question."""
    style = request.prompt_style or benchmark.default_style
    decoding = replace(request.decoding, stop=COMPLETION_STOP if style == "completion" else ())
    prompts = [make_prompt(question, style) for question in data.questions[: request.limit]]
    return [Part(f"{benchmark.name}.{style}", prompts, decoding)]


def scorer(
    benchmark: Benchmark, request: Request, data: QuestionSet
) -> Callable[[Rows], BenchmarkResult]:
    """What compares answers; it needs nothing."""
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
            f"our protocol, for the paper gives none: closed book, {PROMPTS[style]}",
            f"'{LM_EVAL}': the answer cut at the first '.', ',' or line break, by nq_open 4.0; "
            f"'{CONTAINS}': an answer's words in a row within the model's",
        ],
    )


NATURAL_QUESTIONS = Benchmark(
    name="nq",
    summary="Natural Questions, closed book: 3,610 questions of NQ-open dev (arXiv 1906.00300)",
    published=3610,
    default_style="chat",
    missing=missing,
    data=QuestionSet,
    load=load,
    parts=parts,
    scorer=scorer,
    max_new_tokens=MAX_NEW_TOKENS,
)
