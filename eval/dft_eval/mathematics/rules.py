"""One completion against its right answer under one named harness; for the worker."""

from __future__ import annotations

from typing import Any

from dft_eval.mathematics import math_verify_rule, qwen_equality, qwen_text

LONGEST = 2000
"""Characters of an answer above which it is not read as a formula."""


def judge(harness: str, completion: str, gold: str, keep_units: bool = False) -> dict[str, Any]:
    """Judge one completion.

    Args:
        harness: ``math-verify`` or ``qwen``.
        keep_units: for ``qwen``: words and letters are no units (Minerva).

    Returns:
        ``answer`` (the text that stands for the answer; None where there is none), ``equal``.
    """
    if harness == "qwen":
        return _qwen(completion, gold, keep_units)
    answer = math_verify_rule.answer_of(completion, gold)
    if answer is not None and len(answer) > LONGEST:
        return {"answer": answer[:LONGEST], "equal": answer.strip() == gold.strip()}
    if answer is None:
        read = math_verify_rule.read(completion)
        equal = read is not None and math_verify_rule.equal(completion, gold)
        return {"answer": read, "equal": equal}
    return {"answer": answer.strip() or None, "equal": math_verify_rule.equal(completion, gold)}


def _qwen(completion: str, gold: str, keep_units: bool) -> dict[str, Any]:
    right = qwen_text.right_answer(gold, keep_units=keep_units)
    answer = qwen_text.predict(completion, right, keep_units=keep_units)
    if len(answer) > LONGEST:
        return {"answer": answer[:LONGEST], "equal": answer == right}
    has_answer = qwen_text.has_answer(completion)
    return {"answer": answer if has_answer else None, "equal": qwen_equality.equal(answer, right)}
