"""Token-probability statistics against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dft_factory.errors import ConfigError
from dft_factory.probe.statistics import N_BINS, summarise


def test_by_hand() -> None:
    """p = .02, .5, .96, 1: bins 0, 10, 19, 19 of 20; mean .62; one below .1, two above .9."""
    p = torch.tensor([0.02, 0.5, 0.96, 1.0], dtype=torch.float64)
    found = summarise(p.log(), model="m", label="l", dataset="d", n_examples=2)
    counts = [0] * N_BINS
    counts[0], counts[10], counts[19] = 1, 1, 2
    assert list(found.counts) == counts
    assert found.mean == pytest.approx(0.62)
    assert (found.share_below, found.share_above) == (0.25, 0.5)
    assert found.nll == pytest.approx(-(math.log(0.02) + math.log(0.5) + math.log(0.96)) / 4)
    assert found.n_tokens == sum(counts)


def test_nothing_labelled_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'d' has no labelled token"):
        summarise(torch.empty(0), model="m", label="l", dataset="d", n_examples=3)
