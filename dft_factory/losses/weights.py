"""Token weights: how much each labelled token counts in ``sum sg(w_t) * NLL_t / N``.

A weight is a function of the log-probabilities of the labelled tokens alone and never carries a
gradient. With p = exp(logp) the probability of the labelled token:

=================  ==============================  ===========================================
``dft_weight``     w_t                             source
=================  ==============================  ===========================================
``token``          p_t                             DFT, equation (9) of the paper; the method
``sequence``       prod_s p_s                      DFT, equation (8), all labelled tokens of
                                                   one example
``geometric_mean`` (prod_s p_s) ** (1 / n)         length-normalised equation (8)
``power:A``        p_t ** A                        arXiv 2510.00526
``floor:U``        max(p_t, U)                     arXiv 2009.07839 (GOLD); suggested by the
                                                   authors of DFT with U = 0.1
``threshold:T``    1 if p_t >= T else 0            arXiv 2510.00526
=================  ==============================  ===========================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dft_factory.errors import ConfigError, did_you_mean

WeightFunction = Callable[[Tensor, Tensor, int], Tensor]
"""(logps (n,), sequence index of each token (n,), number of sequences) -> weights (n,)."""


@dataclass(frozen=True)
class TokenWeight:
    """A token weight that a user can select.

    Attributes:
        spec: canonical name, for example ``power:0.5``.
        needs_sequence: whether it depends on all labelled tokens of an example.
    """

    spec: str
    needs_sequence: bool
    function: WeightFunction

    def __call__(self, logps: Tensor, sequence: Tensor, n_sequences: int) -> Tensor:
        """Weights of labelled tokens, detached.

        Args:
            logps: log-probability of each labelled token, (n,), at least fp32, natural logarithm.
            sequence: index of the example that each token belongs to, (n,), int64.
            n_sequences: number of examples, including those without a labelled token.

        Returns:
            (n,), same dtype as ``logps``, no gradient.
        """
        return self.function(logps.detach(), sequence, n_sequences)


def _sequence_sums(values: Tensor, sequence: Tensor, n_sequences: int) -> Tensor:
    return values.new_zeros(n_sequences).index_add_(0, sequence, values)


def _one(logps: Tensor, sequence: Tensor, n_sequences: int) -> Tensor:
    return torch.ones_like(logps)


def _token(logps: Tensor, sequence: Tensor, n_sequences: int) -> Tensor:
    return logps.exp()


def _sequence(logps: Tensor, sequence: Tensor, n_sequences: int) -> Tensor:
    return _sequence_sums(logps, sequence, n_sequences).exp()[sequence]


def _geometric_mean(logps: Tensor, sequence: Tensor, n_sequences: int) -> Tensor:
    counts = _sequence_sums(torch.ones_like(logps), sequence, n_sequences).clamp(min=1)
    return (_sequence_sums(logps, sequence, n_sequences) / counts).exp()[sequence]


def _power(exponent: float) -> WeightFunction:
    return lambda logps, sequence, n_sequences: (exponent * logps).exp()


def _floor(minimum: float) -> WeightFunction:
    return lambda logps, sequence, n_sequences: logps.exp().clamp(min=minimum)


def _threshold(minimum: float) -> WeightFunction:
    return lambda logps, sequence, n_sequences: (logps.exp() >= minimum).to(logps.dtype)


@dataclass(frozen=True)
class _Family:
    """One row of the registry. ``argument`` is None or (name, lowest, highest value)."""

    make: Callable[[float], WeightFunction]
    needs_sequence: bool = False
    argument: tuple[str, float, float] | None = None


UNIT_WEIGHT = TokenWeight("1", False, _one)
"""w = 1: plain NLL."""

WEIGHTS: dict[str, _Family] = {
    "token": _Family(lambda _: _token),
    "sequence": _Family(lambda _: _sequence, needs_sequence=True),
    "geometric_mean": _Family(lambda _: _geometric_mean, needs_sequence=True),
    "power": _Family(_power, argument=("A", 0.0, math.inf)),
    "floor": _Family(_floor, argument=("U", 0.0, 1.0)),
    "threshold": _Family(_threshold, argument=("T", 0.0, 1.0)),
}
DEFAULT_WEIGHT = "token"


def weight_choices() -> list[str]:
    """Values of ``dft_weight`` as error messages list them."""
    return [
        name if family.argument is None else f"{name}:{family.argument[0]}"
        for name, family in WEIGHTS.items()
    ]


def parse_weight(spec: object) -> TokenWeight:
    """The token weight of a ``dft_weight`` value; a :class:`TokenWeight` is returned as it is.

    Raises:
        ConfigError: unknown value; names the choices and the nearest match.
    """
    if isinstance(spec, TokenWeight):
        return spec
    choices = ", ".join(weight_choices())
    if not isinstance(spec, str):
        raise ConfigError(
            f"dft_weight: {spec!r} is a {type(spec).__name__}, not a name. Choose from: {choices}."
        )
    name, colon, text = spec.strip().partition(":")
    family = WEIGHTS.get(name)
    if family is None:
        hint = did_you_mean(name, WEIGHTS)
        raise ConfigError(f"dft_weight: {spec!r} is unknown. Choose from: {choices}.{hint}")
    if family.argument is None:
        if colon:
            raise ConfigError(f"dft_weight: {spec!r}: {name!r} takes no value. Write {name!r}.")
        return TokenWeight(name, family.needs_sequence, family.make(0.0))
    letter, lowest, highest = family.argument
    bounds = f"{lowest:g} or more" if math.isinf(highest) else f"from {lowest:g} to {highest:g}"
    if not text.strip():
        raise ConfigError(
            f"dft_weight: {spec!r} needs a value: {name}:{letter}, where {letter} is a number "
            f"{bounds}, for example {name}:0.5."
        )
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and lowest <= value <= highest):
        raise ConfigError(
            f"dft_weight: {spec!r}: {letter} must be a number {bounds}, not {text.strip()!r}."
        )
    return TokenWeight(f"{name}:{value:g}", family.needs_sequence, family.make(value))
