"""Chats of transformers: the user's turn in a chat template, the end of a turn, ids to text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from dft_eval.errors import UsageError
from dft_eval.system_prompts import NONE

REPLY = "x"


def decode_text(tokenizer: Any, ids: list[int]) -> str:
    """The text of these tokens as the model wrote it.

    Tokenizers with ``clean_up_tokenization_spaces`` (Llama 3's) delete spaces before punctuation
    unless told not to, which changes programs.
    """
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


def stop_tokens(model: Any, renderer: Any, *, chat: bool, stop: Sequence[str] = ()) -> set[int]:
    """Tokens that end a completion: the model's and the tokenizer's end of sequence, stop texts
    that are one token of their own, and in a chat the end of turn of the template.

    Special tokens are not in the decoded text, where other stop texts are looked for.

    A base model's end of sequence is often another token (Qwen2.5: ``<|endoftext|>``, where the
    template ends turns in ``<|im_end|>``).
    """
    ends = model.generation_config.eos_token_id
    tokenizer = getattr(renderer, "tokenizer", renderer)
    tokens = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
    added = tokenizer.get_added_vocab()
    tokens.update(added[text] for text in stop if text in added)
    if chat:
        turns = [{"role": "user", "content": REPLY}, {"role": "assistant", "content": REPLY}]
        after = renderer.apply_chat_template(turns, tokenize=False).rpartition(REPLY)[2].strip()
        first = tokenizer(after, add_special_tokens=False)["input_ids"][:1]
        tokens.update(token for token in first if token in tokenizer.added_tokens_decoder)
    return tokens - {None}


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
        reply = REPLY if isinstance(content, str) else [{"type": "text", "text": REPLY}]
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
