"""Which part of an answer a labelled token belongs to.

The rule, turn by turn (a turn is a run of labelled tokens without a gap):

1. *end of turn*: the stop tokens of ``patch.record.end_of_turn_ids`` alone, as in the record of a
   training.
2. *format*: every other special token, every token that overlaps one of the tags :data:`TAGS`,
   opening or closing, and white space after the end of turn (chatml has a newline there).
3. *reasoning*: what begins inside ``<think>...</think>``. A ``<think>`` never closed reaches to the
   end of the turn; a ``</think>`` that was opened in the prompt has the text before it.
4. *answer*: the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

REASONING, ANSWER, END_OF_TURN, FORMAT = "reasoning", "answer", "end_of_turn", "format"
SEGMENTS = (REASONING, ANSWER, END_OF_TURN, FORMAT)
CONTENT = (REASONING, ANSWER)

TAGS = ("think", "thinking", "reasoning", "answer", "solution", "tool_call")
"""Tags that structure an answer. Any other, HTML's for one, is content."""

RULE = (
    "end_of_turn: the template's stop words and the tokenizer's end token; format: other special "
    f"tokens, the tags {', '.join(f'<{tag}>' for tag in TAGS)}, and white space after the end of "
    "turn; reasoning: what begins inside <think>...</think>; answer: the rest."
)

_TAG = re.compile(rf"</?(?:{'|'.join(TAGS)})>")
_THINK = re.compile(r"<(/?)think>")


def _reasoning_spans(text: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    opened: int | None = None
    for tag in _THINK.finditer(text):
        if not tag.group(1):
            opened = tag.end() if opened is None else opened
        elif opened is not None or not spans:
            spans.append((opened or 0, tag.start()))
            opened = None
    if opened is not None:
        spans.append((opened, len(text)))
    return spans


def segments_of(
    ids: Sequence[int],
    spell: Callable[[int], str],
    *,
    end_of_turn: Collection[int],
    special: Collection[int] = (),
) -> list[str]:
    """The segment of each labelled token of one turn.

    Args:
        ids: the turn's tokens.
        spell: text of one token.
        end_of_turn: ids that end a turn.
        special: ids of special tokens.

    Returns:
        one of :data:`SEGMENTS` a token.
    """
    pieces = [spell(number) for number in ids]
    text = "".join(pieces)
    tags = [tag.span() for tag in _TAG.finditer(text)]
    reasoning = _reasoning_spans(text)
    segments: list[str] = []
    start, after_end = 0, False
    for number, piece in zip(ids, pieces, strict=True):
        end = start + len(piece)
        is_end = number in end_of_turn
        after_end = is_end or (after_end and not piece.strip())
        if is_end:
            segments.append(END_OF_TURN)
        elif (
            after_end or number in special or any(low < end and start < high for low, high in tags)
        ):
            segments.append(FORMAT)
        elif any(low <= start < high for low, high in reasoning):
            segments.append(REASONING)
        else:
            segments.append(ANSWER)
        start = end
    return segments


def turns_of(positions: Sequence[int]) -> list[range]:
    """Index ranges of runs of consecutive positions: the turns of one example."""
    starts = [i for i in range(len(positions)) if i == 0 or positions[i] != positions[i - 1] + 1]
    # Without a position there is no start, and the end of nothing is left over.
    return [range(a, b) for a, b in zip(starts, [*starts[1:], len(positions)], strict=False)]
