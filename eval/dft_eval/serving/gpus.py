"""Over how many GPUs a server spreads a model: tensor and data parallel size."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from dft_eval.errors import UsageError
from dft_eval.gpus import named_ids, nvidia_smi
from dft_eval.model_files import ModelFiles, weights_bytes

_WEIGHTS_SHARE = 0.5
"""Of a GPU's memory, at most, for weights: the rest is for the KV cache and activations."""


@dataclass(frozen=True)
class Gpus:
    """The NVIDIA GPUs that a server may use; ``memory``: bytes of the smallest."""

    count: int
    memory: int


def visible_gpus(environment: Mapping[str, str] = os.environ) -> Gpus:
    """By ``nvidia-smi``, as ``CUDA_VISIBLE_DEVICES`` limits them; none where there is neither."""
    printed = nvidia_smi("--query-gpu=memory.total", "--format=csv,noheader,nounits")
    mebibytes = [int(line) for line in printed.split("\n") if line.strip().isdigit()]
    if not mebibytes:
        return Gpus(0, 0)
    named = named_ids(environment)
    count = len(mebibytes) if named is None else len(named)
    return Gpus(count, min(mebibytes) << 20)


def parallel_sizes(
    files: ModelFiles, dtype: str, gpus: Gpus, tensor: int | None, data: int | None
) -> tuple[int, int]:
    """Tensor and data parallel size.

    Where neither is given: the fewest GPUs (a power of two that divides the attention heads) whose
    memory is twice the weights, and as many replicas of that as there are GPUs.

    Args:
        dtype: in which the model is served.
        tensor, data: as the user gave them.

    Raises:
        UsageError: they need more GPUs than are visible.
    """
    if gpus.count == 0:
        return tensor or 1, data or 1
    if tensor is None:
        tensor = _tensor_size(files, dtype, Gpus(gpus.count // (data or 1), gpus.memory))
    data = data or max(gpus.count // tensor, 1)
    if tensor * data > gpus.count:
        raise UsageError(
            f"--tensor-parallel {tensor} with --data-parallel {data} needs {tensor * data} GPUs; "
            f"{gpus.count} are visible. Give smaller sizes, or look at CUDA_VISIBLE_DEVICES."
        )
    return tensor, data


def _tensor_size(files: ModelFiles, dtype: str, gpus: Gpus) -> int:
    folder = files.base or files.folder
    needed = weights_bytes(files, dtype)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    heads = {**config, **config.get("text_config", {})}.get("num_attention_heads", 1 << 20)
    size = 1
    while (
        needed > _WEIGHTS_SHARE * size * gpus.memory
        and 2 * size <= gpus.count
        and heads % (2 * size) == 0
    ):
        size *= 2
    return size
