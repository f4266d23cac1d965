"""What makes a model of transformers generate faster here, and moves its logits by rounding alone.

Two things: attention of grouped heads (``hf_cache``), and on a CPU linear layers whose input has
few rows, as a batched decoding step's has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

from dft_eval.errors import EvaluationError
from dft_eval.generation.hf_cache import GROUPED, register_grouped

FEW_ROWS = range(8, 49)
"""Rows for which MKL's product of fp32 is faster with the sides exchanged: with few rows it is
bound by the second factor's layout. A decoding step of SmolLM2 was 1.05 to 1.7 times as fast
(AVX-512)."""


@contextmanager
def memory_errors(batch_size: int) -> Iterator[None]:
    """Turn an allocator's error into one message.

    Raises:
        EvaluationError: out of memory, on the GPU or the CPU.
    """
    import torch

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(
            error
        ):
            raise
        raise EvaluationError(
            f"Out of memory with --batch-size {batch_size}: {str(error).splitlines()[0]} The "
            "completions made so far are kept: run the same command with a smaller --batch-size, "
            "such as "
            f"{max(1, batch_size // 2)}, or with --dtype bfloat16."
        ) from error


def prepare(model: Any) -> None:
    """Call it where the model has its device and dtype, before an adapter is put on it."""
    import torch

    if model.config._attn_implementation == "sdpa":
        register_grouped()
        model.set_attn_implementation(GROUPED)
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return
    layers: list[Any] = [module for module in model.modules() if type(module) is torch.nn.Linear]
    for layer in layers:
        if hasattr(layer, "_hf_hook"):  # accelerate's forward, which brings weights and inputs
            continue
        if layer.weight.is_cpu and layer.weight.dtype == torch.float32:
            layer.forward = MethodType(linear, layer)


def linear(layer: Any, rows: Any) -> Any:
    """``layer``, a ``torch.nn.Linear``, of rows (..., K): (..., N)."""
    import torch

    count = rows.numel() // rows.shape[-1]
    if count not in FEW_ROWS:
        return torch.nn.functional.linear(rows, layer.weight, layer.bias)
    columns = rows.reshape(count, -1).t()
    if layer.bias is None:
        product = torch.mm(layer.weight, columns)
    else:
        product = torch.addmm(layer.bias[:, None], layer.weight, columns)
    return product.t().contiguous().view(*rows.shape[:-1], -1)
