"""The loss inside the head: a model's ``lm_head`` that never makes whole logits.

While a request is open, the head's ``forward`` takes the labelled positions of its hidden states,
computes the loss in chunks (``losses.linear``) and returns a few numbers in the place of the
logits. It works for every model that calls its output embedding once a forward pass, whatever
stands around it (tied weights, gradient checkpointing, DDP, PEFT), since it runs inside the
module: hooks that gather or release the weight go on working.

Those few numbers come out at the model's other end as its ``logits``. They tell whether the model
did something to its head's output that was not accounted for: then the whole logits are used
instead, and that is said once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dft_factory.losses.linear import linear_token_weighted_nll
from dft_factory.losses.token import IGNORE_INDEX, TokenLoss, shift_labels, token_rows
from dft_factory.losses.transform import LogitTransform
from dft_factory.losses.weights import TokenWeight

PROBE = (-4.0, -1.0, 0.0, 0.5, 2.0, 8.0)
"""Exact in every floating dtype."""


def find_head(model: Any) -> nn.Linear | None:
    """The model's output embedding as a plain linear layer; None where it is anything else."""
    get = getattr(model, "get_output_embeddings", None)
    head: Any = get() if get is not None else None
    while hasattr(head, "modules_to_save"):  # PEFT's wrapper around a head trained beside LoRA
        active = head.active_adapters
        if len(active) != 1 or active[0] not in head.modules_to_save:
            return None
        head = head.modules_to_save[active[0]]
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward:
        return None
    if "forward" in vars(head) or not head.weight.dtype.is_floating_point:
        return None
    return head


def transform_of(config: Any) -> LogitTransform:
    """What the model does to its head's output, from its configuration."""
    text = getattr(config, "text_config", None) or config
    scale = getattr(text, "logit_scale", None) or 1.0
    scaling = getattr(text, "logits_scaling", None) or 1.0
    return LogitTransform(
        scale=float(scale) / float(scaling),
        softcap=getattr(text, "final_logit_softcapping", None) or None,
    )


class HeadLoss:
    """Takes over one head; :meth:`release` gives it back."""

    def __init__(self, head: nn.Linear, transform: LogitTransform) -> None:
        self._head = head
        self._transform = transform
        self._original = head.forward
        self._request: tuple[Tensor, TokenWeight, float | Tensor] | None = None
        self._answer: TokenLoss | None = None
        head.forward = self._forward  # type: ignore[method-assign,assignment]

    def release(self) -> None:
        """The head is the model's own again."""
        del self._head.forward

    @contextmanager
    def request(
        self, labels: Tensor, weight: TokenWeight, expected_scale: float | Tensor = 1.0
    ) -> Iterator[None]:
        """Within it, the model's forward pass makes the loss of ``labels``, (B, T), unshifted.

        Args:
            expected_scale: by what the loss will be multiplied before backward, if known.
        """
        self._request, self._answer = (labels, weight, expected_scale), None
        try:
            yield
        finally:
            self._request = self._answer = None

    def answer(self, logits: Any) -> TokenLoss | None:
        """The loss, given what the model returned as logits; None where whole logits came back."""
        if self._answer is None or not torch.is_tensor(logits):
            return None
        # Ties the loss to the model's output, where DDP looks for what takes part in it.
        return replace(self._answer, total=self._answer.total + 0.0 * logits.sum())

    def is_untouched(self, logits: Any) -> bool:
        """Whether the model did to the head's output what ``transform`` says, and nothing else."""
        if not torch.is_tensor(logits) or logits.numel() != len(PROBE):
            return False
        wanted = self._transform.apply_(torch.tensor(PROBE, device=logits.device))
        tolerance = 0.0 if self._transform.is_identity else 2e-2  # of bf16, after some operations
        found = logits.detach().float().reshape(-1)
        return torch.allclose(found, wanted, rtol=tolerance, atol=tolerance)

    def _forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self._request is None or self._answer is not None:
            return self._original(hidden, *args, **kwargs)
        labels, token_weight, expected_scale = self._request
        if args or kwargs or hidden.dim() != 3 or hidden.shape[:2] != labels.shape:
            return self._original(hidden, *args, **kwargs)
        every = shift_labels(labels, IGNORE_INDEX).to(hidden.device).flatten()
        positions = every.ne(IGNORE_INDEX).nonzero().squeeze(-1)
        targets, sequence = every[positions], positions // labels.shape[1]
        kind = hidden.device.type
        dtype = self._head.weight.dtype
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        bias = self._head.bias
        with torch.autocast(kind, enabled=False):
            loss = linear_token_weighted_nll(
                hidden.flatten(0, 1),
                self._head.weight.to(dtype),
                positions,
                targets,
                sequence,
                labels.shape[0],
                token_weight,
                bias=None if bias is None else bias.to(dtype),
                transform=self._transform,
                expected_scale=expected_scale,
            )
        self._answer = TokenLoss(
            total=loss.total,
            rows=token_rows(loss.logps, loss.weights, sequence, labels.shape[0]),
            logps=loss.logps,
            targets=targets,
        )
        # Backward runs through this zero, which no loss makes NaN: not inf, nor 1e5 nats in fp16.
        zero = 0.0 * loss.total.nan_to_num(0.0, 0.0, 0.0)
        probe = torch.tensor(PROBE, device=hidden.device, dtype=hidden.dtype)
        return (probe + zero.to(hidden.dtype)).reshape(1, 1, -1)
