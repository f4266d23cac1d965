"""The warnings of a training: each fires where it should, once, and not on noise."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator

import pytest

from dft_factory.watch import HOLDS, RULES, WARM_UP, WINDOW, Answers, Evaluation, Row, Watch

Course = Callable[[float, random.Random], dict[str, float | None]]


def course(course: Course, n: int = 100, seed: int = 0) -> list[tuple[int, str]]:
    """(step, rule) of every warning of a run of ``n`` logs."""
    watch, noise = Watch(), random.Random(seed)
    found = []
    for step in range(1, n + 1):
        done = step / n
        row = Row(
            step,
            **{
                "objective": 0.1,
                "nll": 1.0,
                "token_weight": 0.6,
                "end_of_turn": 0.9,
                **course(done, noise),
            },  # type: ignore[arg-type]
        )
        found += [(step, warned.rule) for warned in watch.see(row, done)]
    return found


def rules(found: list[tuple[int, str]]) -> list[str]:
    return [rule for _, rule in found]


def healthy(done: float, noise: random.Random) -> dict[str, float | None]:
    """NLL falls, the end of the turn is learned after a warm-up; 20 % of noise on each."""
    return {
        "objective": 0.2 * (1 - done / 2) * noise.uniform(0.8, 1.2),
        "nll": 2.0 * (1 - done / 3) * noise.uniform(0.8, 1.2),
        "token_weight": 0.5,
        "end_of_turn": min(1.0, max(0.0, 0.1 + 2 * (done - 0.1)) * noise.uniform(0.8, 1.2)),
    }


def test_a_healthy_run_is_not_warned_of() -> None:
    for seed in range(20):
        assert course(healthy, seed=seed) == []


def flat(done: float, noise: random.Random) -> dict[str, float | None]:
    """Nothing moves; only the batches differ, by 30 %, as with few examples a step."""
    return {
        "objective": noise.gauss(0.2, 0.06),
        "nll": noise.gauss(2.0, 0.6),
        "token_weight": 0.5,
        "end_of_turn": 0.9,
    }


def test_noise_alone_does_not_fire() -> None:
    """12 runs of 500 logs each, every one of which is a chance to be wrong."""
    assert sum(bool(course(flat, n=500, seed=seed)) for seed in range(12)) == 0


def rising(done: float, noise: random.Random) -> dict[str, float | None]:
    return {
        "objective": 0.2 * (1 - done / 2),
        "nll": 1.0 + 0.5 * done + noise.uniform(-0.1, 0.1),
    }


def test_nll_above_its_start_while_the_loss_falls_fires_once() -> None:
    found = course(rising)
    assert rules(found) == ["nll_rises"]
    assert 2 * WINDOW <= found[0][0] < 80
    # 4 % with no noise at all: significant, and not worth a word.
    assert course(lambda d, n: {"objective": 0.2 - 0.1 * d, "nll": 1 + 0.04 * d}) == []


@pytest.mark.parametrize("objective", [0.2, 0.4])
def test_nll_that_rises_with_the_loss_is_another_story(objective: float) -> None:
    assert course(lambda d, n: {**rising(d, n), "objective": 0.2 + (objective - 0.2) * d}) == []


def test_end_of_turn() -> None:
    """Fires when it stays low after the warm-up or falls below a half."""
    found = course(lambda d, n: {"end_of_turn": 0.05 + n.uniform(-0.02, 0.02)})
    assert rules(found) == ["end_of_turn"]
    assert found[0][0] >= 100 * WARM_UP
    assert rules(course(lambda d, n: {"end_of_turn": 0.4 - 0.3 * d})) == ["end_of_turn"]
    assert course(lambda d, n: {"end_of_turn": 0.95 - 0.3 * d}) == []
    assert course(lambda d, n: {"end_of_turn": 0.1 + 0.1 * d + n.uniform(-0.005, 0.005)}) == []
    assert course(lambda d, n: {"end_of_turn": None}) == []


def test_weight_near_zero_fires_once_and_soon() -> None:
    found = course(lambda d, n: {"token_weight": 0.002})
    assert found == [(WINDOW + HOLDS - 1, "weight_near_zero")]
    assert course(lambda d, n: {"token_weight": 0.02}) == []


def test_single_bad_batches_and_rows_that_are_not_finite_are_ignored() -> None:
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
    for course_ in (
        rising,
        lambda d, n: {"end_of_turn": 0.05},
        lambda d, n: {"token_weight": 0.002},
    ):
        watch = Watch()
        for step in range(1, 101):
            row = {"objective": 0.1, "nll": 1.0, "token_weight": 0.6, "end_of_turn": 0.9}
            row.update(course_(step / 100, random.Random(step)))  # type: ignore[no-untyped-call]
            yield from (w.message for w in watch.see(Row(step, **row), step / 100))


def test_every_warning_is_one_line_that_says_what_to_do() -> None:
    found = list(messages())
    assert len(found) == len(RULES)
    for message in found:
        assert "\n" not in message
        assert "dft_weight: floor:0.1" in message


# --- collapse, at evaluations -----------------

ANSWERS = Answers(n=8, length=26.0, repeated=0.0, reference_length=28.0, reference_repeated=0.0)


def evaluated(*evaluations: Evaluation) -> list[tuple[int, str]]:
    """(evaluation, message) of every warning; the first evaluation is before the first step."""
    watch, last = Watch(), len(evaluations) - 1
    return [
        (index, warned.message)
        for index, evaluation in enumerate(evaluations)
        for warned in watch.see_evaluation(evaluation, index / last)
    ]


def test_answers_that_shrink_are_said_once() -> None:
    """`return n` where the references are functions, from the middle of the training on."""
    short = dataclasses.replace(ANSWERS, length=4.0)
    runs = [Evaluation(1.0, 0.7, answers) for answers in (ANSWERS, ANSWERS, short, short)]
    [(index, message)] = evaluated(*runs)
    assert index == 2
    assert "have 4 tokens, the references 28" in message
    assert "learning_rate" in message
    assert "dft_weight: floor:0.1" in message
    assert "\n" not in message


def test_answers_that_become_alike_are_said() -> None:
    alike = dataclasses.replace(ANSWERS, repeated=0.75)
    [(index, message)] = evaluated(Evaluation(1.0, 0.7, ANSWERS), Evaluation(1.0, 0.7, alike))
    assert index == 1
    assert "75% of its greedy answers to 8 held-out prompts equal another one" in message


def test_short_answers_are_no_reason_before_the_warm_up_or_with_short_references() -> None:
    """Yes or no, one token each."""
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
    found = evaluated(*[Evaluation(*numbers) for numbers in course])
    assert [index for index, _ in found] == ([] if warned is None else [warned])
