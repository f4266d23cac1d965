"""The DFT loss as one function of hidden states, head and labels."""

from __future__ import annotations

import torch
from torch import Tensor

from dft_factory.losses.linear import CHUNK_TOKENS, linear_token_weighted_nll
from dft_factory.losses.token import (
    IGNORE_INDEX,
    TokenLoss,
    check_targets,
    count_labelled,
    divisor,
    shift_labels,
    token_rows,
)
from dft_factory.losses.transform import IDENTITY, LogitTransform
from dft_factory.losses.weights import TokenWeight, parse_weight


def chunked_token_loss(
    hidden: Tensor,
    lm_head_weight: Tensor,
    labels: Tensor,
    weight: TokenWeight,
    *,
    bias: Tensor | None = None,
    transform: LogitTransform = IDENTITY,
    ignore_index: int = IGNORE_INDEX,
    chunk: int = CHUNK_TOKENS,
    expected_scale: float | Tensor = 1.0,
) -> TokenLoss:
    """``sum sg(w)·NLL`` of one micro-batch, not yet normalised, without full logits.

    Arguments as in :func:`chunked_dft_loss`; ``expected_scale`` as in
    :func:`~dft_factory.losses.linear.linear_token_weighted_nll`.
    """
    shifted = shift_labels(labels, ignore_index).to(hidden.device).flatten()
    positions = shifted.ne(ignore_index).nonzero().squeeze(-1)
    targets, sequence = shifted[positions], positions // labels.shape[1]
    check_targets(targets, lm_head_weight.shape[0], ignore_index)
    with torch.autocast(hidden.device.type, enabled=False):
        loss = linear_token_weighted_nll(
            hidden.flatten(0, 1),
            lm_head_weight,
            positions,
            targets,
            sequence,
            labels.shape[0],
            weight,
            bias=bias,
            transform=transform,
            chunk=chunk,
            expected_scale=expected_scale,
        )
    return TokenLoss(
        total=loss.total,
        rows=token_rows(loss.logps, loss.weights, loss.entropies, sequence, labels.shape[0]),
        logps=loss.logps,
        targets=targets,
    )


def chunked_dft_loss(
    hidden: Tensor,
    lm_head_weight: Tensor,
    labels: Tensor,
    weight: str | TokenWeight = "token",
    num_items_in_batch: int | Tensor | None = None,
    *,
    bias: Tensor | None = None,
    transform: LogitTransform = IDENTITY,
    ignore_index: int = IGNORE_INDEX,
    chunk: int = CHUNK_TOKENS,
) -> Tensor:
    """The DFT loss ``sum sg(w_t)·NLL_t / N`` without full logits: equation (9) of the DFT paper.

    Gradients are computed in the forward pass. Backward runs once and is not differentiable itself
    (``create_graph=True`` raises). Works under ``torch.compile``.

    Args:
        hidden: (B, T, H), the last hidden states: what ``lm_head`` is applied to.
        lm_head_weight: (V, H), in the dtype in which the logits shall be computed; ``bias`` (V,).
        labels: (B, T), unshifted, ``ignore_index`` where a token is not trained on.
        weight: a ``dft_weight`` value (``token``, ``sequence``, ``floor:0.1``, ...) or a
            :class:`~dft_factory.losses.weights.TokenWeight`; ``UNIT_WEIGHT`` is plain NLL.
        num_items_in_batch: N, the labelled tokens of the whole accumulated batch; default: those of
            ``labels``.
        transform: scale and softcap of the logits (Gemma, Cohere, Granite).
        chunk: rows of logits in memory at once.

    Returns:
        A scalar in nats, at least fp32; a differentiable zero where no token is labelled.

    Raises:
        ConfigError: unknown weight, a label that is no token, an N that is not positive.
        ValueError: shapes that do not fit.
    """
    if hidden.dim() != 3 or hidden.shape[:2] != labels.shape:
        raise ValueError(
            f"hidden {tuple(hidden.shape)} does not fit labels {tuple(labels.shape)}: "
            "expected (B, T, H) and (B, T)."
        )
    if lm_head_weight.dim() != 2 or lm_head_weight.shape[1] != hidden.shape[2]:
        raise ValueError(
            f"lm_head_weight {tuple(lm_head_weight.shape)} does not fit hidden "
            f"{tuple(hidden.shape)}: expected (V, H) and (B, T, H)."
        )
    if bias is not None and bias.shape != lm_head_weight.shape[:1]:
        raise ValueError(
            f"bias {tuple(bias.shape)} does not fit lm_head_weight {tuple(lm_head_weight.shape)}: "
            "expected (V,) and (V, H)."
        )
    labelled = count_labelled(labels, ignore_index)
    count = divisor(labelled if num_items_in_batch is None else num_items_in_batch, labelled)
    count = count.to(hidden.device)
    loss = chunked_token_loss(
        hidden,
        lm_head_weight,
        labels,
        parse_weight(weight),
        bias=bias,
        transform=transform,
        ignore_index=ignore_index,
        chunk=chunk,
        expected_scale=1.0 / count,
    )
    return loss.total / count
