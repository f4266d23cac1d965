"""Completions of text by a model in this process, batched by length, on transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dft_eval.errors import UsageError
from dft_eval.generation.chat import decode_text, render_chat, stop_tokens
from dft_eval.generation.hf_decode import Prefill, decode
from dft_eval.generation.hf_prepare import memory_errors
from dft_eval.generation.run import Completion, Decoding, Prompt, cut, noop

GROUP = 4
"""Times ``batch_size``: prompts that are completed, and written, together. Rows that have ended are
replaced within a group alone, so that a resumed run makes the same groups and completions."""


def batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in fixed batches, longest first, so that memory runs out at once or never."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[start : start + size] for start in range(0, len(order), size)]


def render(tokenizer: Any, prompt: Prompt, system_prompt: str | None = None) -> str:
    """The whole input: raw text, or one user turn in the tokenizer's own chat template.

    Raises:
        UsageError: a chat, and the tokenizer has no chat template, or one without the system
            prompt; or a prompt with pictures.
    """
    if prompt.images:
        raise UsageError(f"{prompt.id} has pictures, and this model reads text alone.")
    if not prompt.chat:
        return prompt.text
    if not tokenizer.chat_template:
        raise UsageError(
            "This model's tokenizer has no chat template, so --prompt-style chat cannot be used. "
            "Use --prompt-style completion."
        )
    return f"{render_chat(tokenizer, prompt.text, system_prompt)}{prompt.answer_begins}"


class HfTextBackend:
    """A causal language model of transformers; loaded when it is first needed."""

    def __init__(self, identity: str, load: Callable[[], tuple[Any, Any]]) -> None:
        self._identity = identity
        self._load = load

    @property
    def identity(self) -> str:
        """The hash of the model's weights."""
        return self._identity

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        """Prompts of like length together."""
        _, tokenizer = self._load()
        texts = [render(tokenizer, prompt, decoding.system_prompt) for prompt in prompts]
        lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        return batches(lengths, GROUP * decoding.batch_size)

    def complete(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        ended: Callable[[Completion], None] = noop,
    ) -> list[Completion]:
        """Completions of one batch."""
        with memory_errors(decoding.batch_size):
            return complete_batch(*self._load(), prompts, decoding, ended)


def complete_batch(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    row_ended: Callable[[Completion], None] = noop,
) -> list[Completion]:
    """Completions of one group of prompts; raises as :func:`decode`."""
    texts = [render(tokenizer, prompt, decoding.system_prompt) for prompt in prompts]
    starts: list[list[int]] = [
        # A rendered chat brings its own special tokens.
        tokenizer(text, add_special_tokens=not prompt.chat)["input_ids"]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    prefill = Prefill(model, starts)
    return complete_rendered(tokenizer, prompts, texts, prefill, decoding, row_ended)


def complete_rendered(
    renderer: Any,
    prompts: Sequence[Prompt],
    texts: Sequence[str],
    prefill: Prefill,
    decoding: Decoding,
    row_ended: Callable[[Completion], None],
) -> list[Completion]:
    """Completions of one group of rendered prompts; raises as :func:`decode`.

    Args:
        renderer: the tokenizer, or the processor of a model that reads pictures.
        texts: the whole inputs.
        prefill: runs them.
    """
    model, tokenizer = prefill.model, getattr(renderer, "tokenizer", renderer)
    ends = [
        stop_tokens(model, renderer, chat=prompt.chat, stop=decoding.stop) for prompt in prompts
    ]
    # A stop text of n bytes lies within the last n tokens; some more, since decoders may treat the
    # first token of a text in a way of its own.
    reach = max((len(text.encode()) for text in decoding.stop), default=0) + 4

    def has_stop(ids: list[int]) -> bool:
        return cut(decode_text(tokenizer, ids), decoding.stop)[1]

    def ended(row: int, ids: list[int]) -> bool:
        if ids[-1] in ends[row]:
            return True
        return bool(decoding.stop) and has_stop(ids[-reach:]) and has_stop(ids)

    seeds = [decoding.row_seed(prompt.id) for prompt in prompts]
    rows: dict[int, Completion] = {}

    def complete(row: int, ids: list[int], mean_entropy: float) -> None:
        ended_turn = ids[-1] in ends[row]
        answer = decode_text(tokenizer, ids[:-1] if ended_turn else ids)
        completion, stopped = cut(answer, decoding.stop)
        rows[row] = Completion(
            id=prompts[row].id,
            prompt=texts[row],
            completion=completion,
            finish_reason="stop" if stopped or ended_turn else "length",
            n_tokens=len(ids) - ended_turn,
            mean_entropy=round(mean_entropy, 6),
        )
        row_ended(rows[row])

    decode(model, prefill.prompts, decoding, seeds, ended, complete, prefill)
    return [rows[row] for row in range(len(prompts))]
