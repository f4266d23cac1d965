"""Means over training seeds and items: components by hand, interval and test that agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dft_eval.seed_statistics import Scored, crossed, paired_difference, score_interval
from dft_eval.statistics import LEVEL, cluster_sums, mean_and_stderr, sign_flip_test, wilson


def seed(*scores: float) -> list[Scored]:
    """Items 0, 1, ... of one seed, each its own cluster."""
    return list(enumerate(scores))


def test_components_by_hand() -> None:
    """Seeds (1, 0) and (1, 1), two items. The seeds' means are 1/2 and 1.

    D: ±1/4 in the first seed, 0 in the second. Items: 2 (2 (1/8)²) = 1/16. Between: the variance
    of 1/2 and 1 is 1/8, over 2 seeds 1/16. Explained: 2 (1/32 + 1/32) / 2 = 1/16: all of it.
    """
    estimate = crossed([[seed(1, 0)], [seed(1, 1)]])
    assert estimate is not None
    assert (estimate.mean, estimate.by_seed) == (0.75, (0.5, 1.0))
    assert estimate.item_variance == pytest.approx(1 / 16)
    assert estimate.between == pytest.approx(1 / 16)
    assert estimate.explained == pytest.approx(1 / 16)
    assert estimate.seed_variance == pytest.approx(0)
    assert estimate.stderr == pytest.approx(1 / 4)
    assert estimate.spread == pytest.approx(math.sqrt(1 / 8))
    # Two seeds of two items, none in common: four draws of score ±1/2 about their seed's mean.
    #
    # Each moves the mean by ±1/2 / 2 / 2 = 1/8: 4/3 · 4/64 = 1/12. The seeds' means are equal.
    estimate = crossed([[[("a", 1.0), ("b", 0.0)]], [[("c", 1.0), ("d", 0.0)]]])
    assert estimate is not None
    assert estimate.item_variance == pytest.approx(1 / 12)
    assert estimate.between == 0


def test_groups_weigh_alike_and_translations_of_a_problem_are_one_draw() -> None:
    """By hand, in single groups and in two.

    Two groups with the same two problems, 1 and 0: each item moves the mean by ±1/2 / (2·2) = ±1/8,
    each problem by ±1/4; variance 2/1 · 2/16 = 1/4, stderr 1/2, as of one group (sqrt(1/2 / 2)).
    Four problems of their own: 4/3 · 4/64 = 1/12. Unequal groups: {1, 0, 0} and {1}: mean
    (1/3 + 1)/2; d = (2/3)/6, (-1/3)/6 twice, 0; P = 3 problems where the lone one is the first.
    """

    def stderr(*groups: list[Scored]) -> tuple[float, float | None]:
        estimate = crossed([groups])
        assert estimate is not None
        return estimate.mean, estimate.stderr

    one: list[Scored] = [("1", 1.0), ("2", 0.0)]
    assert stderr(one) == (0.5, pytest.approx(0.5))
    assert stderr(one, one) == (0.5, pytest.approx(0.5))
    assert stderr(one, [("3", 1.0), ("4", 0.0)]) == (0.5, pytest.approx(math.sqrt(1 / 12)))
    value, error = stderr([("1", 1.0), ("2", 0.0), ("3", 0.0)], [("1", 1.0)])
    assert value == pytest.approx(2 / 3)
    assert error == pytest.approx(math.sqrt(3 / 2 * (4 + 1 + 1) / 18**2))
    assert stderr([("1", 1.0)]) == (1.0, None)
    assert crossed([[one, []]]) is None
    assert crossed([]) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from((0.0, 0.5, 1.0))), min_size=2))
def test_one_seed_is_the_cluster_robust_mean(items: list[tuple[int, float]]) -> None:
    estimate = crossed([[items]])
    clusters, scores = zip(*items, strict=True)
    mean, stderr = mean_and_stderr(scores, clusters)
    assert estimate is not None
    assert estimate.mean == pytest.approx(mean)
    assert estimate.stderr == (None if stderr is None else pytest.approx(stderr, abs=1e-12))
    assert estimate.seed_width_squared() == 0


@given(st.lists(st.sampled_from((-1.0, 0.0, 1.0)), min_size=2, max_size=30))
def test_copies_of_a_seed_are_the_test_of_one(differences: list[float]) -> None:
    """Three seeds that do not differ at all: the exact test over items, p and interval."""
    one, three = (paired_difference([seed(*differences)] * n) for n in (1, 3))
    assert one is not None
    assert three is not None
    assert one.p == sign_flip_test(cluster_sums(differences, None)[0])
    assert three.p == pytest.approx(one.p)
    assert three.interval == pytest.approx(one.interval, abs=1e-9)


def test_seeds_alone_are_students_test() -> None:
    """All 200 items go with the seed: +1 in one, 0 in the other.

    t = 1/2 / sqrt(1/2 / 2) = 1 with one degree of freedom: p = 1/2, what the items add is little.
    """
    difference = paired_difference([seed(*[1.0] * 200), seed(*[0.0] * 200)])
    assert difference is not None
    assert difference.p == pytest.approx(0.5, abs=0.01)
    assert difference.p > 0.5
    assert difference.interval == (-1.0, 1.0)
    assert difference.estimate.seeds_dominate


@given(
    st.lists(
        st.lists(st.sampled_from((-1.0, 0.0, 0.0, 1.0, 1.0)), min_size=12, max_size=12),
        min_size=1,
        max_size=4,
    )
)
def test_interval_and_test_agree(seeds: list[list[float]]) -> None:
    difference = paired_difference([seed(*differences) for differences in seeds])
    assert difference is not None
    low, high = difference.interval
    assert -1 <= low <= high <= 1
    assert (low <= 0 <= high) == (difference.p >= LEVEL) or 0 in (low, high)
    values = [value for differences in seeds for value in differences]
    items = [item for differences in seeds for item in range(len(differences))]
    over_items = sign_flip_test(cluster_sums(values, items)[0])
    assert difference.p >= over_items - 1e-12


def test_a_score_is_wilsons_over_items_and_wider_by_the_seeds() -> None:
    """Two seeds of 10 items, one item between them: 5 and 6 right, mean 0.55.

    Between: (1/10)² / 2 / 2 = 0.0025. t² between alone makes ± 12.7 · 0.05 = 0.635: everything.
    With one seed the interval is Wilson's.
    """
    five, six = seed(*[1.0] * 5, *[0.0] * 5), seed(*[1.0] * 6, *[0.0] * 4)
    both = crossed([[five], [six]])
    assert both is not None
    assert both.between == pytest.approx(0.0025)
    assert score_interval(both, 10, 10) == (0.0, 1.0)
    one = crossed([[five]])
    assert one is not None
    assert score_interval(one, 10, 10) == pytest.approx(wilson(0.5, 10))


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_equal_methods_differ_by_chance_in_few_experiments(spread: float) -> None:
    """Three seeds of 40 items, 300 experiments: about 5 % false positives or fewer, with and
    without a spread between seeds. Over items alone it were more than half with the spread."""
    rng = np.random.default_rng(1)
    over_items = both = 0
    for _ in range(300):
        item = rng.normal(size=40)
        first, second = (
            (item + spread * rng.normal(size=(3, 1)) + rng.normal(size=(3, 40)) > 0).astype(float)
            for _ in range(2)
        )
        difference = paired_difference([seed(*row) for row in second - first])
        assert difference is not None
        both += difference.p < LEVEL
        over_items += sign_flip_test((second - first).sum(axis=0)) < LEVEL
    assert both / 300 < 0.08
    assert (over_items / 300 > 0.3) == (spread > 0)
