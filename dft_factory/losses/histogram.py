"""Histogram of token probabilities: fixed bins, so that models, steps and runs compare.

What the paper's figure of token probabilities shows (section "Analysis of Probabilities"), as
counts, and its *polarisation* as one number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

N_BINS = 20
"""Bins of equal width over [0, 1]: bin i holds i/20 <= p < (i+1)/20, the last one also p = 1."""

LOW, HIGH = 0.1, 0.9
"""What counts as improbable and as certain; both are edges of bins."""


def bin_edges() -> list[float]:
    """The N_BINS + 1 edges."""
    return [i / N_BINS for i in range(N_BINS + 1)]


@torch.no_grad()
def histogram(logps: Tensor) -> Tensor:
    """Tokens in each bin.

    Costs one pass over n numbers and waits for no GPU.

    Args:
        logps: (n,) log-probabilities, natural logarithm.

    Returns:
        (N_BINS,), int64, on the device of ``logps``.
    """
    # At least in fp32, in which a probability that rounding puts on an edge may fall either side.
    logps = logps.to(torch.promote_types(logps.dtype, torch.float32))
    bins = (logps.exp() * N_BINS).long().clamp_(0, N_BINS - 1)
    counts = torch.zeros(N_BINS, dtype=torch.int64, device=logps.device)
    return counts.index_add_(0, bins, torch.ones_like(bins))


def polarisation(counts: Sequence[int]) -> float:
    """Share of tokens with p < :data:`LOW` or p >= :data:`HIGH`; NaN without a token.

    The paper shows the polarising effect of DFT in a figure and gives it no number; this one is
    ours: the mass in the two outer tenths of the histogram.
    """
    total = sum(counts)
    low, high = round(LOW * N_BINS), round(HIGH * N_BINS)
    return (sum(counts[:low]) + sum(counts[high:])) / total if total else float("nan")
