"""Over how many GPUs a server spreads a model: tensor and data parallel size."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from dft_eval.errors import UsageError
from dft_eval.model_files import ModelFiles, weight_files, weights_dtype

_BYTES = {"float32": 4, "float64": 8}
"""Of one weight; any other dtype has 2."""
_WEIGHTS_SHARE = 0.5
"""Of a GPU's memory, at most, for weights: the rest is for the KV cache and activations."""


@dataclass(frozen=True)
class Gpus:
    """The NVIDIA GPUs that a server may use; ``memory``: bytes of the smallest."""

    count: int
    memory: int


def visible_gpus(environment: Mapping[str, str] = os.environ) -> Gpus:
    """By ``nvidia-smi``, as ``CUDA_VISIBLE_DEVICES`` limits them; none where there is neither."""
    words = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return Gpus(0, 0)
    mebibytes = [int(line) for line in done.stdout.split("\n") if line.strip().isdigit()]
    if not mebibytes:
        return Gpus(0, 0)
    count, named = len(mebibytes), environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        ids = [id.strip() for id in named.split(",")]
        # CUDA takes what stands before the first id that is none.
        count = next((i for i, id in enumerate(ids) if id in ("", "-1")), len(ids))
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
    saved = sum(path.stat().st_size for path in weight_files(folder))
    needed = saved * _BYTES.get(dtype, 2) / _BYTES.get(weights_dtype(files), 2)
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
