"""The judge ``rules``: answer extraction and math-verify; asks nobody."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping

from dft_eval.generation.run import Completion
from dft_eval.results import ItemScore
from dft_eval.vlm.equality import Equality
from dft_eval.vlm.extract import (
    ambiguous,
    final_answer,
    normalised,
    readable,
    stated_answer,
    tails,
    value,
)
from dft_eval.vlm.option_letters import option_letters

_SEVERAL = re.compile(r"[,;]|\b(?:or|and)\b")
_WORD = re.compile(r"(?<!\\)\b[A-Za-z]{2,}\b")


def described() -> str:
    """For the result: who judged."""
    return f"rules: answer extraction and math-verify {importlib.metadata.version('math-verify')}"


def by_rules(
    completion: Completion, gold: str, options: Mapping[str, str], equality: Equality
) -> ItemScore:
    """Score one answer.

    Args:
        gold: the right answer; with ``options`` the right letter.
        options: letter to text; empty for a free answer.
    """
    if not completion.completion.strip():
        return ItemScore(id=completion.id, score=0.0, reason="empty answer")
    right = gold.strip()
    if options:
        letters = option_letters(completion.completion, options)
        if letters:
            named = " and ".join(sorted(letters))
            return ItemScore(
                id=completion.id,
                score=float(letters == {right}),
                reason=f"option {named}, right is {right}",
            )
        gold = options.get(right, gold)
    answer = final_answer(completion.completion)
    stated = stated_answer(completion.completion) is not None
    sentence = not stated and _WORD.search(answer) is not None
    texts = [answer, *(tails(answer) if sentence else [])]
    if normalised(gold) in map(normalised, texts):
        equal, how = True, "same text"
    elif ambiguous(answer, sentence=sentence) and not _SEVERAL.search(gold):
        equal, how = False, "several answers"
    else:
        compared = answer if sentence or "=" in gold else value(answer)
        verdict = equality.math_verify(readable(compared), readable(gold), sentence=sentence)
        equal, how = verdict.equal, verdict.reason
    shown = answer if len(answer) <= 80 else f"{answer[:77]}..."
    reason = f"answer {shown!r}, right is {gold!r}: {how}"
    if not equal and completion.finish_reason == "length":
        reason += " (cut at max_new_tokens)"
    return ItemScore(id=completion.id, score=float(equal), reason=reason)
