"""Shift, mask, log-probabilities and weighting of labels and full logits.

The loss of a batch is ``sum over labelled tokens of sg(w_t) * NLL_t / N`` with N the number of
labelled tokens of the whole (accumulated, all-rank) batch: equation (9) of the DFT paper for
w = p, plain SFT for w = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dft_factory.errors import ConfigError, UpstreamContractError
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


def check_targets(targets: Tensor, vocabulary: int, ignore_index: int = IGNORE_INDEX) -> None:
    """Refuse labels that are not token ids, for which the kernels would read another row's logits.

    Args:
        targets: (n,), no ignored ones.

    Raises:
        ConfigError: a label below 0, or not below ``vocabulary``.
    """
    outside = targets[(targets < 0) | (targets >= vocabulary)]
    if len(outside):
        raise ConfigError(
            f"labels: {outside[0].item()} is not a token id of the model, which has {vocabulary} "
            f"(0 to {vocabulary - 1}). Label what is not trained on with {ignore_index}; enlarge "
            "the model's vocabulary if the tokenizer has more tokens (resize_token_embeddings)."
        )


def divisor(num_items_in_batch: int | float | Tensor, n_labelled: int | Tensor) -> Tensor:
    """N of the loss as a scalar tensor; 1 for a whole batch without a label, whose loss is 0.

    Args:
        n_labelled: labelled tokens of this micro-batch.

    Raises:
        ConfigError: no positive number although tokens are labelled, or not one number.
    """
    count = torch.as_tensor(num_items_in_batch)
    if count.numel() != 1:
        raise ConfigError(
            f"num_items_in_batch has shape {tuple(count.shape)}: expected one number, the labelled "
            "tokens of the whole accumulated batch."
        )
    count = count.reshape(())
    if not count > 0:
        if count != 0 or n_labelled:
            raise ConfigError(
                f"num_items_in_batch: {count.item()} is no number of labelled tokens, of which "
                f"this micro-batch has {int(n_labelled)}. Give that of the whole accumulated batch."
            )
        return torch.ones_like(count)
    return count


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
        ConfigError: a label that is no token.
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
    check_targets(targets, logits.shape[-1], ignore_index)
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
