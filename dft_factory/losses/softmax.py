"""What happens to one chunk of logits: log-probabilities out, the gradient in their place.

With p = softmax(z), z the transformed logits, o the one-hot target and w a detached weight, the
gradient of ``-w·log p_target`` with respect to z is ``w·(p - o)``; the transform's derivative
follows. Everything is computed in fp32 whatever the logits' dtype. On a GPU the same arithmetic
runs in the Triton kernels of ``losses.triton_softmax``.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dft_factory.losses.transform import LogitTransform

TILE_BYTES = 4 * 2**20
"""Bytes of fp32 logits worked on at once, a few rows: small enough to stay in a cache."""

Weigh = Callable[[Tensor, slice], Tensor]
"""(log-probabilities of some rows, their place in the chunk) -> their weights, both (rows,)."""


def uses_triton(device: torch.device) -> bool:
    """Whether the Triton kernels run on this device: a GPU, or Triton's interpreter anywhere."""
    if importlib.util.find_spec("triton") is None:
        return False
    return device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def softmax_rows_(
    logits: Tensor, targets: Tensor, transform: LogitTransform, weigh: Weigh | None
) -> Tensor:
    """Log-probability of each row's target; with ``weigh``, ``logits`` becomes the gradient.

    Args:
        logits: (c, V), the head's output, contiguous; overwritten with the gradient of
            ``-sum w·log p`` with respect to itself if ``weigh`` is given.
        targets: (c,), int64.
        weigh: called with the log-probabilities of consecutive rows.

    Returns:
        (c,), at least fp32, in nats, never above 0.
    """
    if logits.dtype != torch.float64 and uses_triton(logits.device):
        from dft_factory.losses.triton_softmax import gradient_, logps_and_normalisers

        logps, normalisers = logps_and_normalisers(logits, targets, transform)
        if weigh is not None:
            weights = weigh(logps, slice(0, logits.shape[0]))
            gradient_(logits, targets, normalisers, weights, transform)
        return logps
    return _softmax_rows_torch_(logits, targets, transform, weigh)


def _tiles(rows: int, vocabulary: int) -> Iterator[slice]:
    step = max(1, TILE_BYTES // (4 * vocabulary))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _softmax_rows_torch_(
    logits: Tensor, targets: Tensor, transform: LogitTransform, weigh: Weigh | None
) -> Tensor:
    exact = logits.dtype if logits.dtype in (torch.float32, torch.float64) else torch.float32
    logps = logits.new_empty(logits.shape[0], dtype=exact)
    scratch: Tensor | None = None
    for tile in _tiles(*logits.shape):
        rows = logits[tile]
        if rows.dtype == exact and weigh is not None:
            z = rows  # worked on where it lies
        else:
            if scratch is None:
                scratch = torch.empty_like(rows, dtype=exact)
            z = scratch[: rows.shape[0]].copy_(rows)
        transform.apply_(z)
        kept = z.clone() if weigh is not None and transform.softcap is not None else z
        chosen = targets[tile].unsqueeze(-1)
        highest = z.amax(-1, keepdim=True)
        shifted = z.gather(-1, chosen) - highest
        z.sub_(highest).exp_()
        mass = z.sum(-1, keepdim=True)
        # Rounding can lift it a few ulp above 0, which would be a probability above 1.
        row_logps = (shifted - mass.log()).squeeze(-1).clamp(max=0.0)
        logps[tile] = row_logps
        if weigh is None:
            continue
        weights = weigh(row_logps, tile).unsqueeze(-1)
        z.mul_(weights / mass)
        z.scatter_add_(-1, chosen, -weights)
        transform.derivative_(z, kept)
        if z is not rows:
            rows.copy_(z)
    return logps
