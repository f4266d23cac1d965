"""``chunked_dft_loss``: the loss as one function, against its definition written in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dft_factory.errors import ConfigError
from dft_factory.losses import UNIT_WEIGHT, chunked_dft_loss, token_weighted_nll
from dft_factory.trainer import dft_loss_func


def leaves() -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states (2, 7, 5), head (11, 5), labels (2, 7) of which 8 are predicted."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    head = torch.randn(11, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(11, (2, 7), generator=generator)
    labels[0, :4] = labels[1, 3] = -100
    return hidden, head, labels


def definition(hidden: Tensor, head: Tensor, labels: Tensor, dft: bool) -> Tensor:
    """Token by token: -sg(p)·log p of every label that some position predicts."""
    total = hidden.new_zeros(())
    for row in range(2):
        for position in range(1, 7):
            if (label := int(labels[row, position])) != -100:
                p = (head @ hidden[row, position - 1]).softmax(-1)[label]
                total = total - (p.item() if dft else 1.0) * p.log()
    return total


@pytest.mark.parametrize("dft", [True, False])
@pytest.mark.parametrize("count", [None, 20, torch.tensor(20)])
def test_value_and_gradients(dft: bool, count: int | Tensor | None) -> None:
    hidden, head, labels = leaves()
    n = 8 if count is None else 20
    expected = definition(hidden, head, labels, dft) / n
    gradients = torch.autograd.grad(expected, (hidden, head))
    loss = chunked_dft_loss(hidden, head, labels, "token" if dft else UNIT_WEIGHT, count, chunk=3)
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(torch.autograd.grad(loss, (hidden, head)), gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_nothing_labelled_is_a_differentiable_zero() -> None:
    hidden, head, labels = leaves()
    loss = chunked_dft_loss(hidden, head, torch.full_like(labels, -100))
    assert loss.item() == 0
    assert all(not g.any() for g in torch.autograd.grad(loss, (hidden, head)))


def test_second_derivatives_are_refused() -> None:
    """They would be wrong in silence: the gradients are computed in the forward pass."""
    hidden, head, labels = leaves()
    loss = chunked_dft_loss(hidden, head, labels)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(loss, hidden, create_graph=True)


def test_under_compile() -> None:
    hidden, head, labels = leaves()

    def step(states: Tensor) -> Tensor:
        return chunked_dft_loss(states * 2, head, labels)

    expected = torch.autograd.grad(step(hidden), (hidden, head))
    compiled = torch.compile(step, backend="aot_eager")
    for ours, theirs in zip(
        torch.autograd.grad(compiled(hidden), (hidden, head)), expected, strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_bad_input() -> None:
    hidden, head, labels = leaves()
    with pytest.raises(ValueError, match=r"labels \(2, 6\): expected \(B, T, H\) and \(B, T\)"):
        chunked_dft_loss(hidden, head, labels[:, 1:])
    with pytest.raises(ValueError, match=r"lm_head_weight \(5, 11\) does not fit"):
        chunked_dft_loss(hidden, head.t(), labels)
    with pytest.raises(ConfigError, match="Choose from: token"):
        chunked_dft_loss(hidden, head, labels, "tokens")
    with pytest.raises(ConfigError, match="Choose from: token"):
        chunked_dft_loss(hidden, head, labels, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"bias \(1,\) does not fit lm_head_weight \(11, 5\)"):
        chunked_dft_loss(hidden, head, labels, bias=torch.zeros(1))


@pytest.mark.parametrize("label", [11, -1])
def test_labels_that_are_no_tokens_are_refused(label: int) -> None:
    """The GPU kernels would take the logit of another row."""
    hidden, head, labels = leaves()
    labels[1, 5] = label
    message = rf"labels: {label} is not a token id of the model, which has 11 \(0 to 10\)"
    with pytest.raises(ConfigError, match=message):
        chunked_dft_loss(hidden, head, labels)
    with pytest.raises(ConfigError, match=message):
        token_weighted_nll(hidden @ head.t(), labels, UNIT_WEIGHT)


@pytest.mark.parametrize("count", [0, -3, float("nan"), torch.tensor(0), torch.tensor([4, 4])])
def test_counts_that_no_batch_has_are_refused(count: float | Tensor) -> None:
    """A negative count would train away from the labels, 0 would make the weights NaN."""
    hidden, head, labels = leaves()
    with pytest.raises(ConfigError, match="num_items_in_batch"):
        chunked_dft_loss(hidden, head, labels, num_items_in_batch=count)
    with pytest.raises(ConfigError, match="num_items_in_batch"):
        dft_loss_func()({"logits": hidden @ head.t()}, labels, count)


def test_a_whole_batch_without_labels_trains_nothing() -> None:
    """transformers then counts 0 items; 0 / 0 would make the weights NaN."""
    hidden, head, labels = leaves()
    nothing = torch.full_like(labels, -100)
    for loss in (
        chunked_dft_loss(hidden, head, nothing, num_items_in_batch=torch.tensor(0)),
        dft_loss_func()({"logits": hidden @ head.t()}, nothing, torch.tensor(0)),
    ):
        assert loss.item() == 0
        assert all(not g.any() for g in torch.autograd.grad(loss, (hidden, head)))


def test_a_count_of_one_element_gives_a_scalar() -> None:
    hidden, head, labels = leaves()
    assert chunked_dft_loss(hidden, head, labels, num_items_in_batch=torch.tensor([8])).shape == ()
