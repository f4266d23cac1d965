"""The judge ``rules``: answer extraction and math-verify; asks nobody."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

from dft_eval.generation.run import Completion
from dft_eval.results import ItemScore
from dft_eval.vlm.equality import Equality
from dft_eval.vlm.extract import final_answer, normalised, option_letter, stated_answer


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
    if options:
        letter = option_letter(completion.completion, options)
        if letter is not None:
            return ItemScore(
                id=completion.id,
                score=float(letter == gold.strip()),
                reason=f"option {letter}, right is {gold}",
            )
        gold = options.get(gold.strip(), gold)
    answer = final_answer(completion.completion)
    stated = stated_answer(completion.completion) is not None
    if normalised(answer) == normalised(gold):
        equal, how = True, "same text"
    else:
        verdict = equality.math_verify(answer, gold, sentence=not stated)
        equal, how = verdict.equal, verdict.reason
    shown = answer if len(answer) <= 80 else f"{answer[:77]}..."
    reason = f"answer {shown!r}, right is {gold!r}: {how}"
    if not equal and completion.finish_reason == "length":
        reason += " (cut at max_new_tokens)"
    return ItemScore(id=completion.id, score=float(equal), reason=reason)
