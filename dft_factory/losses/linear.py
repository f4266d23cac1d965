"""Token-weighted NLL from hidden states, in chunks: full logits are never materialised.

Full logits cost 10 bytes per token and vocabulary entry in LLaMA-Factory's own DFT (bf16 logits,
their fp32 copy, the gradient). Here the head projects one chunk of rows, ``losses.softmax``
overwrites the logits with their gradient, and the gradients of hidden states and head are computed
from it in the same forward pass.

* Weights of single tokens: three matrix products (logits, grad of hidden, grad of head).
* Weights of whole sequences need all log-probabilities first: four products.
* Under ``no_grad``: one product, no gradients.

Positions without a label are skipped.
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
"""Rows of logits in memory at once. The head's gradient is rounded once per chunk: small chunks
cost accuracy in bf16, large ones memory (2 bytes x rows x vocabulary)."""


@dataclass(frozen=True)
class LinearLoss:
    """Result of :func:`linear_token_weighted_nll`.

    Attributes:
        total: sum of sg(w)·NLL, scalar, fp32, differentiable with respect to hidden states, head
            weight and bias.
        logps: log-probability of each token, (n,), at least fp32, detached.
        entropies: entropy of the distribution that predicts each token, (n,), in nats, detached.
        weights: token weights, (n,), detached.
    """

    total: Tensor
    logps: Tensor
    entropies: Tensor
    weights: Tensor


class _LinearTokenLoss(torch.autograd.Function):
    """Gradients are computed in forward, pre-multiplied by ``scale``.

    Backward rescales them only if the incoming gradient differs from ``scale``.
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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        needs_hidden, needs_weight, needs_bias = (
            grad_enabled and needs_grad for needs_grad in ctx.needs_input_grad[:3]
        )
        needs_grad = needs_hidden or needs_weight or needs_bias
        n = positions.shape[0]
        logps = weight.new_empty(n, dtype=torch.promote_types(weight.dtype, torch.float32))
        entropies = torch.empty_like(logps)
        chunks = [slice(start, min(start + chunk, n)) for start in range(0, n, chunk)]
        # Buffers are reused: one allocation per chunk would fragment a CPU's heap.
        multiply_, max_rows = Multiplier(), min(chunk, n)
        logits_buffer = weight.new_empty((max_rows, weight.shape[0]))
        states_buffer = weight.new_empty((max_rows, weight.shape[1]))

        def project(rows: slice) -> tuple[Tensor, Tensor]:
            """Hidden states and logits of one chunk."""
            size = rows.stop - rows.start
            states, logits = states_buffer[:size], logits_buffer[:size]
            states.copy_(hidden.index_select(0, positions[rows]))
            if bias is not None:
                logits.copy_(bias)
            return states, multiply_(logits, states, weight.t(), add=bias is not None)

        if token_weight.needs_sequence or not needs_grad:
            for rows in chunks:
                _, logits = project(rows)
                logps[rows], entropies[rows] = softmax_rows_(logits, targets[rows], transform, None)
            weights = token_weight(logps, sequence, n_sequences)
        else:
            weights = torch.empty_like(logps)

        grad_hidden = torch.zeros_like(hidden) if needs_hidden else None
        grad_weight = torch.empty_like(weight) if needs_weight else None
        grad_bias = torch.zeros_like(bias) if bias is not None and needs_bias else None
        if needs_grad:
            for rows in chunks:

                def weigh(row_logps: Tensor, tile: slice, start: int = rows.start) -> Tensor:
                    tokens = slice(start + tile.start, start + tile.stop)
                    if not token_weight.needs_sequence:
                        weights[tokens] = token_weight(row_logps, sequence[tokens], n_sequences)
                    return weights[tokens] * scale

                states, gradient = project(rows)
                logps[rows], entropies[rows] = softmax_rows_(
                    gradient, targets[rows], transform, weigh
                )
                if grad_weight is not None:
                    multiply_(grad_weight, gradient.t(), states, add=rows.start > 0)
                if grad_bias is not None:
                    grad_bias += gradient.sum(0)
                if grad_hidden is not None:  # overwrites the states, which are no longer needed
                    multiply_(states, gradient, weight)
                    grad_hidden.index_copy_(0, positions[rows], states.to(hidden.dtype))
        if n == 0 and grad_weight is not None:
            grad_weight.zero_()
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        ctx.scale = scale
        ctx.mark_non_differentiable(logps, entropies, weights)
        return -(weights * logps).sum(), logps, entropies, weights

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        if not ctx.gradients:
            raise RuntimeError(
                "The loss head's backward pass can run only once. Compute the loss again."
            )
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError(
                "The loss head has no second derivatives: its gradients are computed in the "
                "forward pass. Take the loss of full logits, token_weighted_nll."
            )
        correction = grads[0] / ctx.scale
        # Reading the number from a GPU would cost more than the multiplication saves.
        if correction.device.type != "cpu" or correction.item() != 1.0:
            for gradient in ctx.gradients:
                if gradient is not None:
                    gradient.mul_(correction)
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

    Backward can run once: the gradients are computed in the forward pass and scaled in place.

    Args:
        hidden: (N, H), hidden states of any dtype, cast to the head's.
        weight: (V, H), the head; ``bias`` (V,) if it has one.
        positions: (n,), int64, unique; the row of ``hidden`` that predicts each labelled token.
        targets: (n,), int64, the labelled tokens.
        sequence: (n,), int64, the example of each token, below ``n_sequences``.
        chunk: rows of logits in memory at once.
        expected_scale: what ``total`` will be multiplied by before backward, if known (1 / number
            of tokens). A different factor is correct too and costs a pass over the head's gradient.

    Raises:
        RuntimeError: backward runs a second time.
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    scale = torch.as_tensor(expected_scale, dtype=dtype, device=hidden.device)
    apply: Any = _LinearTokenLoss.apply  # untyped in torch
    total, logps, entropies, weights = apply(
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
        # In fp16 small gradients would underflow before loss scaling lifts them.
        torch.ones_like(scale) if weight.dtype == torch.float16 else scale,
        # Inside a Function grad mode is off, and needs_input_grad is True even under no_grad.
        torch.is_grad_enabled(),
    )
    return LinearLoss(total, logps, entropies, weights)
