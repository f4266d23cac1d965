"""The GPU kernels, run by Triton's interpreter, against the torch way on the same chunk.

Collected only where TRITON_INTERPRET=1, which has to be set before Triton is imported:
``tests/unit/test_triton.py`` runs this folder in a process of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dft_factory.losses import softmax
from dft_factory.losses.softmax import plain_torch_reason, softmax_rows_
from dft_factory.losses.transform import IDENTITY, LogitTransform

TRANSFORMS = (IDENTITY, LogitTransform(scale=0.5), LogitTransform(scale=2.0, softcap=5.0))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The kernels' module, with rows of several blocks."""
    from dft_factory.losses import triton_softmax

    monkeypatch.setattr(triton_softmax, "BLOCK", 64)
    for dtype in DTYPES:  # their trial launch comes here, and not in a test that counts launches
        assert plain_torch_reason(torch.device("cpu"), dtype) is None
    return triton_softmax


def chunk(dtype: torch.dtype, spread: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = (torch.randn(5, 150, generator=generator) * spread).to(dtype)
    targets = torch.tensor([0, 63, 64, 149, 77])
    return logits, targets, torch.rand(5, generator=generator)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transform", TRANSFORMS, ids=["identity", "scale", "softcap"])
def test_kernels_do_what_torch_does(
    interpreted: Any,
    dtype: torch.dtype,
    transform: LogitTransform,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logits, targets, weights = chunk(dtype)
    kernel, plain, kept = logits.clone(), logits.clone(), logits.clone()
    calls = []
    launched = interpreted.gradient_

    def counted(*args: Any) -> None:
        calls.append(1)
        launched(*args)

    monkeypatch.setattr(interpreted, "gradient_", counted)
    found = softmax_rows_(kernel, targets, transform, lambda logps, place: weights[place])
    assert calls == [1]
    monkeypatch.setenv(softmax.SWITCH, "0")
    expected = softmax_rows_(plain, targets, transform, lambda logps, place: weights[place])
    assert calls == [1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # and the entropies
    # One rounding of the dtype, at most, lies between two ways to the same fp32 number.
    torch.testing.assert_close(
        kernel, plain, rtol=2 * torch.finfo(dtype).eps + 1e-6, atol=torch.finfo(dtype).tiny + 1e-7
    )
    assert not torch.equal(kernel, kept)


def test_log_probabilities_alone_leave_the_logits(interpreted: Any) -> None:
    logits, targets, _ = chunk(torch.bfloat16)
    kept = logits.clone()
    found = softmax_rows_(logits, targets, IDENTITY, None)
    whole = torch.distributions.Categorical(logits=kept.double())
    expected = whole.log_prob(targets), whole.entropy()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, check_dtype=False)
    assert torch.equal(logits, kept)


def test_rows_of_a_larger_buffer(interpreted: Any) -> None:
    """Only the rows handed in are written."""
    buffer = torch.randn(8, 150)
    kept = buffer.clone()
    logits, targets, weights = chunk(torch.float32)
    buffer[:5] = logits
    softmax_rows_(buffer[:5], targets, IDENTITY, lambda logps, place: weights[place])
    assert torch.equal(buffer[5:], kept[5:])
    torch.testing.assert_close(buffer[:5].sum(-1), torch.zeros(5), rtol=0, atol=1e-5)


def test_extreme_and_masked_logits(interpreted: Any) -> None:
    logits = torch.tensor([[0.0, 1e4, -1e4], [0.0, 1e4, -1e4], [-1e4, -1e4, -1e4]])
    targets = torch.tensor([1, 2, 0])
    logps, entropies = softmax_rows_(logits, targets, IDENTITY, lambda logps, place: logps.exp())
    assert logps.tolist() == pytest.approx([0.0, -2e4, -1.0986123])
    assert entropies.tolist() == pytest.approx([0.0, 0.0, 1.0986123])
    assert bool(torch.isfinite(logits).all())
    # Logits of -inf have no part in the entropy; the running sum follows a maximum that rises.
    size = interpreted.BLOCK * 2 + 10
    logits = torch.full((2, size), -float("inf"))
    logits[0, [0, 1]] = 1.0
    logits[1, [0, interpreted.BLOCK, size - 1]] = torch.tensor([0.0, 5.0, 5.0])
    _, entropies = softmax_rows_(logits, torch.tensor([0, 0]), IDENTITY, None)
    expected = torch.distributions.Categorical(probs=logits.double().softmax(-1)).entropy()
    torch.testing.assert_close(entropies.double(), expected, rtol=1e-5, atol=1e-6)


def test_nan_stays_nan(interpreted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's min and max drop a NaN, as here; numpy's, which the interpreter takes, keep it."""
    from triton.runtime.interpreter import InterpreterBuilder

    for name, operation in (("create_minnumf", np.fmin), ("create_maxnumf", np.fmax)):

        def like_a_gpu(self: Any, lhs: Any, rhs: Any, operation: Any = operation) -> Any:
            return self.binary_op(lhs, rhs, operation)

        monkeypatch.setattr(InterpreterBuilder, name, like_a_gpu)
    logits = torch.randn(4, 150, generator=torch.Generator().manual_seed(0))
    logits[0] = torch.nan  # hidden states that are NaN
    logits[1, 80] = torch.nan
    logits[2, 80] = torch.inf
    logps, entropies = softmax_rows_(logits, torch.tensor([0, 1, 2, 3]), IDENTITY, None)
    assert logps.isnan().tolist() == entropies.isnan().tolist() == [True, True, True, False]
