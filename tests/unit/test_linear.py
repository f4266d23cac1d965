"""The chunked loss against whole logits in float64: values, gradients, memory, independence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dft_factory.losses import softmax
from dft_factory.losses.linear import linear_token_weighted_nll
from dft_factory.losses.token import per_token_logps
from dft_factory.losses.transform import IDENTITY, LogitTransform
from dft_factory.losses.weights import UNIT_WEIGHT, TokenWeight, parse_weight

SPECS = ("token", "sequence", "geometric_mean", "power:0.5", "floor:0.1", "threshold:0.02")
TRANSFORMS = (IDENTITY, LogitTransform(scale=0.5), LogitTransform(scale=2.0, softcap=5.0))


def inputs(dtype: torch.dtype, n: int = 37, vocabulary: int = 101, size: int = 16) -> Any:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(n, size, generator=generator, dtype=torch.float64)
    weight = torch.randn(vocabulary, size, generator=generator, dtype=torch.float64) * 0.5
    bias = torch.randn(vocabulary, generator=generator, dtype=torch.float64)
    targets = torch.randint(vocabulary, (n,), generator=generator)
    sequence = torch.arange(n) * 4 // n
    leaves = [each.to(dtype).requires_grad_() for each in (hidden, weight, bias)]
    return (*leaves, targets, sequence)


def whole(
    leaves: list[Tensor], targets: Tensor, sequence: Tensor, weight: TokenWeight, t: LogitTransform
) -> Tensor:
    """The plain way: whole logits, autograd."""
    z = (leaves[0] @ leaves[1].t() + leaves[2]) * t.scale
    if t.softcap is not None:
        z = t.softcap * torch.tanh(z / t.softcap)
    logps = per_token_logps(z, targets)
    return -(weight(logps, sequence, 4) * logps).sum()


def relative(found: Tensor | None, expected: Tensor | None) -> float:
    assert found is not None
    assert expected is not None
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("spec", [*SPECS, "one"])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=["identity", "scale", "softcap"])
@pytest.mark.parametrize("chunk", [1, 10, 37, 1000])
def test_equals_whole_logits(
    spec: str, transform: LogitTransform, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any chunk, any tile, with a bias: value and all three gradients, scaled as backward asks."""
    monkeypatch.setattr(softmax, "TILE_BYTES", 4 * 101 * 3)
    weight = UNIT_WEIGHT if spec == "one" else parse_weight(spec)
    *mine, targets, sequence = inputs(torch.float64)
    *theirs, _, _ = inputs(torch.float64)
    found = linear_token_weighted_nll(
        mine[0],
        mine[1],
        targets,
        sequence,
        4,
        weight,
        bias=mine[2],
        transform=transform,
        chunk=chunk,
    )
    expected = whole(theirs, targets, sequence, weight, transform)
    (found.total / 7).backward()
    (expected / 7).backward()
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(mine, theirs, strict=True):
        assert relative(a.grad, b.grad) <= 1e-12


@pytest.mark.parametrize("spec", ["token", "geometric_mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_less_exact_than_whole_logits(spec: str, dtype: torch.dtype) -> None:
    """Against float64 on the same rounded numbers; the bound is the plain way's own error."""
    weight = parse_weight(spec)
    *mine, targets, sequence = inputs(dtype)
    plain = [each.detach().clone().requires_grad_() for each in mine]
    exact = [each.detach().double().requires_grad_() for each in mine]
    linear_token_weighted_nll(
        mine[0], mine[1], targets, sequence, 4, weight, bias=mine[2], chunk=16
    ).total.backward()
    whole(plain, targets, sequence, weight, IDENTITY).backward()
    whole(exact, targets, sequence, weight, IDENTITY).backward()
    for a, b, c in zip(mine, plain, exact, strict=True):
        assert relative(a.grad, c.grad) <= (
            5e-6 if dtype == torch.float32 else 1.5 * relative(b.grad, c.grad)
        )


@pytest.mark.parametrize("frozen", ["head", "hidden"])
def test_a_frozen_part_gets_no_gradient(frozen: str) -> None:
    hidden, weight, _, targets, sequence = inputs(torch.float64)
    (weight if frozen == "head" else hidden).requires_grad_(False)
    linear_token_weighted_nll(
        hidden, weight, targets, sequence, 4, parse_weight("token")
    ).total.backward()
    assert (weight.grad is None) == (frozen == "head")
    assert (hidden.grad is None) == (frozen == "hidden")


def test_no_token_is_a_differentiable_zero() -> None:
    hidden, weight, bias, targets, sequence = inputs(torch.float32)
    loss = linear_token_weighted_nll(
        hidden[:0], weight, targets[:0], sequence[:0], 4, parse_weight("sequence"), bias=bias
    )
    loss.total.backward()
    assert loss.total.item() == 0.0
    for each in (hidden, weight, bias):
        assert each.grad is not None
        assert not bool(each.grad.any())


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("spec", SPECS)
def test_extreme_logits_stay_finite(size: float, spec: str) -> None:
    hidden = torch.full((3, 1), 1.0, requires_grad=True)
    weight = torch.tensor([[0.0], [size], [1.0]], requires_grad=True)
    loss = linear_token_weighted_nll(
        hidden, weight, torch.tensor([0, 1, 2]), torch.zeros(3).long(), 1, parse_weight(spec)
    )
    loss.total.backward()
    assert bool(torch.isfinite(loss.logps).all())
    for each in (hidden, weight):
        assert each.grad is not None
        assert bool(torch.isfinite(each.grad).all())


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("spec", ["token", "sequence"])
def test_nothing_as_large_as_the_logits_is_allocated(spec: str, grad: bool) -> None:
    """Bytes that torch allocates at once, counted by a dispatch mode: never n x V."""
    from torch.utils._python_dispatch import TorchDispatchMode

    n, vocabulary, chunk = 512, 2000, 32
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for each in out if isinstance(out, tuple | list) else (out,):
                if isinstance(each, Tensor):
                    largest = max(largest, each.numel())
            return out

    hidden, weight, _, targets, sequence = inputs(torch.float32, n, vocabulary)
    with Watch(), torch.set_grad_enabled(grad):
        loss = linear_token_weighted_nll(
            hidden, weight, targets, sequence, 4, parse_weight(spec), chunk=chunk
        )
        if grad:
            loss.total.backward()
    assert largest <= chunk * vocabulary < n * vocabulary
