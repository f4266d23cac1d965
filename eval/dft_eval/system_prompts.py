"""What ``--system-prompt`` takes: a text, or one of these names. Standard library only."""

from __future__ import annotations

import difflib

from dft_eval.errors import UsageError
from dft_eval.training_file import training_record

NONE = "none"
"""No system message at all, not even the one that a chat template inserts by itself."""

WETHINK = (
    "You FIRST think about the reasoning process as an internal monologue and then provide the "
    "final answer.\nThe reasoning process MUST BE enclosed within <think> </think> tags. The final "
    "answer MUST BE enclosed within <answer> </answer> tags."
)
"""WeThink's, from inference.py of github.com/yangjie-cv/WeThink, whose README requires it."""

NAMES = {NONE: NONE, "wethink": WETHINK}


def parse_system_prompt(value: str | None) -> str | None:
    """The text that ``--system-prompt`` names, :data:`NONE`, or None where it is not set.

    Raises:
        UsageError: an empty text, or a misspelt name.
    """
    if value is None:
        return None
    if value in NAMES:
        return NAMES[value]
    choices = f"Give a text, or one of: {', '.join(NAMES)}."
    if not value.strip():
        raise UsageError(f"--system-prompt {value!r} is empty. {choices}")
    if difflib.get_close_matches(value.strip().casefold(), NAMES, cutoff=0.8):
        raise UsageError(f"--system-prompt {value!r} is unknown. {choices}")
    return value


def trained_with(model: str) -> str | None:
    """The system prompt of a model's training examples; None where none is recorded.

    Args:
        model: as ``--model`` names it: a model or adapter folder, or a checkpoint in it.

    Raises:
        UsageError: the record cannot be read.
    """
    prompt = training_record(model).get("system_prompt")
    return None if prompt is None else str(prompt)
