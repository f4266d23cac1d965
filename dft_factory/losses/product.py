"""The loss head's matrix products; in blocks of fp32 where a processor would emulate bf16.

An x86 processor without AVX512_BF16 or AMX multiplies bf16 at about a quarter of fp32's speed, and
oneDNN copies the whole head to fp32 for it. There a block at a time is brought to fp32 and
multiplied: as exact (sums are fp32, as bf16 hardware's are), faster, and without the copy.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

BLOCK = 512
"""Rows of the head brought to fp32 at once: 4 MiB at H 2048."""


@cache
def _processor_emulates_bf16() -> bool:
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    # Underscores, but torch's only answer to the question.
    return not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def emulates(tensor: Tensor) -> bool:
    """Whether products of such a tensor would be emulated, at a fraction of fp32's speed."""
    return (
        tensor.dtype == torch.bfloat16
        and tensor.device.type == "cpu"
        and _processor_emulates_bf16()
    )


class Multiplier:
    """Multiplies matrices in place; keeps the fp32 room that blocks need from one time to the next.

    Allocated anew each time, it would leave gaps on a CPU's heap.
    """

    def __init__(self) -> None:
        self._room = torch.empty(0, dtype=torch.float32)

    def __call__(self, out: Tensor, left: Tensor, right: Tensor, *, add: bool = False) -> Tensor:
        """``out``, overwritten with ``left @ right``, or with ``out + left @ right``.

        Args:
            out: (m, n); ``left``: (m, k); ``right``: (k, n); all of one dtype.
            add: add to what ``out`` holds.
        """
        if emulates(out):
            return self._in_blocks_(out, left, right, add)
        return out.addmm_(left, right) if add else torch.mm(left, right, out=out)

    def _in_blocks_(self, out: Tensor, left: Tensor, right: Tensor, add: bool) -> Tensor:
        """The same with fp32 copies of blocks along the longest side, the vocabulary's."""
        (m, k), n = left.shape, right.shape[1]
        beta = int(add)  # at 0, addmm ignores what its first operand holds
        if k > max(m, n):
            room, lefts, rights = self._rooms(m * n, m * BLOCK, BLOCK * n)
            total = _fp32(room, out)
            if not add:
                total.zero_()
            for part in _blocks(k):
                total.addmm_(_fp32(lefts, left[:, part]), _fp32(rights, right[part]))
            return out.copy_(total)
        if n > m:
            room, rights, outs = self._rooms(m * k, k * BLOCK, m * BLOCK)
            held = _fp32(room, left)
            for part in _blocks(n):
                block = _fp32(outs, out[:, part])
                out[:, part] = block.addmm_(held, _fp32(rights, right[:, part]), beta=beta)
            return out
        room, lefts, outs = self._rooms(k * n, BLOCK * k, BLOCK * n)
        held = _fp32(room, right)
        for part in _blocks(m):
            block = _fp32(outs, out[part])
            out[part] = block.addmm_(_fp32(lefts, left[part]), held, beta=beta)
        return out

    def _rooms(self, *sizes: int) -> tuple[Tensor, ...]:
        if self._room.numel() < sum(sizes):
            self._room = torch.empty(sum(sizes), dtype=torch.float32)
        return torch.split(self._room[: sum(sizes)], list(sizes))


def _fp32(room: Tensor, block: Tensor) -> Tensor:
    """A copy of ``block``, its rows or its columns together as they are in ``block``."""
    m, n = block.shape
    flat = room[: m * n]
    return (flat.view(m, n) if block.stride(1) == 1 else flat.view(n, m).t()).copy_(block)


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, size, BLOCK))
