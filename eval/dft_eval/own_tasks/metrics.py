"""From completions to grades, one function a metric."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial

from dft_eval.mathematics import verdicts
from dft_eval.natural_questions import rules
from dft_eval.own_tasks.grading import Answers, Grade, Grading
from dft_eval.own_tasks.items import LETTERS, Item
from dft_eval.own_tasks.numbers import last_number
from dft_eval.own_tasks.programs import grade_programs
from dft_eval.own_tasks.task import Metric
from dft_eval.vlm.equality import Equality
from dft_eval.vlm.openai_scoring import LONGEST_FOR_JUDGE
from dft_eval.vlm.option_letters import option_letters
from dft_eval.vlm.rules import by_rules
from dft_eval.worker import Worker, WorkerEndedError

REPLY_FORMAT = "\n\nReply with one word: CORRECT or INCORRECT."


def grade(answers: Answers, grading: Grading) -> list[Grade]:
    """A grade of every completion, in their order."""
    pattern = grading.task.extract
    metric = _METRICS[grading.task.metric]
    if pattern is None:
        return metric(answers, grading)
    extracted = extract_all(pattern, [row.completion for _, row in answers], grading)
    cut = [
        (item, row.model_copy(update={"completion": text}))
        for (item, row), text in zip(answers, extracted, strict=True)
        if isinstance(text, str)
    ]
    grades = iter(metric(cut, grading))
    return [next(grades) if isinstance(text, str) else text for text in extracted]


def extract_all(pattern: str, texts: Sequence[str], grading: Grading) -> list[str | Grade]:
    """What the pattern matches in each text; a wrong grade for no match, an unscored one where the
    search did not end."""
    answers: list[str | Grade] = []
    with Worker("dft_eval.own_tasks.extract_worker") as worker, grading.progress("extract") as bar:
        for text in texts:
            try:
                reply = worker.ask({"pattern": pattern, "text": text})
            except WorkerEndedError as error:
                slow = error.signal_name == "SIGPROF"
                reply = {"error": "it takes too long on this text" if slow else str(error)}
            if "error" in reply:
                answers.append(Grade(None, f"extract {pattern!r}: {reply['error']}"))
            elif reply["answer"] is None:
                answers.append(Grade(False, f"no answer: extract {pattern!r} matches nothing"))
            else:
                answers.append(reply["answer"])
            bar(len(answers), len(texts))
    return answers


def _shown(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 120 else f"{text[:117]}...")


def _compared(correct: bool, shown: str, item: Item, answer: str | None) -> Grade:
    right = " or ".join(map(_shown, item.answers))
    return Grade(correct, f"{shown}, right is {right}", answer)


def _by_text(
    is_right: Callable[[str, Sequence[str]], bool], answers: Answers, _: Grading
) -> list[Grade]:
    return [
        _compared(
            is_right(row.completion, item.answers),
            f"answer {_shown(row.completion)}",
            item,
            rules.normalised(row.completion) or None,
        )
        for item, row in answers
    ]


def _numeric(answers: Answers, grading: Grading) -> list[Grade]:
    tolerance = Fraction(str(grading.task.tolerance))
    grades = []
    for item, row in answers:
        number = last_number(row.completion)
        if number is None:
            grades.append(_compared(False, f"no number in {_shown(row.completion)}", item, None))
            continue
        rights = [last_number(answer) for answer in item.answers]
        correct = any(right is not None and abs(number - right) <= tolerance for right in rights)
        grades.append(_compared(correct, f"answer {number}", item, str(number)))
    return grades


def _math(answers: Answers, grading: Grading) -> list[Grade]:
    """By math-verify; an extracted answer is what a box would hold."""
    boxed = grading.task.extract is not None
    questions = [
        verdicts.Question(
            "math-verify", f"\\boxed{{{row.completion}}}" if boxed else row.completion, gold
        )
        for item, row in answers
        for gold in item.answers
    ]
    with grading.progress("answers compared") as bar:
        workers = grading.request.judge_workers
        judged = iter(verdicts.judge_all(questions, workers=workers, progress=bar))
    grades = []
    for item, _ in answers:
        row = [next(judged) for _ in item.answers]
        right = [verdict for verdict in row if verdict.correct]
        best = (right or [verdict for verdict in row if verdict.correct is None] or row)[0]
        if best.correct is None:
            grades.append(Grade(None, best.problem))
            continue
        answer = "no answer" if best.answer is None else f"answer {_shown(best.answer)}"
        grades.append(_compared(best.correct, best.problem or answer, item, best.answer))
    return grades


def _choice(answers: Answers, grading: Grading) -> list[Grade]:
    grades = []
    with Equality() as equality, grading.progress("answers compared") as bar:
        for item, row in answers:
            options = dict(zip(LETTERS, item.choices, strict=False))
            score = by_rules(row, item.answers[0], options, equality)
            letters = option_letters(row.completion, options)
            vote = "".join(sorted(letters)) or None
            grades.append(Grade(score.score == 1.0, score.reason, vote))
            bar(len(grades), len(answers))
    return grades


def _judge(answers: Answers, grading: Grading) -> list[Grade]:
    assert grading.judge is not None
    prompts = []
    for item, row in answers:
        assert item.judge_prompt is not None
        before, after = item.judge_prompt
        shown = row.completion[-LONGEST_FOR_JUDGE:]
        prompts.append(f"{before}{shown}{after}{REPLY_FORMAT}")
    grading.judge.announce(prompts)
    with grading.progress("judge asked") as bar:
        replies = grading.judge.ask(prompts, lambda text: verdict_of(text) is not None, bar)
    grades = []
    for reply in replies:
        if reply.text is None:
            grades.append(Grade(None, reply.reason))
        else:
            correct = verdict_of(reply.text)
            grades.append(Grade(correct, f"judge said {reply.text[-60:]!r}"))
    return grades


def verdict_of(reply: str) -> bool | None:
    """What a judge says: the word that it was asked for, or that word in capitals at the end."""
    words = re.findall(r"\w+", reply)
    if not words or "not" in map(str.lower, words[-2:-1]):
        return None
    last = words[0].upper() if len(words) == 1 else words[-1]
    return {"CORRECT": True, "INCORRECT": False}.get(last)


_METRICS: dict[Metric, Callable[[Answers, Grading], list[Grade]]] = {
    "exact_match": partial(_by_text, rules.exact_match),
    "contains": partial(_by_text, rules.contains),
    "numeric": _numeric,
    "math": _math,
    "choice": _choice,
    "pass@1": grade_programs,
    "judge": _judge,
}
