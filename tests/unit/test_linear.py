"""The chunked loss against full logits in float64: values, gradients, memory, independence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dft_factory.losses import product, softmax
from dft_factory.losses.linear import linear_token_weighted_nll
from dft_factory.losses.token import per_token_logps
from dft_factory.losses.transform import IDENTITY, LogitTransform
from dft_factory.losses.weights import UNIT_WEIGHT, TokenWeight, parse_weight

SPECS = ("token", "sequence", "geometric_mean", "power:0.5", "floor:0.1", "threshold:0.02")
TRANSFORMS = (IDENTITY, LogitTransform(scale=0.5), LogitTransform(scale=2.0, softcap=5.0))


def inputs(dtype: torch.dtype, n: int = 37, vocabulary: int = 101, size: int = 16) -> Any:
    """Hidden states, head, bias; then positions, targets, sequence of n labelled tokens among N."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(n + n // 8, size, generator=generator, dtype=torch.float64)
    positions = torch.arange(n) + torch.arange(n) // 9
    weight = torch.randn(vocabulary, size, generator=generator, dtype=torch.float64) * 0.5
    bias = torch.randn(vocabulary, generator=generator, dtype=torch.float64)
    targets = torch.randint(vocabulary, (n,), generator=generator)
    sequence = torch.arange(n) * 4 // n
    leaves = [leaf.to(dtype).requires_grad_() for leaf in (hidden, weight, bias)]
    return (*leaves, positions, targets, sequence)


def full_logits_loss(
    leaves: list[Tensor], labelled: list[Tensor], weight: TokenWeight, t: LogitTransform
) -> Tensor:
    """Full logits and autograd."""
    positions, targets, sequence = labelled
    z = (leaves[0][positions] @ leaves[1].t() + leaves[2]) * t.scale
    if t.softcap is not None:
        z = t.softcap * torch.tanh(z / t.softcap)
    logps = per_token_logps(z, targets)
    return -(weight(logps, sequence, 4) * logps).sum()


def relative(result: Tensor | None, expected: Tensor | None) -> float:
    assert result is not None
    assert expected is not None
    return float((result.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("spec", [*SPECS, "one"])
@pytest.mark.parametrize("transform", TRANSFORMS, ids=["identity", "scale", "softcap"])
@pytest.mark.parametrize("chunk", [1, 10, 37, 1000])
def test_chunks_equal_full_logits(
    spec: str, transform: LogitTransform, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any chunk and tile, with a bias: value and all three gradients, scaled by backward."""
    monkeypatch.setattr(softmax, "TILE_BYTES", 4 * 101 * 3)
    weight = UNIT_WEIGHT if spec == "one" else parse_weight(spec)
    *mine, positions, targets, sequence = inputs(torch.float64)
    labelled = [positions, targets, sequence]
    theirs = inputs(torch.float64)[:3]
    options: Any = {"bias": mine[2], "transform": transform, "chunk": chunk}
    result = linear_token_weighted_nll(mine[0], mine[1], *labelled, 4, weight, **options)
    expected = full_logits_loss(theirs, labelled, weight, transform)
    (result.total / 7).backward()
    (expected / 7).backward()
    assert result.total.item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(mine, theirs, strict=True):
        assert relative(a.grad, b.grad) <= 1e-12
    logits = transform.apply_(mine[0][positions] @ mine[1].t() + mine[2])
    entropies = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(result.entropies, entropies, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("spec", ["token", "geometric_mean"])
@pytest.mark.parametrize(
    ("dtype", "emulated"),
    [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)],
    ids=["float32", "bfloat16", "bfloat16 in blocks"],
)
def test_no_less_exact_than_full_logits(
    spec: str, dtype: torch.dtype, emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float64 on the same rounded numbers; the bound is the error of full logits."""
    monkeypatch.setattr(product, "emulates", lambda _: emulated)
    monkeypatch.setattr(product, "BLOCK", 30)
    weight = parse_weight(spec)
    *mine, positions, targets, sequence = inputs(dtype)
    labelled = [positions, targets, sequence]
    plain = [leaf.detach().clone().requires_grad_() for leaf in mine]
    exact = [leaf.detach().double().requires_grad_() for leaf in mine]
    linear_token_weighted_nll(
        mine[0], mine[1], *labelled, 4, weight, bias=mine[2], chunk=16
    ).total.backward()
    full_logits_loss(plain, labelled, weight, IDENTITY).backward()
    full_logits_loss(exact, labelled, weight, IDENTITY).backward()
    for a, b, c in zip(mine, plain, exact, strict=True):
        bound = 5e-6 if dtype == torch.float32 else 1.5 * relative(b.grad, c.grad)
        assert relative(a.grad, c.grad) <= bound


SHAPES = {"columns": (3, 7, 50), "inner": (3, 50, 7), "rows": (50, 3, 7), "square": (8, 8, 8)}


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_products_in_blocks(
    shape: tuple[int, int, int], transposed: bool, add: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bf16 in blocks that divide no side: the exact product, rounded to bf16 once."""
    monkeypatch.setattr(product, "emulates", lambda _: True)
    monkeypatch.setattr(product, "BLOCK", 3)
    m, k, n = shape
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(m, k, generator=generator).bfloat16()
    right = torch.randn(k, n, generator=generator).bfloat16()
    out = torch.randn(m, n, generator=generator).bfloat16()
    expected = (left.double() @ right.double() + (out.double() if add else 0)).bfloat16()
    if transposed:  # as the head and the gradient of its logits are
        left, right = left.t().contiguous().t(), right.t().contiguous().t()
    multiply_ = product.Multiplier()
    multiply_(torch.empty_like(out).fill_(float("nan")), left, right)
    result = multiply_(out, left, right, add=add)
    assert result.data_ptr() == out.data_ptr()
    # Where fp32 and float64 lie on two sides of a tie, one step of bf16.
    torch.testing.assert_close(result, expected, rtol=2**-7, atol=1e-6)
    assert float((result != expected).float().mean()) <= 0.02


@pytest.mark.parametrize("frozen", ["head", "hidden"])
def test_a_frozen_part_gets_no_gradient(frozen: str) -> None:
    hidden, weight, _, *labelled = inputs(torch.float64)
    (weight if frozen == "head" else hidden).requires_grad_(False)
    linear_token_weighted_nll(hidden, weight, *labelled, 4, parse_weight("token")).total.backward()
    assert (weight.grad is None) == (frozen == "head")
    assert (hidden.grad is None) == (frozen == "hidden")


def test_no_token_is_a_differentiable_zero() -> None:
    hidden, weight, bias, *labelled = inputs(torch.float32)
    no_tokens = [tensor[:0] for tensor in labelled]
    loss = linear_token_weighted_nll(
        hidden, weight, *no_tokens, 4, parse_weight("sequence"), bias=bias
    )
    loss.total.backward()
    assert loss.total.item() == 0.0
    for leaf in (hidden, weight, bias):
        assert leaf.grad is not None
        assert not bool(leaf.grad.any())


@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("spec", SPECS)
def test_extreme_logits_stay_finite(size: float, spec: str) -> None:
    hidden = torch.full((3, 1), 1.0, requires_grad=True)
    weight = torch.tensor([[0.0], [size], [1.0]], requires_grad=True)
    positions, sequence = torch.arange(3), torch.zeros(3).long()
    loss = linear_token_weighted_nll(
        hidden, weight, positions, positions, sequence, 1, parse_weight(spec)
    )
    loss.total.backward()
    assert bool(torch.isfinite(loss.logps).all())
    for leaf in (hidden, weight):
        assert leaf.grad is not None
        assert bool(torch.isfinite(leaf.grad).all())


class Watch(TorchDispatchMode):
    """Passes each operation and its result to ``see``."""

    def __init__(self, see: Callable[[Any, Any], None]) -> None:
        super().__init__()
        self.see = see

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.see(func, out)
        return out


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("spec", ["token", "sequence"])
@pytest.mark.parametrize("emulated", [False, True], ids=["float32", "bfloat16 in blocks"])
def test_no_tensor_is_as_large_as_the_logits(
    spec: str, grad: bool, emulated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest tensor, by a dispatch mode, is never n x V; in blocks, which convert parts of the
    head to fp32, never as large as the head."""
    monkeypatch.setattr(product, "emulates", lambda _: emulated)
    monkeypatch.setattr(product, "BLOCK", 100)
    monkeypatch.setattr(softmax, "TILE_BYTES", 4 * 2000)  # one row
    n, vocabulary, chunk = 512, 2000, 32
    largest = copied = 0

    def see(_: Any, out: Any) -> None:
        nonlocal largest, copied
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                largest = max(largest, tensor.numel())
                if tensor.dtype == torch.float32:
                    copied = max(copied, tensor.numel())

    dtype = torch.bfloat16 if emulated else torch.float32
    hidden, weight, _, *labelled = inputs(dtype, n, vocabulary)
    with Watch(see), torch.set_grad_enabled(grad):
        loss = linear_token_weighted_nll(
            hidden, weight, *labelled, 4, parse_weight(spec), chunk=chunk
        )
        if grad:
            loss.total.backward()
    assert largest <= chunk * vocabulary < n * vocabulary
    if emulated:
        assert 0 < copied < weight.numel()


@pytest.mark.parametrize("spec", ["one", "token", "sequence"])
@pytest.mark.parametrize("no_grad", [torch.no_grad, torch.inference_mode])
def test_evaluation_computes_no_gradient(spec: str, no_grad: Any) -> None:
    """One matrix product per chunk, no tensor of the head's shape, the values of training."""
    weight = UNIT_WEIGHT if spec == "one" else parse_weight(spec)
    hidden, head, bias, *labelled = inputs(torch.float32, n=64)
    chunks, products, head_shaped = 8, 0, set[int]()

    def see(func: Any, out: Any) -> None:
        nonlocal products
        products += func.overloadpacket.__name__.rstrip("_") in ("mm", "addmm")
        if isinstance(out, Tensor) and out.shape == head.shape:
            head_shaped.add(out.data_ptr())

    def run() -> tuple[Tensor, Tensor, Tensor]:
        nonlocal products
        products = 0
        head_shaped.clear()
        loss = linear_token_weighted_nll(hidden, head, *labelled, 4, weight, bias=bias, chunk=8)
        return loss.total, loss.logps, loss.weights

    with Watch(see):
        expected = run()
        assert (products, len(head_shaped)) == ((4 if spec == "sequence" else 3) * chunks, 1)
        with no_grad():
            values = run()
        assert (products, len(head_shaped)) == (chunks, 0)
    assert not values[0].requires_grad
    for a, b in zip(values, expected, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-6, atol=0)
