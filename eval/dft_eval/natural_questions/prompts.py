"""The two prompts of Natural Questions, closed book; standard library only.

``chat_prompt`` is also what ``dft-factory data prepare nq`` writes as instruction, so that a tuned
model is asked in the words that it was trained on.
"""

from __future__ import annotations

INSTRUCTION = "Answer the question with the answer alone, in a few words."

EXAMPLES: tuple[tuple[str, str], ...] = (
    ("what is the chemical symbol for tungsten", "W"),
    ("who painted the night watch in the rijksmuseum", "Rembrandt"),
    ("in which city does the river tagus reach the sea", "Lisbon"),
    ("how many strings does a viola have", "four"),
    ("when was the eiffel tower opened to the public", "1889"),
)
"""Of our own writing, in the style of the set: lower case, no question mark."""

COMPLETION_STOP = ("\n",)


def asked(question: str) -> str:
    """The question with one question mark at its end."""
    return f"{question.strip().rstrip('?').rstrip()}?"


def chat_prompt(question: str) -> str:
    """What the user says: the instruction and the question."""
    return f"{INSTRUCTION}\n\n{asked(question)}"


def completion_prompt(question: str) -> str:
    """Raw text for a base model: :data:`EXAMPLES`, then the question.

    The layout is that of lm-evaluation-harness' ``nq_open`` 4.0; its examples come from the
    training split, ours are fixed.
    """
    shown = "".join(f"Q: {asked(text)}\nA: {answer}\n" for text, answer in EXAMPLES)
    return f"Answer these questions:\n\n{shown}Q: {asked(question)}\nA:"
