"""Completions of text by a model in this process, batched by length, on transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dft_eval.errors import UsageError
from dft_eval.generate import Completion, Decoding, Prompt, cut

ROUND_TOKENS = 64
"""Tokens generated before rows that have ended leave their batch."""


def batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in fixed batches, longest first, so that memory runs out at once or never."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[start : start + size] for start in range(0, len(order), size)]


def render(tokenizer: Any, prompt: Prompt) -> str:
    """The whole input: raw text, or one user turn in the tokenizer's own chat template.

    Raises:
        UsageError: a chat, and the tokenizer has no chat template; or a prompt with pictures.
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
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt.text}], tokenize=False, add_generation_prompt=True
    )
    return f"{text}{prompt.answer_begins}"


class HfTextBackend:
    """A causal language model of transformers; loaded when it is first needed."""

    def __init__(self, identity: str, load: Callable[[], tuple[Any, Any]]) -> None:
        self._identity = identity
        self._load = load

    @property
    def identity(self) -> str:
        """The hash of the model's weights."""
        return self._identity

    def batches(self, prompts: Sequence[Prompt], size: int) -> list[list[int]]:
        """Prompts of like length together."""
        _, tokenizer = self._load()
        texts = [render(tokenizer, prompt) for prompt in prompts]
        lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        return batches(lengths, size)

    def complete(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Completion]:
        """Greedy completions of one batch."""
        return complete_batch(*self._load(), prompts, decoding)


def complete_batch(
    model: Any, tokenizer: Any, prompts: Sequence[Prompt], decoding: Decoding
) -> list[Completion]:
    """Greedy completions of one batch.

    In rounds of :data:`ROUND_TOKENS`: rows that have ended leave the batch, since a few long
    completions would otherwise be waited for by all.
    """
    import torch

    texts = [render(tokenizer, prompt) for prompt in prompts]
    starts: list[list[int]] = [
        # A rendered chat brings its own special tokens.
        tokenizer(text, add_special_tokens=not prompt.chat)["input_ids"]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    ends = model.generation_config.eos_token_id
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id}
    stopping = {"stop_strings": list(decoding.stop), "tokenizer": tokenizer}
    made: list[list[int]] = [[] for _ in prompts]
    rows: dict[int, Completion] = {}
    for begin in range(0, decoding.max_new_tokens, ROUND_TOKENS):
        active = [i for i in range(len(prompts)) if i not in rows]
        if not active:
            break
        inputs = tokenizer.pad(
            {"input_ids": [starts[i] + made[i] for i in active]}, return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            output = model.generate(
                **inputs,
                max_new_tokens=min(ROUND_TOKENS, decoding.max_new_tokens - begin),
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.pad_token_id,
                **(stopping if decoding.stop else {}),
            )
        for i, tokens in zip(active, output[:, inputs["input_ids"].shape[1] :], strict=True):
            made[i] += tokens.tolist()
            row = _ended(tokenizer, prompts[i].id, texts[i], made[i], ends, decoding)
            if row is not None:
                rows[i] = row
    return [rows[i] for i in range(len(prompts))]


def _ended(
    tokenizer: Any, id: str, prompt: str, ids: list[int], ends: set[int], decoding: Decoding
) -> Completion | None:
    """The completion of one row, if it has ended; what follows its end is dropped."""
    end = next((i for i, token in enumerate(ids) if token in ends), None)
    text = tokenizer.decode(ids if end is None else ids[:end], skip_special_tokens=True)
    text, stopped = cut(text, decoding.stop)
    finished = stopped or end is not None
    if not finished and len(ids) < decoding.max_new_tokens:
        return None
    return Completion(
        id=id,
        prompt=prompt,
        completion=text,
        finish_reason="stop" if finished else "length",
        n_tokens=len(ids) if end is None else end,
    )
