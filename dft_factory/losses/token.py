"""Shift, mask, log-probabilities and weighting of labels and full logits.

The loss of a batch is ``sum over labelled tokens of sg(w_t) * NLL_t / N`` with N the number of
labelled tokens of the whole (accumulated, all-rank) batch: equation (9) of the DFT paper for
w = p, plain SFT for w = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dft_factory.errors import UpstreamContractError
from dft_factory.losses.softmax import softmax_rows_
from dft_factory.losses.transform import IDENTITY
from dft_factory.losses.weights import TokenWeight

IGNORE_INDEX = -100

STATISTICS = ("objective", "nll", "token_prob", "token_weight", "token_entropy", "tokens")
"""Columns of :attr:`TokenLoss.rows`."""


@dataclass(frozen=True)
class TokenLoss:
    """The loss of one micro-batch, not yet normalised.

    Attributes:
        total: sum over labelled tokens of sg(w)·NLL, scalar, differentiable, in nats. Without a
            labelled token it is a zero through which backward still runs.
        rows: per example the sums of the columns :data:`STATISTICS`, (B, 6), detached.
        logps: log-probability of each labelled token, (n,), at least fp32, detached; example by
            example, in the order of the text.
        targets: the labelled tokens themselves, (n,), int64.
    """

    total: Tensor
    rows: Tensor
    logps: Tensor
    targets: Tensor


def shift_labels(labels: Tensor, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Labels moved so that position t holds the token which the logits at t predict.

    Args:
        labels: (B, T), ``ignore_index`` where a token is not trained on.

    Returns:
        (B, T); the last position has nothing to predict and holds ``ignore_index``.
    """
    return torch.nn.functional.pad(labels[..., 1:], (0, 1), value=ignore_index)


def count_labelled(labels: Tensor, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Number of labelled tokens that some logits predict, int64 scalar.

    A label at position 0 is predicted by nothing and does not count.
    """
    return labels[..., 1:].ne(ignore_index).sum()


def per_token_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of each target, at least in fp32 whatever the logits' dtype.

    Args:
        logits: (n, V).
        targets: (n,), int64, no ignored ones.

    Returns:
        (n,) in nats, never above 0.
    """
    if logits.dtype not in (torch.float32, torch.float64):
        logits = logits.float()
    target_logits = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    # Rounding can give a few ulp above 0, a probability above 1.
    return (target_logits - logits.logsumexp(-1)).clamp(max=0.0)


@torch.no_grad()
def token_rows(
    logps: Tensor, weights: Tensor, entropies: Tensor, sequence: Tensor, n_rows: int
) -> Tensor:
    """:attr:`TokenLoss.rows` from what is known of each labelled token.

    Args:
        logps: (n,).
        weights: (n,).
        entropies: (n,).
        sequence: (n,), int64, below ``n_rows``.
    """
    columns = torch.stack(
        [-weights * logps, -logps, logps.exp(), weights, entropies, torch.ones_like(logps)], dim=-1
    )
    return columns.new_zeros(n_rows, len(STATISTICS)).index_add_(0, sequence, columns)


def token_weighted_nll(
    logits: Tensor, labels: Tensor, weight: TokenWeight, ignore_index: int = IGNORE_INDEX
) -> TokenLoss:
    """Token-weighted NLL of one micro-batch and the statistics logged beside it.

    Args:
        logits: (B, T, V), any floating dtype.
        labels: (B, T), unshifted, ``ignore_index`` where a token is not trained on.
        weight: the token weight; one row is one example for weights over a sequence.

    Raises:
        UpstreamContractError: logits and labels differ in (B, T).
    """
    if logits.dim() != 3 or logits.shape[:2] != labels.shape:
        raise UpstreamContractError(
            f"Logits of shape {tuple(logits.shape)} do not fit labels of shape "
            f"{tuple(labels.shape)}: expected (B, T, V) and (B, T)."
        )
    targets = shift_labels(labels, ignore_index).to(logits.device)
    labelled = targets.ne(ignore_index)
    sequence = labelled.nonzero(as_tuple=True)[0]
    targets = targets[labelled]
    labelled_logits = logits[labelled]
    logps = per_token_logps(labelled_logits, targets)
    # Tile by tile: as a tensor operation it would need another copy of the logits.
    _, entropies = softmax_rows_(labelled_logits.detach(), targets, IDENTITY, None)
    n_rows = labels.shape[0]
    with torch.no_grad():
        weights = weight(logps, sequence, n_rows)
    return TokenLoss(
        total=-(weights * logps).sum(),
        rows=token_rows(logps, weights, entropies, sequence, n_rows),
        logps=logps.detach(),
        targets=targets,
    )
