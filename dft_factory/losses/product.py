"""The loss head's matrix products, in fp32 blocks on processors that emulate bf16.

An x86 processor without AVX512_BF16 or AMX multiplies bf16 at about a quarter of fp32's speed, and
oneDNN copies the whole head to fp32. Converting and multiplying one block at a time has the same
precision (bf16 hardware sums in fp32 too), is faster, and needs no copy of the head.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

BLOCK = 512
"""Rows of the head converted to fp32 at once: 4 MiB at H 2048."""


@cache
def _processor_emulates_bf16() -> bool:
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    # Private, but torch has no public equivalent.
    return not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def emulates(tensor: Tensor) -> bool:
    """Whether this machine emulates products of such tensors, at a fraction of fp32's speed."""
    return (
        tensor.dtype == torch.bfloat16
        and tensor.device.type == "cpu"
        and _processor_emulates_bf16()
    )


class Multiplier:
    """Multiplies matrices in place and reuses one fp32 buffer for the blocks.

    One allocation per product would fragment a CPU's heap.
    """

    def __init__(self) -> None:
        self._buffer = torch.empty(0, dtype=torch.float32)

    def __call__(self, out: Tensor, left: Tensor, right: Tensor, *, add: bool = False) -> Tensor:
        """``out``, overwritten with ``left @ right``, or with ``out + left @ right``.

        Args:
            out: (m, n); ``left``: (m, k); ``right``: (k, n); all of one dtype.
            add: accumulate into ``out``.
        """
        if emulates(out):
            return self._in_blocks_(out, left, right, add)
        return out.addmm_(left, right) if add else torch.mm(left, right, out=out)

    def _in_blocks_(self, out: Tensor, left: Tensor, right: Tensor, add: bool) -> Tensor:
        """The same in fp32 blocks along the longest side, which is the vocabulary's."""
        (m, k), n = left.shape, right.shape[1]
        beta = int(add)  # with 0, addmm ignores its first operand
        if k > max(m, n):
            out32, left32, right32 = self._scratch(m * n, m * BLOCK, BLOCK * n)
            total = _copy_fp32(out32, out)
            if not add:
                total.zero_()
            for part in _blocks(k):
                total.addmm_(_copy_fp32(left32, left[:, part]), _copy_fp32(right32, right[part]))
            return out.copy_(total)
        if n > m:
            left32, right32, out32 = self._scratch(m * k, k * BLOCK, m * BLOCK)
            whole = _copy_fp32(left32, left)
            for part in _blocks(n):
                block = _copy_fp32(out32, out[:, part])
                out[:, part] = block.addmm_(whole, _copy_fp32(right32, right[:, part]), beta=beta)
            return out
        right32, left32, out32 = self._scratch(k * n, BLOCK * k, BLOCK * n)
        whole = _copy_fp32(right32, right)
        for part in _blocks(m):
            block = _copy_fp32(out32, out[part])
            out[part] = block.addmm_(_copy_fp32(left32, left[part]), whole, beta=beta)
        return out

    def _scratch(self, *sizes: int) -> tuple[Tensor, ...]:
        if self._buffer.numel() < sum(sizes):
            self._buffer = torch.empty(sum(sizes), dtype=torch.float32)
        return torch.split(self._buffer[: sum(sizes)], list(sizes))


def _copy_fp32(buffer: Tensor, block: Tensor) -> Tensor:
    """``block`` copied into ``buffer`` in its own memory order (rows or columns contiguous)."""
    m, n = block.shape
    flat = buffer[: m * n]
    return (flat.view(m, n) if block.stride(1) == 1 else flat.view(n, m).t()).copy_(block)


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, size, BLOCK))
