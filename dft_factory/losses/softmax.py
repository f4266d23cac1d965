"""Log-probabilities and entropies of one chunk of logits, and its gradient, in place.

With p = softmax(z), z the transformed logits, o the one-hot target and w a detached weight, the
gradient of ``-w·log p_target`` with respect to z is ``w·(p - o)``, times the transform's
derivative. The entropy is ``log Σ exp(z - m) - Σ p·(z - m)``, m the largest z. Computed in fp32
whatever the logits' dtype. On a GPU the same arithmetic runs in the Triton kernels of
``losses.triton_softmax``.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dft_factory.errors import ConfigError
from dft_factory.losses.transform import IDENTITY, LogitTransform

logger = logging.getLogger(__name__)

SWITCH = "DFT_FACTORY_TRITON"
"""Environment variable: 0 for plain torch everywhere, 1 (the default) for Triton where it runs."""

KERNEL_DEVICES = ("cuda",)
"""Device types that run the Triton kernels; with TRITON_INTERPRET=1 every device does."""

TILE_BYTES = 4 * 2**20
"""Bytes of a tile's fp32 logits and their exponentials: a few rows that fit in the cache."""

Weigh = Callable[[Tensor, slice], Tensor]
"""(log-probabilities of a tile, its rows in the chunk) -> its weights, both (rows,)."""


def plain_torch_reason(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why plain torch handles logits of this device and dtype; None where Triton does.

    The first call for a device type and dtype launches the kernels once. If that fails, it logs a
    warning.

    Raises:
        ConfigError: DFT_FACTORY_TRITON is neither 0 nor 1.
    """
    switch = os.environ.get(SWITCH, "1")
    if switch not in ("0", "1"):
        raise ConfigError(
            f"{SWITCH}: {switch!r} is unknown. Choose from: 0 (plain torch), 1 (Triton kernels "
            "where they run, the default)."
        )
    if switch == "0":
        return f"{SWITCH}=0"
    if dtype == torch.float64:
        return "the kernels compute in float32, the logits are float64"
    if device.type not in KERNEL_DEVICES and os.environ.get("TRITON_INTERPRET") != "1":
        return f"the device is {device.type}"
    return _launch_error(device.type, dtype)


@functools.cache
def _launch_error(device: str, dtype: torch.dtype) -> str | None:
    """What went wrong in a launch of both kernels; None if nothing did.

    Triton builds its driver and a launcher per argument dtype with the C compiler when a kernel
    first runs, so that no check short of a launch in that dtype is sure.
    """
    logits = torch.zeros(1, 2, device=device, dtype=dtype)
    targets = torch.zeros(1, device=device, dtype=torch.int64)
    try:
        from dft_factory.losses.triton_softmax import gradient_, row_statistics

        logps, _, normalisers = row_statistics(logits, targets, IDENTITY)
        gradient_(logits, targets, normalisers, torch.ones_like(logps), IDENTITY)
        gradient = logits.tolist()  # waits for the GPU, which reports errors late
        if gradient != [[-0.5, 0.5]]:
            raise RuntimeError(f"the kernels computed {gradient}, not [[-0.5, 0.5]]")
    except Exception as error:  # missing compiler, headers or libcuda, read-only cache, old GPU
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if os.environ.get("LOCAL_RANK", "0") == "0":
            logger.warning(
                "dft-factory: Triton cannot run here (%s). The loss head uses plain torch: same "
                "loss, slower. Triton needs a C compiler and Python's headers: apt-get install "
                "build-essential python3-dev. %s=0 selects plain torch without this warning.",
                reason,
                SWITCH,
            )
        return reason
    return None


def softmax_rows_(
    logits: Tensor, targets: Tensor, transform: LogitTransform, weigh: Weigh | None
) -> tuple[Tensor, Tensor]:
    """Log-probability of each row's target, entropy of each row; ``weigh`` asks for the gradient.

    Args:
        logits: (c, V), the head's output, contiguous; overwritten with the gradient of
            ``-sum w·log p`` with respect to itself if ``weigh`` is given.
        targets: (c,), int64.
        weigh: called with the log-probabilities of consecutive rows.

    Returns:
        log-probabilities, never above 0, and entropies, never below 0: both (c,), at least fp32,
        in nats.
    """
    if len(logits) and plain_torch_reason(logits.device, logits.dtype) is None:
        from dft_factory.losses.triton_softmax import gradient_, row_statistics

        logps, entropies, normalisers = row_statistics(logits, targets, transform)
        if weigh is not None:
            weights = weigh(logps, slice(0, logits.shape[0]))
            gradient_(logits, targets, normalisers, weights, transform)
        return logps, entropies
    return _softmax_rows_torch_(logits, targets, transform, weigh)


def _tiles(rows: int, vocabulary: int) -> Iterator[slice]:
    step = max(1, TILE_BYTES // (2 * 4 * vocabulary))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _row_dots(exp_z: Tensor, z: Tensor) -> Tensor:
    """Scalar products of the rows of two (c, V), (c,); a z of -inf adds nothing."""
    if z.device.type == "cpu":  # where vecdot would write all products first, at twice the time
        dots = torch.stack([torch.dot(*rows) for rows in zip(exp_z, z, strict=True)])
        if dots.isfinite().all():
            return dots
    finite = z.clamp(min=torch.finfo(z.dtype).min)  # 0 times -inf is NaN
    return (exp_z * finite).sum(-1)


def _softmax_rows_torch_(
    logits: Tensor, targets: Tensor, transform: LogitTransform, weigh: Weigh | None
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    logps = logits.new_empty(logits.shape[0], dtype=dtype)
    entropies = torch.empty_like(logps)
    scratch: Tensor | None = None
    for tile in _tiles(*logits.shape):
        rows = logits[tile]
        if scratch is None:
            scratch = rows.new_empty((2, *rows.shape), dtype=dtype)
        z, exp_z = scratch[:, : rows.shape[0]]
        z.copy_(rows)
        transform.apply_(z)
        transformed = z.clone() if weigh is not None and transform.softcap is not None else z
        columns = targets[tile].unsqueeze(-1)
        row_max = z.amax(-1, keepdim=True)
        target_logits = z.gather(-1, columns) - row_max
        torch.exp(z.sub_(row_max), out=exp_z)
        exp_sum = exp_z.sum(-1, keepdim=True)
        mean_z = _row_dots(exp_z, z).unsqueeze(-1) / exp_sum
        # Rounding can give a few ulp above 0, a probability above 1.
        row_logps = (target_logits - exp_sum.log()).squeeze(-1).clamp(max=0.0)
        logps[tile] = row_logps
        entropies[tile] = (exp_sum.log() - mean_z).squeeze(-1).clamp(min=0.0)
        if weigh is None:
            continue
        weights = weigh(row_logps, tile).unsqueeze(-1)
        exp_z.mul_(weights / exp_sum)
        exp_z.scatter_add_(-1, columns, -weights)
        rows.copy_(transform.derivative_(exp_z, transformed))
    return logps, entropies
