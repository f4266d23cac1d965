"""Memory of tensors that are never allocated: sizes by kind, and their peak over a run.

Floating-point tensors are torch's fake tensors (shape, dtype and strides, no data). Integers and
booleans are real, because models decide by them: the picture grid, the padding mask, the labelled
positions.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WEIGHTS, GRADIENTS, OPTIMIZER = "weights", "gradients", "optimizer"
ACTIVATIONS, LOGITS, PICTURES = "activations", "logits", "pictures"

KindOf = Callable[[Tensor], str]


def storages(tensors: Iterable[Any]) -> list[torch.UntypedStorage]:
    """Storages of the tensors among ``tensors``."""
    return [tensor.untyped_storage() for tensor in tensors if isinstance(tensor, Tensor)]


class MemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside it every new floating-point tensor is fake, and all live storages are counted.

    Args:
        kind_of: kind of a new tensor of no other kind (see :meth:`label`).
        without: kinds that the peak leaves out.
        block: allocations are rounded up to a multiple of this many bytes.

    Attributes:
        live: bytes of each kind now; ``largest``: the most so far.
        peak: largest sum so far, in bytes; ``at_peak``: its parts.
    """

    def __init__(self, kind_of: KindOf, *, without: Collection[str] = (), block: int = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._kind_of, self._without, self._block = kind_of, without, block
        self._storages: dict[int, tuple[int, str]] = {}
        self.live: Counter[str] = Counter()
        self.largest: Counter[str] = Counter()
        self.peak, self.at_peak = 0, dict[str, int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if any(isinstance(tensor, FakeTensor) for tensor in tensors):
            if func in _COMPARISONS:
                return True
            if func is torch.ops.aten._local_scalar_dense.default:
                return _one(args[0])
            if func in _INDEXING:
                args = (args[0], self._numbered(args[1]), *args[2:])
            with self._fake:
                out = func(*args, **kwargs)
        elif tensors:
            out = func(*args, **kwargs)
        else:
            with self._fake:
                out = func(*args, **kwargs)
            if not any(
                isinstance(x, Tensor) and x.is_floating_point() and x.dim()
                for x in tree_leaves(out)
            ):
                out = func(*args, **kwargs)
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return out

    def _numbered(self, indices: Iterable[Tensor | None]) -> list[Tensor | None]:
        """Positions in the place of masks, as torch's kernels make them; fake ones cannot."""
        numbered: list[Tensor | None] = []
        for index in indices:
            if index is None or isinstance(index, FakeTensor) or index.dtype != torch.bool:
                numbered.append(index)
            else:
                positions = index.nonzero()
                self._add(positions)
                numbered += positions.unbind(1)
        return numbered

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        n_bytes = -(-storage.nbytes() // self._block) * self._block
        kind = self._kind_of(tensor)
        self._storages[key] = (n_bytes, kind)
        self.live[kind] += n_bytes
        weakref.finalize(storage, self._free, key).atexit = False
        self._note_peak(kind)

    def _free(self, key: int) -> None:
        n_bytes, kind = self._storages.pop(key)
        self.live[kind] -= n_bytes

    def label(self, kind: str, tensors: Iterable[Any]) -> None:
        """Count the storages of ``tensors`` as ``kind`` from now on."""
        for storage in storages(tensors):
            entry = self._storages.get(storage._cdata)
            if entry is not None and entry[1] != kind:
                n_bytes, before = entry
                self.live[before] -= n_bytes
                self.live[kind] += n_bytes
                self._note_peak(kind)
                self._storages[storage._cdata] = (n_bytes, kind)

    def _note_peak(self, kind: str) -> None:
        self.largest[kind] = max(self.largest[kind], self.live[kind])
        parts = {kind: n for kind, n in self.live.items() if kind not in self._without}
        total = sum(parts.values())
        if total > self.peak:
            self.peak, self.at_peak = total, parts

    def start(self) -> None:
        """Forget the peaks so far."""
        self.peak = 0
        self.largest = Counter(self.live)


_INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default)
_COMPARISONS = (torch.ops.aten.allclose.default, torch.ops.aten.equal.default)


def _one(tensor: Tensor) -> Any:
    """What code that reads a number out of a fake tensor gets: a loss scale of 1, True."""
    return torch.ones((), dtype=tensor.dtype).item()
