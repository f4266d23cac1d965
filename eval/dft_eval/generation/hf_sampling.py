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
"""Settings of a generation_config that change decoding and have no option here."""


def check_generation_config(config: Any) -> None:
    """Refuse a generation_config that asks for what no option of ours can ask for.

    Its temperature, top_k, top_p and repetition_penalty are not used: the options decide, so that
    every model of a comparison is decoded alike.

    Raises:
        UsageError: naming the setting.
    """
    for name in UNSUPPORTED:
        if getattr(config, name, None) not in (None, 0, 1.0, []):
            raise UsageError(
                f"The model's generation_config.json asks for {name}={getattr(config, name)!r}, "
                "which --backend hf does not do. Serve it with --backend openai, or take that out."
            )


def penalise(logits: Any, seen: Any, penalty: float) -> Any:
    """Repetition penalty of Keskar et al. 2019 (arXiv 1909.05858), as transformers applies it.

    Args:
        logits: (B, V).
        seen: (B, V), true for the tokens of the prompt and of the completion so far.
    """
    import torch

    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def entropy(logits: Any, p: Any) -> Any:
    """Entropy (B,) in nats of ``p`` (B, V), the softmax of ``logits`` (B, V)."""
    import torch

    below_max = (logits - logits.amax(-1, keepdim=True)).clamp_(min=-1e4)  # 0 * -inf is NaN
    return -p.amax(-1).log() - torch.linalg.vecdot(p, below_max)


class Chooser:
    """Chooses tokens for a list of prompts, whichever of them are in a batch together.

    Attributes:
        entropies: of each prompt, the sum over its tokens of the entropy (nats) of the distribution
            that they were drawn from, softmax(logits / temperature), before min_p, top_k and top_p
            leave tokens out. Of greedy decoding, at temperature 1.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        decoding: Decoding,
        seeds: Sequence[int],
    ) -> None:
        check_generation_config(model.generation_config)
        self._prompts = prompts
        self._seen: Any = None
        self._decoding = decoding
        self._draws = [random.Random(seed) for seed in seeds]
        self.entropies = [0.0] * len(prompts)

    def __call__(self, logits: Any, rows: Sequence[int]) -> list[int]:
        """Token ids, one a row. ``logits`` (B, V); ``rows``: the prompt of each."""
        import torch

        logits = logits.float()
        penalty = self._decoding.repetition_penalty
        if penalty != 1.0:
            logits = penalise(logits, self._seen_by(rows, logits), penalty)
        if self._decoding.temperature > 0:
            logits = logits / self._decoding.temperature
            p = logits.softmax(-1, dtype=torch.float64)
            chosen = self._sample(p, rows)
        else:
            p = logits.softmax(-1)
            chosen = logits.argmax(-1).tolist()
        for row, value in zip(rows, entropy(logits, p.float()).tolist(), strict=True):
            self.entropies[row] += value
        if penalty != 1.0:
            self._seen[list(rows), chosen] = True
        return chosen

    def _seen_by(self, rows: Sequence[int], logits: Any) -> Any:
        """(B, V): the tokens that each of these rows holds."""
        import torch

        if self._seen is None:
            shape = len(self._prompts), logits.shape[-1]
            self._seen = torch.zeros(shape, dtype=torch.bool, device=logits.device)
            for row, ids in enumerate(self._prompts):
                self._seen[row, list(ids)] = True
        return self._seen[list(rows)]

    def _sample(self, p: Any, rows: Sequence[int]) -> list[int]:
        """By each row's own random numbers: the inverse of its cumulative probability.

        Args:
            p: probabilities (B, V) in float64.
        """
        import torch

        draws = torch.tensor([self._draws[row].random() for row in rows], dtype=torch.float64)
        p, order = p.sort(-1, descending=True)
        # The order of vLLM: min_p, top_k, then top_p of what those leave.
        p = p.masked_fill(p < self._decoding.min_p * p[:, :1], 0.0)
        if self._decoding.top_k > 0:
            p[:, self._decoding.top_k :] = 0.0
        if self._decoding.top_p < 1:
            before = p.cumsum(-1) - p
            p = p.masked_fill(before >= self._decoding.top_p * p.sum(-1, keepdim=True), 0.0)
        total = p.cumsum(-1)
        wanted = draws.to(p.device)[:, None] * total[:, -1:]
        place = torch.searchsorted(total, wanted, right=True).clamp(max=p.shape[-1] - 1)
        chosen: list[int] = order.gather(-1, place)[:, 0].tolist()
        return chosen
