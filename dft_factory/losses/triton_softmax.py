"""The loss head's softmax on a GPU: two Triton kernels, one program per row.

The first reads a row once and returns its normaliser, its entropy and its target's log-probability
(online softmax, Milakov and Gimelshein, arXiv 1805.02867). The second overwrites the row with its
gradient. Between them torch computes the weights from the log-probabilities.

Bounds are set with ``tl.where``: a GPU's ``tl.minimum`` and ``tl.maximum`` return the other operand
for a NaN, which would report a loss of 0 for a model that has diverged.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dft_factory.losses.transform import LogitTransform

BLOCK = 8192
WARPS = 16


@triton.jit
def _transformed(raw, scale, softcap, HAS_SOFTCAP: tl.constexpr):  # noqa: N803
    z = raw.to(tl.float32) * scale
    if HAS_SOFTCAP:
        # tanh(x) = 2·sigmoid(2x) - 1
        z = softcap * (2.0 * tl.sigmoid(2.0 * z / softcap) - 1.0)
    return z


@triton.jit
def _forward_kernel(
    logits,
    stride,
    targets,
    logps,
    entropies,
    normalisers,
    scale,
    softcap,
    VOCABULARY: tl.constexpr,  # noqa: N803
    HAS_SOFTCAP: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)
    base = logits + row * stride
    columns = tl.arange(0, BLOCK)
    row_max = -float("inf")
    exp_sum = 0.0
    exp_z_sum = 0.0  # of exp(z - row_max)·(z - row_max)
    for start in range(0, VOCABULARY, BLOCK):
        mask = start + columns < VOCABULARY
        raw = tl.load(base + start + columns, mask=mask, other=0.0)
        z = tl.where(mask, _transformed(raw, scale, softcap, HAS_SOFTCAP), -float("inf"))
        new_max = tl.maximum(row_max, tl.max(z, 0))
        rise = tl.where(exp_sum > 0, row_max - new_max, 0.0)
        # The lower bound stands for -inf, whose product with exp(-inf) would be NaN.
        z -= new_max
        z = tl.where(z < -1e4, -1e4, z)
        exp_z = tl.exp(z)
        exp_z_sum = (exp_z_sum + exp_sum * rise) * tl.exp(rise) + tl.sum(exp_z * z, 0)
        exp_sum = exp_sum * tl.exp(rise) + tl.sum(exp_z, 0)
        row_max = new_max
    target = tl.load(targets + row)
    target_logit = _transformed(tl.load(base + target), scale, softcap, HAS_SOFTCAP)
    # In this order: row_max + log(exp_sum) would round log(exp_sum) away beside a large maximum.
    logp = (target_logit - row_max) - tl.log(exp_sum)
    entropy = tl.log(exp_sum) - exp_z_sum / exp_sum
    tl.store(logps + row, tl.where(logp > 0.0, 0.0, logp))
    tl.store(entropies + row, tl.where(entropy < 0.0, 0.0, entropy))
    tl.store(normalisers + 2 * row, row_max)
    tl.store(normalisers + 2 * row + 1, exp_sum)


@triton.jit
def _gradient_kernel(
    logits,
    stride,
    targets,
    weights,
    normalisers,
    scale,
    softcap,
    VOCABULARY: tl.constexpr,  # noqa: N803
    HAS_SOFTCAP: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    row = tl.program_id(0).to(tl.int64)
    start = tl.program_id(1) * BLOCK
    columns = start + tl.arange(0, BLOCK)
    mask = columns < VOCABULARY
    pointers = logits + row * stride + columns
    z = _transformed(tl.load(pointers, mask=mask, other=0.0), scale, softcap, HAS_SOFTCAP)
    row_max = tl.load(normalisers + 2 * row)
    exp_sum = tl.load(normalisers + 2 * row + 1)
    weight = tl.load(weights + row)
    target = tl.load(targets + row)
    gradient = tl.exp(z - row_max) * (weight / exp_sum)
    gradient = tl.where(columns == target, gradient - weight, gradient)
    if HAS_SOFTCAP:
        ratio = z / softcap
        gradient = gradient * (1.0 - ratio * ratio)
    tl.store(pointers, (gradient * scale).to(logits.dtype.element_ty), mask=mask)


def _launch(kernel, grid, logits, targets, row_values, transform):
    with torch.cuda.device_of(logits):  # Triton launches on the current device
        kernel[grid](
            logits,
            logits.stride(0),
            targets,
            *row_values,
            transform.scale,
            transform.softcap or 1.0,
            VOCABULARY=logits.shape[1],
            HAS_SOFTCAP=transform.softcap is not None,
            BLOCK=BLOCK,
            num_warps=WARPS,
        )


def row_statistics(
    logits: Tensor, targets: Tensor, transform: LogitTransform
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the targets and entropies, (c,), and (row_max, exp_sum), (c, 2).

    Args:
        logits: (c, V), rows contiguous.
        targets: (c,), int64.
    """
    rows = len(logits)
    logps = logits.new_empty(rows, dtype=torch.float32)
    entropies = torch.empty_like(logps)
    normalisers = logits.new_empty((rows, 2), dtype=torch.float32)
    row_values = (logps, entropies, normalisers)
    _launch(_forward_kernel, (rows,), logits, targets, row_values, transform)
    return logps, entropies, normalisers


def gradient_(
    logits: Tensor, targets: Tensor, normalisers: Tensor, weights: Tensor, transform: LogitTransform
) -> None:
    """Overwrite ``logits`` with the gradient of ``-sum w·log p`` with respect to them.

    Args:
        weights: (c,), fp32.
        normalisers: (c, 2), from :func:`row_statistics`.
    """
    grid = (len(logits), triton.cdiv(logits.shape[1], BLOCK))
    row_values = (weights.contiguous(), normalisers)
    _launch(_gradient_kernel, grid, logits, targets, row_values, transform)
