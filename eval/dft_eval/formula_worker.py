"""Worker: reads formulas that a model wrote, within the bounds of :func:`dft_eval.worker.serve`.

Questions: ``{"latex": text}`` -> ``{"text": str or null}``, the formula as latex2sympy2_extended
prints it; ``{"gold": text, "answer": text, "sentence": bool}`` -> ``{"equal": bool}`` by
math-verify, which looks for the answer itself where it is a ``sentence``; ``{"harness": name,
"gold": text, "completion": text, ...}`` -> what :func:`dft_eval.mathematics.rules.judge` returns.
"""

from __future__ import annotations

import logging
from typing import Any

from dft_eval.worker import serve

CPU_SECONDS = 5.0


def latex(text: str) -> str | None:
    """The formula in Python's notation; None where it is none."""
    from latex2sympy2_extended import latex2sympy  # type: ignore[import-untyped]

    try:
        return str(latex2sympy(text))
    except (MemoryError, RecursionError):
        raise  # our bounds, not the formula's form
    except Exception:  # latex2sympy2_extended raises bare Exception for what it cannot parse
        return None


def verify(gold: str, answer: str, sentence: bool) -> bool:
    """math-verify 0.9's verdict on two answers."""
    from math_verify import parse  # type: ignore[import-untyped]
    from math_verify import verify as is_equal

    # Its own time limits need signals that are used here for the whole question.
    texts = (f"\\boxed{{{gold}}}", answer if sentence else f"\\boxed{{{answer}}}")
    sides = [parse(text, parsing_timeout=None) for text in texts]
    return bool(all(sides) and is_equal(sides[0], sides[1], timeout_seconds=None))


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Answer one question."""
    if "harness" in question:
        from dft_eval.mathematics.rules import judge

        return judge(**question)
    if "latex" in question:
        return {"text": latex(question["latex"])}
    return {"equal": verify(**question)}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    for harness in ("math-verify", "qwen"):  # what they import is not the first question's time
        answer({"harness": harness, "completion": "\\boxed{x}", "gold": "y"})
    serve(answer, cpu_seconds=CPU_SECONDS)
