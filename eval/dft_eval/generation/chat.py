"""One user turn, with or without a system message, in a chat template of transformers."""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError

from dft_eval.errors import UsageError
from dft_eval.system_prompts import NONE


def render_chat(renderer: Any, content: Any, system_prompt: str | None) -> str:
    """The input up to where the answer begins.

    Args:
        renderer: a tokenizer or processor with a chat template.
        content: of the user's turn: a text, or a list of parts.
        system_prompt: the system message; None for what the template does by itself, ``none`` for
            no system message.

    Raises:
        UsageError: the template does not take a system message, or cannot do without one.
    """

    def rendered(*messages: dict[str, Any], ready: bool = True) -> str:
        text = renderer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=ready
        )
        return str(text)

    user = {"role": "user", "content": content}
    if system_prompt is None:
        return rendered(user)
    try:
        if system_prompt != NONE:
            text = rendered({"role": "system", "content": system_prompt}, user)
            if system_prompt.strip() not in text:
                raise UsageError(
                    "--system-prompt: this model's chat template drops the system message. Leave "
                    "the option out."
                )
            return text
        # Templates insert their own system message before the first turn alone, so a second user
        # turn shows how one looks without it.
        reply = "x" if isinstance(content, str) else [{"type": "text", "text": "x"}]
        history = (user, {"role": "assistant", "content": reply})
        first, turn = rendered(user), rendered(*history, user)
        turn = turn.removeprefix(rendered(*history, ready=False))
    except TemplateError as error:
        raise UsageError(
            f"--system-prompt: this model's chat template refuses it ({error}). Leave the option "
            "out."
        ) from error
    if not first.endswith(turn):
        raise UsageError(
            "--system-prompt none: what this model's chat template inserts cannot be told from the "
            "user's turn. Give the system prompt as a text, or leave the option out."
        )
    start = getattr(renderer, "tokenizer", renderer).bos_token or ""
    begins = first.removesuffix(turn).startswith(start) and not turn.startswith(start)
    return f"{start if begins else ''}{turn}"
