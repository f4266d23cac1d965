"""The token-weighted loss from hidden states, in chunks: the logits are never whole.

Whole logits cost 10 bytes a token and vocabulary entry in LLaMA-Factory's own DFT (bf16 logits,
their fp32 copy, the gradient). Here a chunk of rows goes through the head, ``losses.softmax`` turns
it in place into the gradient with respect to the logits, and from that the gradients of hidden
states and head follow at once.

* Weights of single tokens: three matrix products in all (logits, grad of hidden, grad of head), in
  the forward pass.
* Weights of whole sequences: the log-probabilities of all tokens first, then the same once more:
  four products.

Under ``no_grad``: one product, and no gradient. Positions without a label never meet the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dft_factory.losses.product import Multiplier
from dft_factory.losses.softmax import softmax_rows_
from dft_factory.losses.transform import IDENTITY, LogitTransform
from dft_factory.losses.weights import TokenWeight

CHUNK_TOKENS = 1024
"""Rows of logits held at once. The head's gradient is rounded once a chunk, so that a small chunk
costs accuracy in bf16, and a large one memory: 2 bytes x rows x vocabulary."""


@dataclass(frozen=True)
class LinearLoss:
    """What :func:`linear_token_weighted_nll` gives.

    Attributes:
        total: sum of sg(w)·NLL, scalar, fp32, differentiable with respect to hidden states, head
            weight and bias.
        logps: log-probability of each token, (n,), at least fp32, detached.
        weights: token weights, (n,), detached.
    """

    total: Tensor
    logps: Tensor
    weights: Tensor


class _LinearTokenLoss(torch.autograd.Function):
    """Forward makes the gradients of ``scale·total``; backward hands them out.

    Backward multiplies them by what the gradient that arrives lacks of ``scale``, which is nothing
    where the caller knew it: a pass over the head's gradient less.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        positions: Tensor,
        targets: Tensor,
        sequence: Tensor,
        n_sequences: int,
        token_weight: TokenWeight,
        transform: LogitTransform,
        chunk: int,
        scale: Tensor,
        grad_enabled: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wants_hidden, wants_weight, wants_bias = (
            grad_enabled and needed for needed in ctx.needs_input_grad[:3]
        )
        wants = wants_hidden or wants_weight or wants_bias
        n = positions.shape[0]
        exact = torch.float64 if weight.dtype == torch.float64 else torch.float32
        logps = weight.new_empty(n, dtype=exact)
        chunks = [slice(start, min(start + chunk, n)) for start in range(0, n, chunk)]
        # All that a chunk needs, once: made anew for each, they would leave gaps on a CPU's heap.
        multiply_, most = Multiplier(), min(chunk, n)
        logits = weight.new_empty((most, weight.shape[0]))
        taken = weight.new_empty((most, weight.shape[1]))

        def project(rows: slice) -> tuple[Tensor, Tensor]:
            """The chunk's hidden states and what the head makes of them."""
            size = rows.stop - rows.start
            states, out = taken[:size], logits[:size]
            states.copy_(hidden.index_select(0, positions[rows]))
            if bias is not None:
                out.copy_(bias)
            return states, multiply_(out, states, weight.t(), add=bias is not None)

        weights: Tensor | None = None
        if token_weight.needs_sequence or not wants:
            for rows in chunks:
                logps[rows] = softmax_rows_(project(rows)[1], targets[rows], transform, None)
            weights = token_weight(logps, sequence, n_sequences)
        else:
            weights = torch.empty_like(logps)

        grad_hidden = torch.zeros_like(hidden) if wants_hidden else None
        grad_weight = torch.empty_like(weight) if wants_weight else None
        grad_bias = torch.zeros_like(bias) if bias is not None and wants_bias else None
        if wants:
            known = token_weight.needs_sequence
            for rows in chunks:

                def weigh(row_logps: Tensor, place: slice, start: int = rows.start) -> Tensor:
                    tokens = slice(start + place.start, start + place.stop)
                    if not known:
                        weights[tokens] = token_weight(row_logps, sequence[tokens], n_sequences)
                    return weights[tokens] * scale

                states, gradient = project(rows)
                logps[rows] = softmax_rows_(gradient, targets[rows], transform, weigh)
                if grad_weight is not None:
                    multiply_(grad_weight, gradient.t(), states, add=rows.start > 0)
                if grad_bias is not None:
                    grad_bias += gradient.sum(0)
                if grad_hidden is not None:  # in the place of the states, which are not needed now
                    multiply_(states, gradient, weight)
                    grad_hidden.index_copy_(0, positions[rows], states.to(hidden.dtype))
        if n == 0 and grad_weight is not None:
            grad_weight.zero_()
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        ctx.scale = scale
        ctx.mark_non_differentiable(logps, weights)
        return -(weights * logps).sum(), logps, weights

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        if not ctx.gradients:
            raise RuntimeError("The loss head's backward pass ran before: its gradients are gone.")
        lacking = grads[0] / ctx.scale
        # Asking a GPU for the number would cost more than the multiplication saves.
        if lacking.device.type != "cpu" or lacking.item() != 1.0:
            for each in ctx.gradients:
                if each is not None:
                    each.mul_(lacking)
        gradients, ctx.gradients = ctx.gradients, ()
        return (*gradients, *[None] * 9)


def linear_token_weighted_nll(
    hidden: Tensor,
    weight: Tensor,
    positions: Tensor,
    targets: Tensor,
    sequence: Tensor,
    n_sequences: int,
    token_weight: TokenWeight,
    *,
    bias: Tensor | None = None,
    transform: LogitTransform = IDENTITY,
    chunk: int = CHUNK_TOKENS,
    expected_scale: float | Tensor = 1.0,
) -> LinearLoss:
    """``sum sg(w)·NLL`` of labelled tokens from their hidden states.

    Backward may run once: the gradients are made in the forward pass and scaled in place.

    Args:
        hidden: (N, H), hidden states, in any dtype; they meet the head in the head's.
        weight: (V, H), the head; ``bias`` (V,) if it has one.
        positions: (n,), int64, the row of ``hidden`` that predicts each labelled token; none twice.
        targets: (n,), int64, the labelled tokens.
        sequence: (n,), int64, the example that each belongs to; ``n_sequences`` of them.
        chunk: rows of logits held at once.
        expected_scale: what ``total`` will be multiplied by before backward, if known (1 / number
            of tokens). Another one is as right and costs a pass over the head's gradient.

    Raises:
        RuntimeError: backward runs a second time.
    """
    exact = torch.float64 if weight.dtype == torch.float64 else torch.float32
    scale = torch.as_tensor(expected_scale, dtype=exact, device=hidden.device)
    apply: Any = _LinearTokenLoss.apply  # untyped in torch
    total, logps, weights = apply(
        hidden,
        weight,
        bias,
        positions,
        targets,
        sequence,
        n_sequences,
        token_weight,
        transform,
        max(1, chunk),
        # fp16 would lose small gradients, which its loss scaling is about to lift.
        torch.ones_like(scale) if weight.dtype == torch.float16 else scale,
        # Inside a Function grad mode is off, and needs_input_grad is True even under no_grad.
        torch.is_grad_enabled(),
    )
    return LinearLoss(total, logps, weights)
