"""The two prompts of Natural Questions, closed book; standard library only.

``dft-factory data prepare nq`` writes ``chat_prompt`` as the instruction, so that training and
evaluation use the same prompt.
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
"""Written for this project in the style of the set: lower case, no question mark."""

COMPLETION_STOP = ("\n",)


def with_question_mark(question: str) -> str:
    """The question with one question mark at its end."""
    return f"{question.strip().rstrip('?').rstrip()}?"


def chat_prompt(question: str) -> str:
    """The user turn: the instruction and the question."""
    return f"{INSTRUCTION}\n\n{with_question_mark(question)}"


def completion_prompt(question: str) -> str:
    """Raw text for a base model: :data:`EXAMPLES`, then the question.

    The layout is that of lm-evaluation-harness' ``nq_open`` 4.0; its examples come from the
    training split, ours are fixed.
    """
    examples = "".join(f"Q: {with_question_mark(text)}\nA: {answer}\n" for text, answer in EXAMPLES)
    return f"Answer these questions:\n\n{examples}Q: {with_question_mark(question)}\nA:"
