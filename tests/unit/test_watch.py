"""The warnings of a training: each fires where it should, once, and not on noise."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator

import pytest

from dft_factory.watch import HOLDS, RULES, WARM_UP, WINDOW, Answers, Evaluation, Row, Watch

STEADY = {"objective": 0.1, "nll": 1.0, "token_weight": 0.6, "end_of_turn": 0.9}
Course = Callable[[float, random.Random], dict[str, float | None]]


def course(course: Course, n: int = 100, seed: int = 0) -> list[tuple[int, str]]:
    """(step, rule) of each warning of a run of ``n`` logs."""
    watch, noise = Watch(), random.Random(seed)
    warnings_ = []
    for step in range(1, n + 1):
        share = step / n
        row = Row(step, **{**STEADY, **course(share, noise)})  # type: ignore[arg-type]
        warnings_ += [(step, warned.rule) for warned in watch.see(row, share)]
    return warnings_


def rules(warnings_: list[tuple[int, str]]) -> list[str]:
    return [rule for _, rule in warnings_]


def healthy(share: float, noise: random.Random) -> dict[str, float | None]:
    """NLL falls, and the end of turn is learned after a warm-up; with 20 % noise."""
    return {
        "objective": 0.2 * (1 - share / 2) * noise.uniform(0.8, 1.2),
        "nll": 2.0 * (1 - share / 3) * noise.uniform(0.8, 1.2),
        "token_weight": 0.5,
        "end_of_turn": min(1.0, max(0.0, 0.1 + 2 * (share - 0.1)) * noise.uniform(0.8, 1.2)),
    }


def test_healthy_and_noisy_runs_have_no_warning() -> None:
    for seed in range(20):
        assert course(healthy, seed=seed) == []
    # 12 runs of 500 logs each.
    assert sum(bool(course(flat, n=500, seed=seed)) for seed in range(12)) == 0


def flat(share: float, noise: random.Random) -> dict[str, float | None]:
    """Constant but for 30 % noise between batches, as with few examples per step."""
    return {
        "objective": noise.gauss(0.2, 0.06),
        "nll": noise.gauss(2.0, 0.6),
        "token_weight": 0.5,
        "end_of_turn": 0.9,
    }


def rising(share: float, noise: random.Random) -> dict[str, float | None]:
    return {
        "objective": 0.2 * (1 - share / 2),
        "nll": 1.0 + 0.5 * share + noise.uniform(-0.1, 0.1),
    }


def test_nll_above_its_start_while_the_loss_falls_fires_once() -> None:
    warnings_ = course(rising)
    assert rules(warnings_) == ["nll_rises"]
    assert 2 * WINDOW <= warnings_[0][0] < 80
    # 4 % without noise is significant but too small.
    assert course(lambda d, n: {"objective": 0.2 - 0.1 * d, "nll": 1 + 0.04 * d}) == []


@pytest.mark.parametrize("objective", [0.2, 0.4])
def test_nll_that_rises_with_the_loss_does_not_fire(objective: float) -> None:
    assert course(lambda d, n: {**rising(d, n), "objective": 0.2 + (objective - 0.2) * d}) == []


def test_end_of_turn() -> None:
    """Fires when it stays low after the warm-up or falls below a half."""
    warnings_ = course(lambda d, n: {"end_of_turn": 0.05 + n.uniform(-0.02, 0.02)})
    assert rules(warnings_) == ["end_of_turn"]
    assert warnings_[0][0] >= 100 * WARM_UP
    assert rules(course(lambda d, n: {"end_of_turn": 0.4 - 0.3 * d})) == ["end_of_turn"]
    assert course(lambda d, n: {"end_of_turn": 0.95 - 0.3 * d}) == []
    assert course(lambda d, n: {"end_of_turn": 0.1 + 0.1 * d + n.uniform(-0.005, 0.005)}) == []
    assert course(lambda d, n: {"end_of_turn": None}) == []


def test_weight_near_zero_fires_once_and_soon() -> None:
    warnings_ = course(lambda d, n: {"token_weight": 0.002})
    assert warnings_ == [(WINDOW + HOLDS - 1, "weight_near_zero")]
    assert course(lambda d, n: {"token_weight": 0.02}) == []


def test_single_bad_batches_and_non_finite_rows_are_ignored() -> None:
    watch = Watch()
    for step in range(1, 100):
        bad = step % 20 == 19
        row = Row(step, 0.1, 9.0 if bad else 1.0, 0.0 if bad else 0.5, 0.9)
        assert watch.see(row, step / 100) == []
    watch = Watch()
    for step in range(1, 40):
        row = Row(step, float("nan"), float("nan"), float("nan"), None)
        assert watch.see(row, 0.5) == []
    assert Watch().see_evaluation(Evaluation(float("nan"), 0.7), 0.5) == []


def messages() -> Iterator[str]:
    low_end, low_weight = lambda d, n: {"end_of_turn": 0.05}, lambda d, n: {"token_weight": 0.002}
    for course_ in (rising, low_end, low_weight):
        watch = Watch()
        for step in range(1, 101):
            row = {**STEADY, **course_(step / 100, random.Random(step))}
            yield from (w.message for w in watch.see(Row(step, **row), step / 100))


def test_each_warning_is_one_line_with_a_fix() -> None:
    warnings_ = list(messages())
    assert len(warnings_) == len(RULES)
    for message in warnings_:
        assert "\n" not in message
        assert "dft_weight: floor:0.1" in message


# --- collapse, at evaluations -----------------

ANSWERS = Answers(n=8, length=26.0, repeated=0.0, reference_length=28.0, reference_repeated=0.0)


def evaluated(*evaluations: Evaluation) -> list[tuple[int, str]]:
    """(evaluation, message) of each warning; the first evaluation is before the first step."""
    watch, last = Watch(), len(evaluations) - 1
    return [
        (index, warned.message)
        for index, evaluation in enumerate(evaluations)
        for warned in watch.see_evaluation(evaluation, index / last)
    ]


def test_shrinking_and_repeated_answers_warn_once() -> None:
    """Answers of 4 tokens for references of 28, from the middle of the training on."""
    short = dataclasses.replace(ANSWERS, length=4.0)
    runs = [Evaluation(1.0, 0.7, answers) for answers in (ANSWERS, ANSWERS, short, short)]
    [(index, message)] = evaluated(*runs)
    assert index == 2
    assert "have 4 tokens, the references 28" in message
    assert "learning_rate" in message
    assert "dft_weight: floor:0.1" in message
    assert "\n" not in message
    alike = dataclasses.replace(ANSWERS, repeated=0.75)
    [(index, message)] = evaluated(Evaluation(1.0, 0.7, ANSWERS), Evaluation(1.0, 0.7, alike))
    assert index == 1
    assert "75% of its greedy answers to 8 held-out prompts equal another one" in message


def test_short_answers_before_the_warm_up_or_with_short_references() -> None:
    """References of one token: yes or no."""
    yes = Answers(n=8, length=1.0, repeated=1.0, reference_length=1.0, reference_repeated=1.0)
    assert evaluated(*[Evaluation(1.0, 0.7, yes)] * 4) == []
    short = dataclasses.replace(ANSWERS, length=4.0)
    watch = Watch()
    assert watch.see_evaluation(Evaluation(1.0, 0.7, short), WARM_UP / 2) == []
    assert watch.see_evaluation(Evaluation(1.0, 0.7, short), WARM_UP) != []


@pytest.mark.parametrize(
    ("course", "warned"),
    [
        # SmolLM2-135M, DFT, the demo's data, evaluations at steps 0, 6 and 12 of 18.
        ([(0.974, 0.739), (0.902, 0.460), (1.013, 0.283)], 2),  # 5e-5: collapsed
        ([(0.974, 0.739), (0.961, 0.715), (0.933, 0.665)], None),  # 1e-5
        ([(0.974, 0.739), (0.902, 0.360), (0.90, 0.283)], None),  # surer and better
        ([(0.974, 0.739), (1.1, 0.6), (1.2, 0.5)], None),  # worse and not much surer
    ],
)
def test_collapse(course: list[tuple[float, float]], warned: int | None) -> None:
    warnings_ = evaluated(*[Evaluation(*numbers) for numbers in course])
    assert [index for index, _ in warnings_] == ([] if warned is None else [warned])
