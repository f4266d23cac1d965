"""Worker: searches what a model wrote for the regular expression of a task.

A pattern may backtrack without end on a text that its author did not think of.
``{"pattern": text, "text": text}`` -> ``{"answer": text or null}``.
"""

from __future__ import annotations

import re
from typing import Any

from dft_eval.worker import serve

CPU_SECONDS = 2.0


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """What the group of the last match holds."""
    group = None
    for match in re.finditer(question["pattern"], question["text"]):
        group = match[1]
    return {"answer": group}


if __name__ == "__main__":
    serve(answer, cpu_seconds=CPU_SECONDS)
