"""Compute the loss inside a model's ``lm_head``, without full logits.

While a request is open, the head's ``forward`` selects the labelled positions of its hidden states,
computes the loss in chunks (``losses.linear``) and returns a short marker, :data:`PROBE`, instead
of logits. This works for every model that calls its output embedding once per forward pass. Tied
weights, gradient checkpointing, DDP and PEFT are unaffected: the code runs inside the module, so
hooks that gather or release the weight still fire.

The marker comes out of the model as its ``logits``. It shows whether the model changed its head's
output in an unknown way; in that case full logits are used, with one warning.
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
    """The model's output embedding if it is a plain ``nn.Linear``, else None."""
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
    """The model's logit transform, from its configuration."""
    text = getattr(config, "text_config", None) or config
    scale = getattr(text, "logit_scale", None) or 1.0
    scaling = getattr(text, "logits_scaling", None) or 1.0
    return LogitTransform(
        scale=float(scale) / float(scaling),
        softcap=getattr(text, "final_logit_softcapping", None) or None,
    )


class HeadLoss:
    """Replaces one head's ``forward``; :meth:`release` restores it."""

    def __init__(self, head: nn.Linear, transform: LogitTransform) -> None:
        self._head = head
        self._transform = transform
        self._original = head.forward
        self._request: tuple[Tensor, TokenWeight, float | Tensor] | None = None
        self._answer: TokenLoss | None = None
        head.forward = self._forward  # type: ignore[method-assign,assignment]

    def release(self) -> None:
        """Restore the head's own ``forward``."""
        del self._head.forward

    @contextmanager
    def request(
        self, labels: Tensor, weight: TokenWeight, expected_scale: float | Tensor = 1.0
    ) -> Iterator[None]:
        """Context in which the model's forward pass computes the loss of ``labels``.

        Args:
            labels: (B, T), unshifted.
            expected_scale: what the loss will be multiplied by before backward, if known.
        """
        self._request, self._answer = (labels, weight, expected_scale), None
        try:
            yield
        finally:
            self._request = self._answer = None

    def answer(self, logits: Any) -> TokenLoss | None:
        """The loss computed in the head; None if ``logits`` are real logits."""
        if self._answer is None or not torch.is_tensor(logits):
            return None
        # Connects the loss to the model's output, from which DDP finds the parameters in use.
        return replace(self._answer, total=self._answer.total + 0.0 * logits.sum())

    def is_untouched(self, logits: Any) -> bool:
        """Whether the marker passed through ``transform`` and nothing else."""
        if not torch.is_tensor(logits) or logits.numel() != len(PROBE):
            return False
        expected = self._transform.apply_(torch.tensor(PROBE, device=logits.device))
        tolerance = 0.0 if self._transform.is_identity else 2e-2  # a few roundings in bf16
        marker = logits.detach().float().reshape(-1)
        return torch.allclose(marker, expected, rtol=tolerance, atol=tolerance)

    def _forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self._request is None or self._answer is not None:
            return self._original(hidden, *args, **kwargs)
        labels, token_weight, expected_scale = self._request
        if args or kwargs or hidden.dim() != 3 or hidden.shape[:2] != labels.shape:
            return self._original(hidden, *args, **kwargs)
        shifted = shift_labels(labels, IGNORE_INDEX).to(hidden.device).flatten()
        positions = shifted.ne(IGNORE_INDEX).nonzero().squeeze(-1)
        targets, sequence = shifted[positions], positions // labels.shape[1]
        device_type = hidden.device.type
        dtype = self._head.weight.dtype
        if torch.is_autocast_enabled(device_type):
            dtype = torch.get_autocast_dtype(device_type)
        bias = self._head.bias
        with torch.autocast(device_type, enabled=False):
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
            rows=token_rows(loss.logps, loss.weights, loss.entropies, sequence, labels.shape[0]),
            logps=loss.logps,
            targets=targets,
        )
        # Backward runs through this zero, which no loss makes NaN: not inf, nor 1e5 nats in fp16.
        zero = 0.0 * loss.total.nan_to_num(0.0, 0.0, 0.0)
        probe = torch.tensor(PROBE, device=hidden.device, dtype=hidden.dtype)
        return (probe + zero.to(hidden.dtype)).reshape(1, 1, -1)
