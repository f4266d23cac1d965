"""What is kept of many token probabilities: a histogram with fixed bins, and a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dft_factory.errors import ConfigError

N_BINS = 20
"""Bins of equal width over [0, 1], the same for every model, so that histograms compare."""


@dataclass(frozen=True)
class TokenProbabilities:
    """Probabilities of the labelled tokens of one data set under one model.

    Attributes:
        counts: tokens in each of :data:`N_BINS` equal bins of [0, 1].
        nll: mean of -log p, in nats a token.
    """

    model: str
    label: str
    dataset: str
    n_examples: int
    n_tokens: int
    counts: tuple[int, ...]
    mean: float
    median: float
    share_below: float
    share_above: float
    nll: float

    def to_json(self) -> dict[str, object]:
        """As ``token_probabilities.json`` holds it, which ``dft-factory report`` reads."""
        return {
            "schema_version": 1,
            "model": self.model,
            "label": self.label,
            "dataset": self.dataset,
            "n_examples": self.n_examples,
            "n_tokens": self.n_tokens,
            "bin_edges": [i / N_BINS for i in range(N_BINS + 1)],
            "counts": list(self.counts),
            "mean": self.mean,
            "median": self.median,
            "share_below_0.1": self.share_below,
            "share_above_0.9": self.share_above,
            "nll": self.nll,
        }


def summarise(
    logps: Tensor, *, model: str, label: str, dataset: str, n_examples: int
) -> TokenProbabilities:
    """Summarise log-probabilities of labelled tokens.

    Args:
        logps: (n,), natural logarithms.

    Raises:
        ConfigError: there is no labelled token.
    """
    if logps.numel() == 0:
        raise ConfigError(
            f"dataset: {dataset!r} has no labelled token among {n_examples} examples."
        )
    logps = logps.double()
    p = logps.exp()
    bins = (p * N_BINS).long().clamp(max=N_BINS - 1)
    return TokenProbabilities(
        model=model,
        label=label,
        dataset=dataset,
        n_examples=n_examples,
        n_tokens=logps.numel(),
        counts=tuple(torch.bincount(bins, minlength=N_BINS).tolist()),
        mean=p.mean().item(),
        median=p.median().item(),
        share_below=(p < 0.1).double().mean().item(),
        share_above=(p > 0.9).double().mean().item(),
        nll=-logps.mean().item(),
    )
