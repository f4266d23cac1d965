"""The losses against their closed forms in float64, and properties of all losses."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dft_factory.errors import ConfigError, UpstreamContractError
from dft_factory.losses.token import (
    IGNORE_INDEX,
    STATISTICS,
    count_labelled,
    per_token_logps,
    shift_labels,
    token_weighted_nll,
)
from dft_factory.losses.weights import UNIT_WEIGHT, parse_weight, weight_choices

SPECS = ("token", "sequence", "geometric_mean", "power:0.5", "floor:0.1", "threshold:0.2")


def batch(seed: int, rows: int = 3, length: int = 7, vocabulary: int = 11) -> Any:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, length, vocabulary, generator=generator, dtype=torch.float64)
    labels = torch.randint(vocabulary, (rows, length), generator=generator)
    labels[torch.rand(rows, length, generator=generator) < 0.4] = IGNORE_INDEX
    return logits, labels


def weights_by_hand(p: list[list[float]], spec: str) -> list[list[float]]:
    """Weights of each row's labelled-token probabilities, straight from the definitions."""
    name, _, value = spec.partition(":")
    if name == "sequence":
        return [[math.prod(row)] * len(row) for row in p]
    if name == "geometric_mean":
        return [[math.prod(row) ** (1 / len(row))] * len(row) if row else [] for row in p]
    rule = {
        "token": lambda x: x,
        "one": lambda x: 1.0,
        "power": lambda x: x ** float(value),
        "floor": lambda x: max(x, float(value)),
        "threshold": lambda x: 1.0 if x >= float(value) else 0.0,
    }[name]
    return [[rule(x) for x in row] for row in p]


@pytest.mark.parametrize("spec", [*SPECS, "one"])
def test_gradient_is_weight_times_softmax_minus_onehot(spec: str) -> None:
    """d/dz of -sg(w)·log p is w·(softmax(z) - onehot), equation (9); nothing flows through w."""
    logits, labels = batch(0)
    logits.requires_grad_()
    weight = UNIT_WEIGHT if spec == "one" else parse_weight(spec)
    loss = token_weighted_nll(logits, labels, weight)
    loss.total.backward()

    soft = torch.softmax(logits.detach(), -1)
    positions = [
        [t for t in range(labels.shape[1] - 1) if labels[b, t + 1] != IGNORE_INDEX]
        for b in range(labels.shape[0])
    ]
    p = [[float(soft[b, t, labels[b, t + 1]]) for t in ts] for b, ts in enumerate(positions)]
    w = weights_by_hand(p, spec)
    expected = torch.zeros_like(soft)
    total = 0.0
    for b, ts in enumerate(positions):
        for t, probability, weight_value in zip(ts, p[b], w[b], strict=True):
            expected[b, t] = weight_value * soft[b, t]
            expected[b, t, labels[b, t + 1]] -= weight_value
            total -= weight_value * math.log(probability)
    assert logits.grad is not None
    assert not expected[shift_labels(labels).eq(IGNORE_INDEX)].any()  # masked positions
    torch.testing.assert_close(logits.grad, expected, rtol=1e-12, atol=1e-14)
    assert loss.total.item() == pytest.approx(total, rel=1e-12)
    sums = dict(zip(STATISTICS, loss.rows.sum(0).tolist(), strict=True))
    assert sums["objective"] == pytest.approx(total)
    assert sums["nll"] == pytest.approx(-sum(math.log(x) for row in p for x in row))
    assert sums["token_prob"] == pytest.approx(sum(x for row in p for x in row))
    entropy = -(soft * soft.log()).sum(-1)
    assert sums["token_entropy"] == pytest.approx(
        sum(float(entropy[b, t]) for b, ts in enumerate(positions) for t in ts), rel=1e-12
    )
    assert sums["token_weight"] == pytest.approx(sum(x for row in w for x in row))
    assert sums["tokens"] == sum(len(row) for row in p) == count_labelled(labels)


def test_three_tokens_by_hand() -> None:
    """Two classes, logits (0, ln 3): p(1) = 3/4, p(0) = 1/4. Labels 1, 0 (position 0 unpredicted).

    DFT: 3/4·ln(4/3) + 1/4·ln 4 = 0.56233514; SFT: ln(4/3) + ln 4 = 1.67397643. DFT's terms are also
    those of the entropy of one position, of which there are two.
    """
    logits = torch.tensor([[[0.0, math.log(3.0)]] * 3], dtype=torch.float64)
    labels = torch.tensor([[1, 1, 0]])
    for weight, total in ((parse_weight("token"), 0.5623351446), (UNIT_WEIGHT, 1.6739764335)):
        loss = token_weighted_nll(logits, labels, weight)
        assert loss.total.item() == pytest.approx(total, abs=1e-9)
    rows = token_weighted_nll(logits, labels, UNIT_WEIGHT).rows[0]
    assert rows[STATISTICS.index("token_entropy")].item() == pytest.approx(2 * 0.5623351446)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), spec=st.sampled_from(SPECS), cut=st.integers(1, 2))
def test_micro_batches_add_up(seed: int, spec: str, cut: int) -> None:
    logits, labels = batch(seed)
    weight = parse_weight(spec)
    full = token_weighted_nll(logits, labels, weight)
    slices = (slice(cut), slice(cut, None))
    parts = [token_weighted_nll(logits[s], labels[s], weight) for s in slices]
    assert sum(p.total for p in parts).item() == pytest.approx(full.total.item(), abs=1e-12)
    torch.testing.assert_close(torch.cat([p.rows for p in parts]), full.rows)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), spec=st.sampled_from(SPECS), shift=st.floats(-50, 50))
def test_a_constant_added_to_the_logits_changes_nothing(seed: int, spec: str, shift: float) -> None:
    logits, labels = batch(seed)
    weight = parse_weight(spec)
    rows = token_weighted_nll(logits, labels, weight).rows
    shifted = token_weighted_nll(logits + shift, labels, weight).rows
    torch.testing.assert_close(rows, shifted, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_dft_token_costs_at_most_one_over_e(seed: int) -> None:
    """-p·log p has its maximum 1/e at p = 1/e."""
    logits, labels = batch(seed)
    rows = token_weighted_nll(logits, labels, parse_weight("token")).rows
    objective, tokens = rows[:, 0], rows[:, STATISTICS.index("tokens")]
    assert bool((objective <= tokens / math.e + 1e-12).all())


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_label_the_loss_is_a_differentiable_zero(spec: str, dtype: torch.dtype) -> None:
    logits = torch.full((2, 4, 5), 1e4, dtype=dtype, requires_grad=True)
    labels = torch.full((2, 4), IGNORE_INDEX)
    loss = token_weighted_nll(logits, labels, parse_weight(spec))
    (loss.total / 1).backward()
    assert loss.total.item() == 0.0
    assert logits.grad is not None
    assert not bool(logits.grad.any())
    assert not bool(loss.rows.any())


@pytest.mark.parametrize("spec", SPECS)
def test_a_sequence_is_one_row(spec: str) -> None:
    """Two examples in one batch have the same weights as in two batches."""
    logits, labels = batch(8, rows=2)
    weight = parse_weight(spec)
    batched = token_weighted_nll(logits, labels, weight).rows
    singles = [(logits[i : i + 1], labels[i : i + 1]) for i in (0, 1)]
    single = torch.cat([token_weighted_nll(*single, weight).rows for single in singles])
    torch.testing.assert_close(batched, single)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_are_computed_in_fp32(dtype: torch.dtype) -> None:
    """Against float64 on the same rounded logits; in bf16 the error would be about 1e-2."""
    logits, labels = batch(5, vocabulary=300)
    rounded = logits.to(dtype)
    computed = token_weighted_nll(rounded, labels, parse_weight("token")).rows
    exact = token_weighted_nll(rounded.double(), labels, parse_weight("token")).rows
    assert computed.dtype == torch.float32
    torch.testing.assert_close(computed.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("spec", SPECS)
def test_extreme_logits_stay_finite(size: float, spec: str) -> None:
    logits = torch.zeros(1, 3, 4)
    logits[0, :, 1] = size
    logits.requires_grad_()
    loss = token_weighted_nll(logits, torch.tensor([[0, 1, 2]]), parse_weight(spec))
    loss.total.backward()
    assert bool(torch.isfinite(loss.rows).all())
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_masked_vocabulary_does_not_change_the_entropy() -> None:
    """Two equal logits among -inf: ln 2; one alone: 0."""
    logits = torch.full((1, 3, 5), -math.inf, dtype=torch.float64)
    logits[0, 0, [1, 3]] = 2.0
    logits[0, 1, 4] = 2.0
    rows = token_weighted_nll(logits, torch.tensor([[0, 1, 4]]), UNIT_WEIGHT).rows[0]
    assert rows[STATISTICS.index("token_entropy")].item() == pytest.approx(math.log(2))


def test_no_probability_above_one() -> None:
    logits = torch.randn(4096, 50, generator=torch.Generator().manual_seed(0)) * 30
    logps = per_token_logps(logits, logits.argmax(-1))
    assert bool((logps <= 0).all())


def test_oracles_of_other_projects() -> None:
    """LLaMA-Factory's dft_loss_func and TRL's dft_loss on the same micro-batch."""
    from llamafactory.train.trainer_utils import dft_loss_func
    from trl.trainer.sft_trainer import dft_loss

    logits, labels = batch(4)
    logits, n = logits.float(), count_labelled(labels)
    ours = token_weighted_nll(logits, labels, parse_weight("token")).total / n
    outputs = {"logits": logits}
    labels = labels.clone()
    labels[:, 0] = IGNORE_INDEX
    theirs = dft_loss_func(outputs, labels, n)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)

    holder = SimpleNamespace(logits=logits)
    torch.testing.assert_close(ours, dft_loss(holder, labels, n), rtol=1e-5, atol=1e-7)


def test_shapes_and_weight_names() -> None:
    with pytest.raises(UpstreamContractError, match=r"\(1, 3, 4\).*\(1, 5\)"):
        token_weighted_nll(torch.zeros(1, 3, 4), torch.zeros(1, 5, dtype=torch.long), UNIT_WEIGHT)
    for choice in weight_choices():
        spec = choice.replace(":A", ":0.5").replace(":U", ":0.1").replace(":T", ":0.3")
        assert parse_weight(spec).spec == spec
    assert parse_weight("power:0.50").spec == "power:0.5"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tokens", "Did you mean 'token'"),
        ("power", "power:A"),
        ("power:", "power:A"),
        ("power:-1", "0 or more"),
        ("power:nan", "0 or more"),
        ("power:inf", "0 or more"),
        ("power(0.5)", "Choose from: "),
        ("floor:1.5", "from 0 to 1"),
        ("floor:x", "not 'x'"),
        ("threshold:-0.1", "from 0 to 1"),
        ("token:1", "takes no value"),
        ("", "Choose from: "),
        (0.5, "not a name"),
        (None, "not a name"),
    ],
)
def test_an_unknown_weight_is_refused_by_name(spec: object, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_weight(spec)
    assert repr(spec) in str(error.value)
    assert message in str(error.value)
