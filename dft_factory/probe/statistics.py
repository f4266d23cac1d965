"""What is kept of many token probabilities: a histogram with fixed bins, and a few numbers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dft_factory.errors import ConfigError
from dft_factory.losses.histogram import HIGH, LOW, N_BINS, bin_edges, histogram, polarisation

__all__ = ["N_BINS", "Numbers", "TokenProbabilities", "numbers_of", "summarise"]


@dataclass(frozen=True)
class Numbers:
    """A few numbers of many token probabilities.

    Attributes:
        share_below: share of tokens with p < 0.1; ``share_above``: with p > 0.9.
        weight_below: share of the sum of p, DFT's whole weight, that lies on tokens with p < 0.1.
        nll: mean of -log p, in nats a token.
    """

    n_tokens: int
    mean: float
    median: float
    share_below: float
    share_above: float
    weight_below: float
    nll: float

    def to_json(self) -> dict[str, object]:
        """By the names that files use."""
        return {
            "n_tokens": self.n_tokens,
            "mean": self.mean,
            "median": self.median,
            "share_below_0.1": self.share_below,
            "share_above_0.9": self.share_above,
            "weight_below_0.1": self.weight_below,
            "nll": self.nll,
        }


def numbers_of(logps: Tensor) -> Numbers | None:
    """Numbers of (n,) natural log-probabilities; None without a token."""
    if logps.numel() == 0:
        return None
    logps = logps.double()
    p = logps.exp()
    low = p < LOW
    total = p.sum().item()
    return Numbers(
        n_tokens=logps.numel(),
        mean=p.mean().item(),
        median=p.median().item(),
        share_below=low.double().mean().item(),
        share_above=(p > HIGH).double().mean().item(),
        weight_below=p[low].sum().item() / total if total else 0.0,
        nll=-logps.mean().item(),
    )


@dataclass(frozen=True)
class TokenProbabilities:
    """Probabilities of the labelled tokens of one data set under one model.

    Attributes:
        counts: tokens in each of :data:`N_BINS` equal bins of [0, 1].
    """

    model: str
    label: str
    dataset: str
    n_examples: int
    counts: tuple[int, ...]
    numbers: Numbers

    @property
    def polarisation(self) -> float:
        """Share of tokens in the two outer tenths of the histogram."""
        return polarisation(self.counts)

    def to_json(self) -> dict[str, object]:
        """As ``token_probabilities.json`` holds it, which ``dft-factory report`` reads."""
        return {
            "schema_version": 1,
            "model": self.model,
            "label": self.label,
            "dataset": self.dataset,
            "n_examples": self.n_examples,
            "bin_edges": bin_edges(),
            "counts": list(self.counts),
            "polarisation": self.polarisation,
            **self.numbers.to_json(),
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
    numbers = numbers_of(logps)
    if numbers is None:
        raise ConfigError(
            f"dataset: {dataset!r} has no labelled token among {n_examples} examples. Give it "
            "answers, or raise --limit."
        )
    return TokenProbabilities(
        model=model,
        label=label,
        dataset=dataset,
        n_examples=n_examples,
        counts=tuple(histogram(logps.double()).tolist()),
        numbers=numbers,
    )
