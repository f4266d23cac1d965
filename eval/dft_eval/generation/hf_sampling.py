"""The next token of every row of a batch: the likeliest, or a sample by the row's own seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from dft_eval.errors import UsageError
from dft_eval.generation.run import Decoding

UNSUPPORTED = (
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "min_length"),
    *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
    *("sequence_bias", "exponential_decay_length_penalty", "guidance_scale", "watermarking_config"),
)
"""What a generation_config can ask of greedy decoding, and is not done here."""


def repetition_penalty(config: Any) -> float:
    """The model's own penalty, which its generation_config asks for; 1.0 is none.

    Raises:
        UsageError: the generation_config asks for something that is not supported here.
    """
    for name in UNSUPPORTED:
        if getattr(config, name, None) not in (None, 0, 1.0, []):
            raise UsageError(
                f"The model's generation_config.json asks for {name}={getattr(config, name)!r}, "
                "which --backend hf does not do. Serve it with --backend openai, or take that out."
            )
    penalty = getattr(config, "repetition_penalty", None)
    return 1.0 if penalty is None else float(penalty)


class Chooser:
    """Chooses tokens for a list of prompts, whichever of them are in a batch together."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        decoding: Decoding,
        seeds: Sequence[int],
    ) -> None:
        self._penalty = repetition_penalty(model.generation_config)
        self._seen = [set(ids) for ids in prompts]
        self._decoding = decoding
        self._draws = [random.Random(seed) for seed in seeds]

    def __call__(self, logits: Any, rows: Sequence[int]) -> list[int]:
        """Token ids, one a row. ``logits`` (B, V); ``rows``: the prompt of each."""
        logits = logits.float()
        if self._penalty != 1.0:
            logits = self._penalised(logits, rows)
        if self._decoding.temperature == 0:
            chosen: list[int] = logits.argmax(-1).tolist()
        else:
            chosen = self._sample(logits, rows)
        for row, token in zip(rows, chosen, strict=True):
            self._seen[row].add(token)
        return chosen

    def _penalised(self, logits: Any, rows: Sequence[int]) -> Any:
        """Keskar et al. 2019 (arXiv 1909.05858), section 4.1, as transformers does it."""
        import torch

        logits = logits.clone()
        for place, row in enumerate(rows):
            seen = torch.tensor(sorted(self._seen[row]), device=logits.device)
            scores = logits[place, seen]
            logits[place, seen] = torch.where(
                scores < 0, scores * self._penalty, scores / self._penalty
            )
        return logits

    def _sample(self, logits: Any, rows: Sequence[int]) -> list[int]:
        """By each row's own random numbers: the inverse of its cumulative probability."""
        import torch

        draws = torch.tensor([self._draws[row].random() for row in rows], dtype=torch.float64)
        p = (logits / self._decoding.temperature).softmax(-1, dtype=torch.float64)
        p, order = p.sort(-1, descending=True)
        if self._decoding.top_p < 1:
            before = p.cumsum(-1) - p
            p = p.masked_fill(before >= self._decoding.top_p, 0.0)
        total = p.cumsum(-1)
        wanted = draws.to(p.device)[:, None] * total[:, -1:]
        place = torch.searchsorted(total, wanted, right=True).clamp(max=p.shape[-1] - 1)
        chosen: list[int] = order.gather(-1, place)[:, 0].tolist()
        return chosen
