"""Cluster-robust errors, the sign-flip test and intervals: closed forms, and scipy as oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

from benchmarks.false_positives import Design, rate
from dft_eval.seed_statistics import mean_interval
from dft_eval.statistics import (
    LEVEL,
    cluster_sums,
    difference_interval,
    holm,
    mean_and_stderr,
    sign_flip_test,
    wilson,
)


def paired(won: int, lost: int, n: int) -> tuple[float, tuple[float, float]]:
    """p and interval of n independent items of which some are won and some lost."""
    differences = np.array([1.0] * won + [-1.0] * lost + [0.0] * (n - won - lost))
    p = sign_flip_test(differences)
    return p, difference_interval(differences, np.ones(n), p)


def test_clusters_by_hand() -> None:
    """Five equal versions of each of 4 problems, 1 0 0 0: the standard error of the problems,
    sqrt(1/4 / 4) = 1/4, and not sqrt(20/19 · 3/16 / 20) = 0.099."""
    scores = [1.0] * 5 + [0.0] * 15
    clusters = [str(n // 5) for n in range(20)]
    assert mean_and_stderr(scores, clusters) == (0.25, pytest.approx(0.25))
    assert mean_and_stderr(scores)[1] == pytest.approx(math.sqrt(3 / 16 / 19))
    assert mean_and_stderr(scores, ["one"] * 20) == (0.25, None)
    # The same interval as that of 4 independent items, but for the small-sample factor of n.
    interval = mean_interval(scores, clusters)
    assert interval is not None
    assert interval == pytest.approx(wilson(0.25, 0.25 * 0.75 / (1 / 16 * 19 / 20)))
    # Scores 1, 1, 0 with clusters a, a, b: mean 2/3; sums of residuals 2/3 and -2/3; variance
    # 2/1 · (4/9 + 4/9) / 9 = 16/81.
    assert mean_and_stderr([1.0, 1.0, 0.0], ["a", "a", "b"])[1] == pytest.approx(4 / 9)
    # Sums of thirds, exact: 3 clusters won by 1/3, 2/3 and 1: p = 2/8.
    sums, sizes = cluster_sums([1 / 3, 1 / 3, 1 / 3, 1.0], ["a", "b", "b", "c"])
    assert list(sizes) == [1, 2, 1]
    assert sign_flip_test(sums) == 0.25


def test_wilson_is_that_of_scipy() -> None:
    """Wilson at 1: n / (n + z²) = 12 / 15.84."""
    assert mean_interval([1.0] * 12) == (pytest.approx(12 / (12 + 1.959964**2)), 1.0)
    assert mean_interval([]) is None
    # And of a published example: 81 of 263, Newcombe (1998), method 3.
    assert wilson(81 / 263, 263) == (
        pytest.approx(0.2553, abs=5e-5),
        pytest.approx(0.3662, abs=5e-5),
    )
    for right in (0, 3, 12):
        oracle = binomtest(right, 12).proportion_ci(method="wilson")
        assert wilson(right / 12, 12) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@given(st.lists(st.integers(-8, 8), min_size=2, max_size=9))
def test_the_sign_flip_test_is_that_of_scipy(eighths: list[int]) -> None:
    differences = np.array(eighths) / 8
    oracle = permutation_test(
        (differences,), np.sum, permutation_type="samples", vectorized=True, n_resamples=np.inf
    )
    assert sign_flip_test(differences) == pytest.approx(oracle.pvalue)


@given(st.integers(0, 30), st.integers(0, 30))
def test_for_right_and_wrong_it_is_mcnemars_exact_test(won: int, lost: int) -> None:
    oracle = binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert paired(won, lost, 100)[0] == pytest.approx(oracle)


def test_the_interval_inverts_the_test() -> None:
    p, (low, high) = paired(4, 0, 100)
    assert p == 0.125
    assert low < 0 < high
    # Just outside the interval the shifted differences are rejected, just inside they are not:
    # (|T| - u)² against z² Σ D², by hand, for 30 won and 10 lost of 100, u = 1.
    differences = np.array([1.0] * 30 + [-1.0] * 10 + [0.0] * 60)
    low, high = paired(30, 10, 100)[1]
    for end, inward in ((low, 1e-6), (high, -1e-6)):
        for shift, rejected in ((end + inward, False), (end - inward, True)):
            rest = differences - shift
            z = (abs(rest.sum()) - 1) / math.sqrt((rest**2).sum())
            assert (z > 1.959964) == rejected


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 400))
def test_interval_and_test_agree(won: int, lost: int, tied: int) -> None:
    n = won + lost + tied
    if n == 0:
        return
    p, (low, high) = paired(won, lost, n)
    assert -1 <= low <= (won - lost) / n <= high <= 1
    assert (low < 0 < high or (low == 0 or high == 0)) if p >= LEVEL else (low >= 0 or high <= 0)


def test_holm_by_hand() -> None:
    """0.01 · 3; then 0.03 · 2; then max(0.06, 0.04 · 1)."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("correlation", [0.0, 0.6, 1.0])
def test_false_positives_do_not_grow_with_the_correlation(correlation: float) -> None:
    """400 pairs of equal models: 5 % ± 3.3 (three standard errors). Items as independent draws give
    30 % and more at 0.6."""
    clustered, independent = rate(Design("versions", 161, 8), correlation, pairs=400, seed=0)
    assert clustered < 0.083
    assert correlation == 0.0 or independent > 0.2
