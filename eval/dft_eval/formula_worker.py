"""Worker: reads formulas that a model wrote. Bounded in memory, writes no file, and the kernel ends
it at a question that takes more than :data:`CPU_SECONDS` of processor time, whatever code it is in.

Questions: ``{"latex": text}`` -> ``{"text": str or null}``, the formula as latex2sympy2_extended
prints it; ``{"gold": text, "answer": text, "sentence": bool}`` -> ``{"equal": bool}`` by
math-verify, which looks for the answer itself where it is a ``sentence``; ``{"harness": name,
"gold": text, "completion": text, ...}`` -> what :func:`dft_eval.mathematics.rules.judge` returns.
Where the bounds ended it, ``{"error": name}`` instead.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys
from typing import Any

CPU_SECONDS = 5.0
MEMORY_BYTES = 2 << 30


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
    try:
        if "harness" in question:
            from dft_eval.mathematics.rules import judge

            return judge(**question)
        if "latex" in question:
            return {"text": latex(question["latex"])}
        return {"equal": verify(**question)}
    except (MemoryError, RecursionError) as error:
        return {"error": type(error).__name__}


def main() -> None:
    """Answer questions until there are no more."""
    logging.disable(logging.CRITICAL)
    for harness in ("math-verify", "qwen"):  # what they import is not the first question's time
        answer({"harness": harness, "completion": "\\boxed{x}", "gold": "y"})
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        reply = answer(json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
