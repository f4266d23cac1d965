"""The token-weighted loss from hidden states, in chunks: the logits are never whole.

Whole logits cost 10 bytes a token and vocabulary entry in LLaMA-Factory's own DFT (bf16 logits,
their fp32 copy, the gradient). Here a chunk of rows goes through the head, its softmax part runs in
place on a few rows at a time in fp32, and what is left in the chunk's buffer is the gradient with
respect to the logits, from which the gradients of hidden states and head follow at once.

* Weights of single tokens: three matrix products in all (logits, grad of hidden, grad of head), in
  the forward pass.
* Weights of whole sequences: the log-probabilities of all tokens first, then the same once more:
  four products.

Only labelled positions may be given; dropping the others before the head is the caller's part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dft_factory.losses.weights import TokenWeight

CHUNK_TOKENS = 1024
"""Rows of logits held at once. The head's gradient is rounded once a chunk, so that a small chunk
costs accuracy in bf16, and a large one memory: 2 bytes x rows x vocabulary."""

TILE_BYTES = 16 * 2**20
"""Bytes of fp32 logits worked on at once, a few rows: small enough to stay in a cache."""


@dataclass(frozen=True)
class LogitTransform:
    """What a model does to its head's output before the softmax.

    Attributes:
        scale: the logits are multiplied by it first (Cohere's logit_scale, 1/Granite's
            logits_scaling).
        softcap: then z becomes softcap·tanh(z / softcap) (Gemma 2); None leaves z.
    """

    scale: float = 1.0
    softcap: float | None = None

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return self.scale == 1.0 and self.softcap is None

    def apply_(self, z: Tensor) -> Tensor:
        """Transform in place."""
        if self.scale != 1.0:
            z.mul_(self.scale)
        if self.softcap is not None:
            z.div_(self.softcap).tanh_().mul_(self.softcap)
        return z

    def derivative_(self, gradient: Tensor, transformed: Tensor) -> Tensor:
        """Multiply ``gradient`` in place by d transformed / d head output."""
        if self.softcap is not None:
            gradient.mul_(1 - (transformed / self.softcap).square_())
        return gradient.mul_(self.scale) if self.scale != 1.0 else gradient


IDENTITY = LogitTransform()


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


def _tiles(rows: int, vocabulary: int) -> Iterator[slice]:
    step = max(1, TILE_BYTES // (4 * vocabulary))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _softmax_part(
    logits: Tensor,
    targets: Tensor,
    transform: LogitTransform,
    weigh: Callable[[Tensor, slice], Tensor] | None,
    start: int,
    logps: Tensor,
) -> None:
    """Log-probabilities of one chunk; with ``weigh``, ``logits`` becomes the gradient, in place.

    Args:
        logits: (c, V) in the model's dtype.
        targets: (c,).
        weigh: gives the weights of some rows from their log-probabilities and their place among
            all tokens; None where log-probabilities are all that is wanted.
        start: place of the chunk's first row among all tokens.
        logps: (n,), filled for the chunk's rows.
    """
    for tile in _tiles(*logits.shape):
        # A copy in fp32 (an fp32 chunk is worked on where it lies).
        z = transform.apply_(_wide(logits[tile]))
        chosen = targets[tile].unsqueeze(-1)
        place = slice(start + tile.start, start + tile.stop)
        normaliser = z.logsumexp(-1, keepdim=True)
        row_logps = (z.gather(-1, chosen) - normaliser).squeeze(-1).clamp(max=0.0)
        logps[place] = row_logps
        if weigh is None:
            continue
        weights = weigh(row_logps, place).unsqueeze(-1)
        kept = None if transform.softcap is None else z.clone()
        z.sub_(normaliser).exp_().mul_(weights)
        z.scatter_add_(-1, chosen, -weights)
        transform.derivative_(z, z if kept is None else kept)
        if z.data_ptr() != logits[tile].data_ptr():
            logits[tile] = z


class _LinearTokenLoss(torch.autograd.Function):
    """Forward computes the gradients of a total of 1; backward scales and hands them out."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        sequence: Tensor,
        n_sequences: int,
        token_weight: TokenWeight,
        transform: LogitTransform,
        chunk: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        wants = wants_hidden or wants_weight or wants_bias
        n = hidden.shape[0]
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        logps = hidden.new_empty(n, dtype=exact)
        chunks = [slice(start, min(start + chunk, n)) for start in range(0, n, chunk)]
        buffer = hidden.new_empty((min(chunk, n), weight.shape[0]))

        def project(rows: slice) -> Tensor:
            out = buffer[: rows.stop - rows.start]
            if bias is None:
                return torch.mm(hidden[rows], weight.t(), out=out)
            return torch.addmm(bias, hidden[rows], weight.t(), out=out)

        weights: Tensor | None = None
        if token_weight.needs_sequence or not wants:
            for rows in chunks:
                _softmax_part(project(rows), targets[rows], transform, None, rows.start, logps)
            weights = token_weight(logps, sequence, n_sequences)
        else:
            weights = torch.empty_like(logps)

        grad_hidden = torch.empty_like(hidden) if wants_hidden else None
        grad_weight = torch.empty_like(weight) if wants_weight else None
        grad_bias = torch.zeros_like(bias) if bias is not None and wants_bias else None
        if wants:
            known = weights if token_weight.needs_sequence else None

            def weigh(row_logps: Tensor, place: slice) -> Tensor:
                if known is not None:
                    return known[place]
                found = token_weight(row_logps, sequence[place], n_sequences)
                weights[place] = found
                return found

            for rows in chunks:
                gradient = project(rows)
                _softmax_part(gradient, targets[rows], transform, weigh, rows.start, logps)
                if grad_hidden is not None:
                    torch.mm(gradient, weight, out=grad_hidden[rows])
                if grad_weight is not None and rows.start == 0:
                    torch.mm(gradient.t(), hidden[rows], out=grad_weight)
                elif grad_weight is not None:
                    grad_weight.addmm_(gradient.t(), hidden[rows])
                if grad_bias is not None:
                    grad_bias += gradient.sum(0)
        if n == 0 and grad_weight is not None:
            grad_weight.zero_()
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        ctx.mark_non_differentiable(logps, weights)
        return -(weights * logps).sum(), logps, weights

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        scale = grads[0]
        scaled = [None if each is None else each.mul_(scale) for each in ctx.gradients]
        ctx.gradients = ()
        return (*scaled, None, None, None, None, None, None)


def linear_token_weighted_nll(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    sequence: Tensor,
    n_sequences: int,
    token_weight: TokenWeight,
    *,
    bias: Tensor | None = None,
    transform: LogitTransform = IDENTITY,
    chunk: int = CHUNK_TOKENS,
) -> LinearLoss:
    """``sum sg(w)·NLL`` of labelled tokens from their hidden states.

    Backward may run once: the gradients are made in the forward pass and scaled in place.

    Args:
        hidden: (n, H), the hidden state that predicts each labelled token.
        weight: (V, H), the head; ``bias`` (V,) if it has one.
        targets: (n,), int64, the labelled tokens.
        sequence: (n,), int64, the example that each belongs to; ``n_sequences`` of them.
        chunk: rows of logits held at once.
    """
    apply: Any = _LinearTokenLoss.apply  # untyped in torch
    total, logps, weights = apply(
        hidden,
        weight,
        bias,
        targets,
        sequence,
        n_sequences,
        token_weight,
        transform,
        max(1, chunk),
    )
    return LinearLoss(total, logps, weights)
