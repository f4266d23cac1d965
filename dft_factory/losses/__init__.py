"""Token-weighted losses in plain torch; nothing here knows of LLaMA-Factory or transformers."""

from dft_factory.losses.functional import chunked_dft_loss
from dft_factory.losses.linear import LinearLoss, linear_token_weighted_nll
from dft_factory.losses.token import IGNORE_INDEX, TokenLoss, count_labelled, token_weighted_nll
from dft_factory.losses.weights import UNIT_WEIGHT, TokenWeight, parse_weight

__all__ = [
    "IGNORE_INDEX",
    "UNIT_WEIGHT",
    "LinearLoss",
    "TokenLoss",
    "TokenWeight",
    "chunked_dft_loss",
    "count_labelled",
    "linear_token_weighted_nll",
    "parse_weight",
    "token_weighted_nll",
]
