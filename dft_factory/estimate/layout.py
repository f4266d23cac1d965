"""How one training is spread over GPUs, and what that leaves on each of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_factory.errors import ConfigError
from dft_factory.estimate.tracker import (
    ACTIVATIONS,
    GRADIENTS,
    LOGITS,
    OPTIMIZER,
    PICTURES,
    WEIGHTS,
)
from dft_factory.validate.files import read

BUFFERS = "buffers"
"""Gathered layers, buckets of gradients, fp32 copies of them."""
DEFAULT_BUCKET = 500_000_000  # elements, DeepSpeed's reduce_bucket_size
DEFAULT_LIVE = 1_000_000_000  # elements, stage3_max_live_parameters and sub_group_size
FP32, BF16 = 4, 2

_UNCOVERED_ZERO = {
    "zero_hpz_partition_size": 1,
    "zero_quantized_weights": False,
    "zero_quantized_gradients": False,
    "mics_shard_size": -1,
    "zenflow": None,
}
"""DeepSpeed's defaults of what changes the division."""


@dataclass(frozen=True)
class Layout:
    """What is divided between how many GPUs.

    Attributes:
        kind: ``single``, ``ddp``, ``zero`` or ``fsdp2``.
        stage: of ZeRO; 0 otherwise.
        offload: the states that lie in CPU memory: ``optimizer``, ``weights``.
        bucket: elements of ZeRO's gradient bucket; None for the square of the hidden size.
        live: elements that ZeRO-3 leaves gathered; ``group``: of one part of its optimizer step.
    """

    kind: str
    gpus: int
    stage: int = 0
    offload: frozenset[str] = frozenset()
    bucket: int | None = None
    live: int = DEFAULT_LIVE
    group: int = DEFAULT_LIVE

    @property
    def sharded(self) -> bool:
        """Whether the working copy of the weights is in the compute dtype, without autocast."""
        return self.kind in ("zero", "fsdp2")

    @property
    def name(self) -> str:
        """As a user writes it."""
        names = {"zero": f"DeepSpeed ZeRO-{self.stage}", "fsdp2": "FSDP2", "ddp": "DDP"}
        return names.get(self.kind, "no sharding")


def layout_of(values: Mapping[str, Any], accelerate: Path | None, gpus: int | None) -> Layout:
    """The layout of a recipe, started by ``llamafactory-cli`` or with an accelerate configuration.

    Args:
        gpus: None for the accelerate configuration's number of processes, or 1.

    Raises:
        ConfigError: something whose memory is not known here.
    """
    for key in ("fsdp", "fsdp_config"):
        if values.get(key):
            raise ConfigError(
                f"{key}: {values[key]!r} is not covered. FSDP2 is, with an accelerate "
                "configuration: --accelerate configs/accelerate/fsdp2.yaml."
            )
    settings = values.get("deepspeed")
    if accelerate is not None:
        if settings is not None:
            raise ConfigError(
                f"deepspeed: {settings!r} and --accelerate {accelerate} shard the model twice. Put "
                "deepspeed=null after the YAML."
            )
        return _fsdp2(accelerate, gpus)
    if settings is None:
        return Layout("single" if gpus in (None, 1) else "ddp", gpus or 1)
    return _zero(settings, gpus or 1)


def _fsdp2(path: Path, gpus: int | None) -> Layout:
    config, findings = read(path)
    if config is None or findings:
        raise ConfigError("\n".join(map(str, findings)))
    values = config.values
    fsdp = values.get("fsdp_config") or {}
    if str(values.get("distributed_type")) != "FSDP" or str(fsdp.get("fsdp_version")) != "2":
        raise ConfigError(f"{path}: only FSDP with fsdp_version: 2 is covered.")
    if fsdp.get("fsdp_offload_params") or fsdp.get("fsdp_reshard_after_forward") is not True:
        raise ConfigError(
            f"{path}: covered are fsdp_reshard_after_forward: true and fsdp_offload_params: false."
        )
    if values.get("parallelism_config"):
        raise ConfigError(f"{path}: parallelism_config is not covered. Remove it.")
    return Layout("fsdp2", gpus or int(values.get("num_processes") or 1))


def _zero(settings: Any, gpus: int) -> Layout:
    if isinstance(settings, str):
        try:
            settings = json.loads(Path(settings).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"deepspeed: {settings!r} cannot be read: {error}") from error
    zero = settings.get("zero_optimization") or {}
    stage = zero.get("stage", 0)
    if stage not in (1, 2, 3):
        raise ConfigError(f"deepspeed: zero_optimization.stage {stage!r}. Covered are 1, 2 and 3.")
    for key, default in _UNCOVERED_ZERO.items():
        if zero.get(key, default) != default:
            raise ConfigError(f"deepspeed: zero_optimization.{key}: {zero[key]!r} is not covered.")
    offload = set()
    for key, state in (("offload_optimizer", OPTIMIZER), ("offload_param", WEIGHTS)):
        if (zero.get(key) or {}).get("device", "none") != "none":
            offload.add(state)

    def number(key: str, default: int) -> int | None:
        value = zero.get(key, default)
        return None if value == "auto" else int(value)

    return Layout(
        "zero",
        gpus,
        stage,
        frozenset(offload),
        bucket=number("reduce_bucket_size", DEFAULT_BUCKET),
        live=number("stage3_max_live_parameters", DEFAULT_LIVE) or DEFAULT_LIVE,
        group=number("sub_group_size", DEFAULT_LIVE) or DEFAULT_LIVE,
    )


@dataclass(frozen=True)
class Model:
    """Counts of parameters: frozen, trained, outside the layers, of the largest layer."""

    frozen: int
    trained: int
    root: int
    layer: int
    hidden: int
    width: int
    """Bytes of an element of the working copy: 2 in bf16."""


def per_gpu(layout: Layout, model: Model, working: Mapping[str, int]) -> dict[str, int]:
    """Bytes on one GPU by kind.

    The states follow from the counts; ``working`` is the simulated rest. Sources: ZeRO (Rajbhandari
    et al. 2020, section 3) and the buffers of DeepSpeed 0.18.4; torch's ``fully_shard``.
    """
    n, width, trained = layout.gpus, model.width, model.trained
    n_parameters = model.frozen + trained
    shard = -(-trained // n)
    parts = {kind: working.get(kind, 0) for kind in (ACTIVATIONS, LOGITS, PICTURES)}
    if layout.kind == "fsdp2":
        # Weights as stored: LLaMA-Factory has the trained ones in fp32. Gradients come in fp32.
        parts[WEIGHTS] = FP32 * shard + width * -(-model.frozen // n)
        parts[GRADIENTS] = FP32 * shard
        parts[OPTIMIZER] = 2 * FP32 * shard
        # The root's parameters and two layers, this one and the next, with their gradients.
        parts[BUFFERS] = 2 * width * min(n_parameters, model.root + 2 * model.layer)
        return parts
    bucket = model.hidden**2 if layout.bucket is None else layout.bucket
    bucket = min(bucket, trained)
    parts[WEIGHTS] = width * (n_parameters if layout.stage < 3 else -(-n_parameters // n))
    parts[GRADIENTS] = width * (trained if layout.stage < 2 else shard)
    parts[OPTIMIZER] = 3 * FP32 * shard  # the fp32 copy and two moments
    parts[BUFFERS] = 2 * width * bucket
    if layout.stage == 3:
        parts[BUFFERS] += width * min(n_parameters, layout.live)
    if WEIGHTS in layout.offload:
        parts[WEIGHTS] = 0
    step = 0
    if OPTIMIZER in layout.offload:
        parts[OPTIMIZER] = 0
        if layout.stage > 1:
            parts[GRADIENTS] = 0
    else:
        # At the step the gradients exist in fp32 too; activations are gone by then.
        step = FP32 * min(shard, layout.group if layout.stage == 3 else shard)
    passing = sum(parts[kind] for kind in (ACTIVATIONS, LOGITS, PICTURES))
    parts[BUFFERS] += max(0, step - passing)
    return parts
