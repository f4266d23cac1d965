"""The three benchmarks with a judge model: VLMEvalKit 0.0.20's steps, one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dft_eval.generation.run import Completion
from dft_eval.progress import Progress
from dft_eval.results import ItemScore
from dft_eval.vlm import judge_prompts
from dft_eval.vlm.equality import Equality
from dft_eval.vlm.judge import OpenAIJudge, Reply
from dft_eval.vlm.options import infer_option

LONGEST_FOR_JUDGE = 16_000
"""Characters of an answer that the judge is shown: the last ones, where the result stands."""


@dataclass(frozen=True)
class Graded:
    """One item as these steps see it; ``gold`` is a letter where there are ``options``."""

    completion: Completion
    gold: str
    options: Mapping[str, str]
    question: str

    @property
    def id(self) -> str:
        """Of the item."""
        return self.completion.id

    @property
    def shown(self) -> str:
        """The answer as the judge sees it."""
        return self.completion.completion[-LONGEST_FOR_JUDGE:]


@dataclass(frozen=True)
class Scoring:
    """What scores items; ``judge`` is None for rules, ``title`` is that of the progress."""

    title: str
    equality: Equality
    judge: OpenAIJudge | None = None


def _ask(
    scoring: Scoring,
    prompt: Callable[[Mapping[str, Any]], str],
    lines: Mapping[str, dict[str, Any]],
    accept: Callable[[str], bool],
    doing: str,
) -> dict[str, Reply]:
    """Replies by item."""
    if not lines:
        return {}
    assert scoring.judge is not None
    prompts = [prompt(line) for line in lines.values()]
    scoring.judge.announce(prompts)
    with Progress(f"{scoring.title}: {doing}") as progress:
        return dict(zip(lines, scoring.judge.ask(prompts, accept, progress), strict=True))


def _empty(item: Graded) -> bool:
    return not item.completion.completion.strip()


def mathvision(items: Sequence[Graded], scoring: Scoring) -> list[ItemScore]:
    """``utils/mathv.py``: an option or a value that stands there plainly needs no judge; else the
    judge extracts it, and the same rules compare."""
    scores: dict[str, ItemScore] = {}
    left: list[Graded] = []
    for item in items:
        text = item.completion.completion
        if _empty(item):
            scores[item.id] = ItemScore(id=item.id, score=0.0, reason="empty answer")
        elif item.options:
            letter = infer_option(text, item.options)
            if letter is None:
                left.append(item)
            else:
                scores[item.id] = _option(item, letter, "plain")
        elif (verdict := scoring.equality.vlmevalkit(text, item.gold)).equal:
            scores[item.id] = ItemScore(id=item.id, score=1.0, reason=f"plain: {verdict.reason}")
        else:
            left.append(item)
    lines = {item.id: {"question": item.question, "prediction": item.shown} for item in left}
    replies = _ask(scoring, judge_prompts.mathvision, lines, bool, "judge extracts")
    for item in left:
        reply = replies[item.id]
        if reply.text is None:
            scores[item.id] = ItemScore(id=item.id, score=None, reason=reply.reason)
        elif item.options:
            letter = infer_option(reply.text, item.options)
            scores[item.id] = _option(item, letter, f"judge said {reply.text[:60]!r}")
        else:
            verdict = scoring.equality.vlmevalkit(reply.text, item.gold)
            scores[item.id] = ItemScore(
                id=item.id,
                score=float(verdict.equal),
                reason=f"judge said {reply.text[:60]!r}, right is {item.gold!r}: {verdict.reason}",
            )
    return [scores[item.id] for item in items]


def wemath(items: Sequence[Graded], scoring: Scoring) -> list[ItemScore]:
    """``dataset/utils/multiple_choice.py``: an option that stands there plainly needs no judge;
    else the judge matches one. A reply that names none is unscored; VLMEvalKit draws one."""
    scores: dict[str, ItemScore] = {}
    lines = {}
    for item in items:
        letter = infer_option(item.completion.completion, item.options)
        if _empty(item):
            scores[item.id] = ItemScore(id=item.id, score=0.0, reason="empty answer")
        elif letter is not None:
            scores[item.id] = _option(item, letter, "plain")
        else:
            lines[item.id] = {
                "question": item.question,
                "options": item.options,
                "prediction": item.shown,
            }
    replies = _ask(scoring, judge_prompts.wemath, lines, _has_letter, "judge matches")
    for item in items:
        if item.id not in lines:
            continue
        reply = replies[item.id]
        letter = infer_option(reply.text, item.options) if reply.text is not None else None
        how = f"judge said {(reply.text or '')[:60]!r}"
        scores[item.id] = (
            ItemScore(id=item.id, score=None, reason=reply.reason or f"{how}: no option")
            if letter is None
            else _option(item, letter, how)
        )
    return [scores[item.id] for item in items]


def _has_letter(text: str) -> bool:
    return re.search(r"\b[A-Z]\b", text) is not None


def _option(item: Graded, letter: str | None, how: str) -> ItemScore:
    right = letter is not None and letter.lower() == item.gold.strip().lower()
    named = "no option" if letter is None else f"option {letter}"
    return ItemScore(id=item.id, score=float(right), reason=f"{how}: {named}, right is {item.gold}")


def mathverse(items: Sequence[Graded], scoring: Scoring) -> list[ItemScore]:
    """``utils/mathverse.py``: the judge extracts every answer, and compares each that is not the
    right one word for word."""
    scores = {
        item.id: ItemScore(id=item.id, score=0.0, reason="empty answer")
        for item in items
        if _empty(item)
    }
    asked = [item for item in items if item.id not in scores]
    lines = {item.id: {"prediction": item.shown} for item in asked}
    extracted = _ask(scoring, judge_prompts.mathverse_extract, lines, bool, "judge extracts")
    lines = {}
    for item in asked:
        text = extracted[item.id].text
        if text is None:
            scores[item.id] = ItemScore(id=item.id, score=None, reason=extracted[item.id].reason)
        elif text.strip() == item.gold.strip():
            scores[item.id] = ItemScore(id=item.id, score=1.0, reason=f"extracted {text[:60]!r}")
        else:
            lines[item.id] = {
                "question_for_eval": item.question,
                "extract": text,
                "answer": item.gold,
            }
    verdicts = _ask(
        scoring, judge_prompts.mathverse_score, lines, {"0", "1"}.__contains__, "judge compares"
    )
    for id, line in lines.items():
        reply = verdicts[id]
        reason = f"extracted {line['extract'][:60]!r}, right is {line['answer']!r}"
        score = None if reply.text is None else float(reply.text)
        scores[id] = ItemScore(id=id, score=score, reason=reply.reason or f"{reason}: judged")
    return [scores[item.id] for item in items]
