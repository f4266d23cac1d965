"""What is sent to an OpenAI-compatible server as a message, and what its answer holds."""

from __future__ import annotations

import base64
import mimetypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from dft_eval.generation.run import Completion, Decoding, Failure, Prompt, cut


@dataclass(frozen=True)
class Way:
    """How the server takes one kind of request; ``sends_n``: several samples in one."""

    sends_stop: bool = True
    end_of_turn: int | None = None
    sends_sampler: bool = True
    continues: bool = False
    sends_n: bool = False


def content(prompt: Prompt) -> str | list[dict[str, Any]]:
    """The user message: text, or pictures and text."""
    if not prompt.images:
        return prompt.text
    pictures = [
        {"type": "image_url", "image_url": {"url": _data_uri(Path(name))}} for name in prompt.images
    ]
    return [*pictures, {"type": "text", "text": prompt.text}]


def _data_uri(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def answer_from(text: str, begins: str) -> str:
    """What follows the begun answer, in an answer that the server made without it."""
    if text.startswith(begins):
        return text[len(begins) :]
    opened = re.search(r"```[^\n`]*\n", text) if re.search(r"```[^\n`]*\n\Z", begins) else None
    return text[opened.end() :] if opened else text


def read_answers(
    answer: dict[str, Any], prompts: Sequence[Prompt], decoding: Decoding, way: Way
) -> list[Completion | Failure]:
    """The completions in a server's answer, held to the stop texts once more.

    Args:
        prompts: the samples that it was asked for. There are fewer rows than prompts where it has
            fewer choices.
    """
    try:
        choices = answer["choices"][: len(prompts)]
        reasons = [choice["finish_reason"] for choice in choices]
        texts = [choice_text(choice, prompts[0]) for choice in choices]
        counts = _shares(int(answer["usage"]["completion_tokens"]), [len(t) + 1 for t in texts])
    except (KeyError, IndexError, TypeError, ValueError):
        texts = []
    if not texts:
        reason = f"No completion in the server's answer: {str(answer)[:300]}"
        return [Failure(prompt.id, reason) for prompt in prompts]
    return [
        _completion(*row, decoding=decoding, way=way)
        for row in zip(prompts, texts, reasons, counts, strict=False)
    ]


def choice_text(choice: dict[str, Any], prompt: Prompt) -> str:
    """The text of one choice; LookupError or TypeError where there is none."""
    return (choice["message"]["content"] if prompt.chat else choice["text"]) or ""


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """``total`` in whole numbers by weight: a server counts the tokens of all choices together."""
    ends = [round(total * end / sum(weights)) for end in accumulate(weights)]
    return [end - begin for begin, end in pairwise([0, *ends])]


def _completion(
    prompt: Prompt, text: str, reason: Any, n_tokens: int, *, decoding: Decoding, way: Way
) -> Completion | Failure:
    if reason not in ("stop", "length"):
        return Failure(prompt.id, f"The server ended the completion for {reason!r}.")
    if way.continues:
        text = text.removeprefix(prompt.answer_begins)  # some servers repeat it
    elif prompt.answer_begins:
        text = answer_from(text, prompt.answer_begins)
    text, stopped = cut(text, decoding.stop)
    return Completion(
        id=prompt.id,
        prompt=prompt.text + (prompt.answer_begins if way.continues else ""),
        completion=text,
        finish_reason="stop" if stopped else reason,
        n_tokens=n_tokens,
    )
