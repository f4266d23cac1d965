"""What is sent to an OpenAI-compatible server as a message, and what its answer holds."""

from __future__ import annotations

import base64
import mimetypes
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_eval.generation.run import Completion, Decoding, Failure, Prompt, cut


@dataclass(frozen=True)
class Way:
    """How the server takes one kind of request."""

    sends_stop: bool = True
    end_of_turn: int | None = None
    sends_sampler: bool = True
    continues: bool = False


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


def read_answer(
    answer: dict[str, Any], prompt: Prompt, decoding: Decoding, way: Way
) -> Completion | Failure:
    """The completion in a server's answer, held to the stop texts once more."""
    try:
        choice = answer["choices"][0]
        text = choice["message"]["content"] if prompt.chat else choice["text"]
        reason = choice["finish_reason"]
        n_tokens = int(answer["usage"]["completion_tokens"])
    except (KeyError, IndexError, TypeError, ValueError):
        return Failure(prompt.id, f"No completion in the server's answer: {str(answer)[:300]}")
    if reason not in ("stop", "length"):
        return Failure(prompt.id, f"The server ended the completion for {reason!r}.")
    text = text or ""
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
