"""What the model is asked: VLMEvalKit 0.0.20's prompts for models without one of their own
(``use_custom_prompt=False``, as it runs Qwen2.5-VL)."""

from __future__ import annotations

import string

from dft_eval.generation.run import Prompt
from dft_eval.vlm.tables import Row


def question(row: Row) -> Prompt:
    """MathVision and MathVerse: the pictures and the question as it stands in the table."""
    return Prompt(row.id, row.text("question"), chat=True, images=row.pictures)


def multiple_choice(row: Row) -> Prompt:
    """WeMath: hint, question and lettered options, where there are any."""
    options = "".join(f"{letter}. {text}\n" for letter, text in option_texts(row).items())
    hint = f"Hint: {row.cells['hint']}\n" if "hint" in row.cells else ""
    listed = f"Options:\n{options}" if options else ""
    text = f"{hint}Question: {row.text('question')}\n{listed}"
    return Prompt(row.id, text, chat=True, images=row.pictures)


def option_texts(row: Row) -> dict[str, str]:
    """The options of a WeMath row: letter to text."""
    return {
        letter: str(row.cells[letter]) for letter in string.ascii_uppercase if letter in row.cells
    }
