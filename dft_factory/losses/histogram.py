"""Histogram of token probabilities in fixed bins, comparable across models, steps and runs.

The counts behind the paper's figure (section "Analysis of Probabilities"), and their *polarisation*
as one number.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

N_BINS = 20
"""Bins of equal width over [0, 1]: bin i holds i/20 <= p < (i+1)/20, the last one also p = 1."""

LOW, HIGH = 0.1, 0.9
"""Limits of improbable and of certain tokens; both are bin edges."""


def bin_edges() -> list[float]:
    """The N_BINS + 1 edges."""
    return [i / N_BINS for i in range(N_BINS + 1)]


@torch.no_grad()
def histogram(logps: Tensor) -> Tensor:
    """Tokens in each bin.

    One pass over n numbers, without a GPU synchronisation.

    Args:
        logps: (n,) log-probabilities, natural logarithm.

    Returns:
        (N_BINS,), int64, on the device of ``logps``.
    """
    # At least fp32; a probability rounded onto an edge may fall on either side.
    logps = logps.to(torch.promote_types(logps.dtype, torch.float32))
    bins = (logps.exp() * N_BINS).long().clamp_(0, N_BINS - 1)
    counts = torch.zeros(N_BINS, dtype=torch.int64, device=logps.device)
    return counts.index_add_(0, bins, torch.ones_like(bins))


def polarisation(counts: Sequence[int]) -> float:
    """Share of tokens with p < :data:`LOW` or p >= :data:`HIGH`; NaN without a token.

    The paper shows the polarising effect of DFT only in a figure; this number is ours: the mass of
    the two outer tenths of the histogram.
    """
    total = sum(counts)
    low, high = round(LOW * N_BINS), round(HIGH * N_BINS)
    return (sum(counts[:low]) + sum(counts[high:])) / total if total else float("nan")
