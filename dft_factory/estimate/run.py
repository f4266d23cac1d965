"""``dft-factory estimate``: one job for the worker, what it means for each GPU, in words."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dft_factory.errors import ConfigError, MissingDependencyError
from dft_factory.estimate.duration import Duration, duration_of
from dft_factory.estimate.layout import BUFFERS, Layout, Model, layout_of, per_gpu
from dft_factory.estimate.tracker import (
    ACTIVATIONS,
    GRADIENTS,
    LOGITS,
    OPTIMIZER,
    PICTURES,
    WEIGHTS,
)
from dft_factory.estimate.worker import FLASH
from dft_factory.patch.table import INSTALL_LLAMAFACTORY
from dft_factory.probe.settings import read_config
from dft_factory.worker_process import ask, first_gpu, single_process

CUDA_CONTEXT = 1343 << 20
"""CUDA context and loaded kernels, before the first tensor of any size. Depends on GPU and driver;
this is what transformers' documentation measures ("Model training anatomy", v4.49)."""
WORDS = {
    WEIGHTS: "weights",
    GRADIENTS: "gradients",
    OPTIMIZER: "optimizer",
    ACTIVATIONS: "activations and temporaries",
    LOGITS: "logits",
    PICTURES: "pictures",
    BUFFERS: "gathered layers and buckets",
}


@dataclass(frozen=True)
class Estimate:
    """Bytes on each GPU.

    Attributes:
        parts: by kind at the peak; ``total`` is their sum.
        largest: largest value of each simulated kind, at whatever time.
        outside: on a GPU what torch does not count (:data:`CUDA_CONTEXT`), else 0.
        rows: of a batch, each of ``cutoff_len`` tokens with this many ``pictures``.
        notes: what the figures hold for.
    """

    config: str
    layout: str
    gpus: int
    device: str
    parts: dict[str, int]
    total: int
    largest: dict[str, int]
    outside: int
    parameters: int
    trained: int
    rows: int
    cutoff_len: int
    pictures: int
    duration: Duration | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"schema_version": 1, **asdict(self)}


def estimate(
    config_path: Path,
    *,
    overrides: Sequence[str] = (),
    gpus: int | None = None,
    accelerate: Path | None = None,
    pictures: int | None = None,
    tokens_per_second: float | None = None,
    measure: bool = False,
) -> Estimate:
    """Memory on each GPU of the training that a YAML describes; on a CPU with ``use_cpu: true``.

    Args:
        gpus: None for the number in the recipe's header (``x 8 GPUs``), or 1.
        accelerate: configuration that the training is launched with, if it is.
        pictures: of each example; None for one, where the model takes pictures.
        tokens_per_second: of all GPUs together, for the duration.
        measure: train three steps on this machine's own device, for the duration and a real peak.

    Raises:
        ConfigError: something whose memory is not known here.
        MissingDependencyError: LLaMA-Factory is not installed.
        UpstreamContractError: the simulated step failed.
    """
    for option, number, least in (("--gpus", gpus, 1), ("--pictures", pictures, 0)):
        if number is not None and number < least:
            raise ConfigError(f"{option} {number}: give a number of {least} or more.")
    if tokens_per_second is not None and not tokens_per_second > 0:
        raise ConfigError(f"--tokens-per-second {tokens_per_second:g}: give a rate above 0.")
    if tokens_per_second is not None and measure:
        raise ConfigError(
            f"--tokens-per-second {tokens_per_second:g} and --measure both give the rate. Leave "
            "one of them out."
        )
    values = read_config(config_path, overrides)
    if not values.get("model_name_or_path"):
        raise ConfigError("model_name_or_path is not set. Its config.json is what is estimated.")
    on_gpu = not values.get("use_cpu")
    layout = layout_of(values, accelerate, gpus or _gpus_of_header(config_path, accelerate))
    _check_layout(layout, values, on_gpu)
    if measure and layout.kind != "single":
        raise ConfigError(
            f"--measure runs one process without sharding, and this is {layout.name} on "
            f"{layout.gpus} GPUs. State a rate: --tokens-per-second X."
        )
    if importlib.util.find_spec("llamafactory") is None:
        raise MissingDependencyError(
            f"estimate needs LLaMA-Factory, which is not installed. `{INSTALL_LLAMAFACTORY}`"
        )
    job = {
        "values": values,
        "pictures": pictures,
        "on_gpu": on_gpu,
        "sharded": layout.sharded,
        "zero": layout.kind == "zero",
        "plan": measure or tokens_per_second is not None,
    }
    result = _run_worker("worker", job)
    parts = dict(result["at_peak"])
    if layout.sharded:
        model = Model(
            **{key: result[key] for key in ("frozen", "trained", "root", "layer", "hidden")},
            width=result["width"],
        )
        parts = per_gpu(layout, model, parts)
    elif layout.kind == "ddp":
        # torch keeps a second copy of the gradients, in the buckets that it sends.
        parts[BUFFERS] = result["largest"].get(GRADIENTS, 0)
    parts = {kind: parts[kind] for kind in WORDS if parts.get(kind)}
    duration = None
    if measure:
        steps = _run_worker("measure", {"values": values})
        rate = steps["tokens"] / steps["seconds"]
        duration = duration_of(result["plan"], 1, rate, steps["peak"])
    elif tokens_per_second is not None:
        duration = duration_of(result["plan"], layout.gpus, tokens_per_second)
    return Estimate(
        config=str(config_path),
        layout=layout.name,
        gpus=layout.gpus,
        device="GPU" if on_gpu else "CPU",
        parts=parts,
        total=sum(parts.values()),
        largest={kind: n for kind, n in result["largest"].items() if n},
        outside=CUDA_CONTEXT if on_gpu else 0,
        parameters=result["frozen"] + result["trained"],
        trained=result["trained"],
        rows=result["batch"],
        cutoff_len=result["cutoff_len"],
        pictures=result["pictures"],
        duration=duration,
        notes=tuple(_notes(layout, values, result, on_gpu)),
    )


def _gpus_of_header(path: Path, accelerate: Path | None) -> int | None:
    """``# Batch: 256 = 4 a device x 8 accumulated x 8 GPUs`` in a shipped recipe."""
    if accelerate is not None:
        return None
    match = re.search(r"^# Batch: .*\bx (\d+) GPUs?\b", path.read_text(encoding="utf-8"), re.M)
    return int(match[1]) if match else None


def _check_layout(layout: Layout, values: dict[str, Any], on_gpu: bool) -> None:
    if layout.gpus > 1 and not on_gpu:
        raise ConfigError(f"--gpus {layout.gpus} with use_cpu: true: estimate one process.")
    if layout.sharded and (values.get("pure_bf16") or not values.get("bf16")):
        raise ConfigError(
            f"{layout.name} is covered with bf16: true (and without pure_bf16) only. Put bf16=true "
            "pure_bf16=false after the YAML."
        )


def _notes(
    layout: Layout, values: dict[str, Any], result: dict[str, Any], on_gpu: bool
) -> list[str]:
    shown = f" with {result['pictures']} pictures of {result['image_max_pixels']} pixels"
    notes = [
        f"For full batches: {result['batch']} rows of {result['cutoff_len']} tokens"
        f"{shown if result['pictures'] else ''}. Shorter rows need less.",
        "For training. Evaluation, generation and saving are not included.",
    ]
    if on_gpu:
        notes.append("Fragmentation of torch's allocator is not included.")
    if values.get("flash_attn") in FLASH:
        notes.append("flash_attn: counted as torch's own attention, which keeps the same tensors.")
    if layout.sharded:
        notes.append(
            f"{layout.name}: states and buffers from formulas, not measured; buffers are upper "
            "bounds."
        )
    elif layout.kind == "ddp":
        notes.append("DDP: its buckets from a formula, not measured.")
    if layout.offload:
        notes.append(f"In CPU memory: {', '.join(sorted(layout.offload))}.")
    return notes


def render(estimate: Estimate) -> str:
    """A table, one line for each kind."""

    def line(name: str, n_bytes: int, largest: int | None = None) -> str:
        rest = "" if largest is None else f"  {largest / 1e9:9.3f}"
        return f"{name:28}{n_bytes / 1e9:9.3f}{rest}"

    place = f"each of {estimate.gpus} GPUs" if estimate.gpus > 1 else f"one {estimate.device}"
    simulated = estimate.layout == "no sharding"
    lines = [
        f"{estimate.config}: {estimate.parameters:,} parameters, {estimate.trained:,} trained, "
        f"{estimate.layout}",
        f"{f'GB on {place}':28}{'at peak':>9}" + (f"  {'at most':>9}" if simulated else ""),
    ]
    lines += [
        line(WORDS[kind], n, estimate.largest.get(kind) if simulated else None)
        for kind, n in estimate.parts.items()
    ]
    lines += [
        line(WORDS[kind], 0, n)
        for kind, n in estimate.largest.items()
        if simulated and kind not in estimate.parts
    ]
    lines.append(line("total of torch's tensors", estimate.total))
    if estimate.outside:
        lines.append(
            line("CUDA context (a constant)", estimate.outside)
            + "  measured by transformers' documentation on one GPU; differs by GPU and driver"
        )
    if estimate.duration is not None:
        lines += _duration_lines(estimate.duration, estimate.total)
    return "\n".join([*lines, *(f"- {note}" for note in estimate.notes)])


def _duration_lines(duration: Duration, total: int) -> list[str]:
    lines = [
        f"{duration.hours:.2f} hours: {duration.tokens:,} tokens ({duration.basis}) at "
        f"{duration.tokens_per_second:,.0f} tokens/s"
    ]
    if duration.peak is not None:
        lines.append(
            f"measured peak {duration.peak / 1e9:.3f} GB in two steps of the data, estimated "
            f"{total / 1e9:.3f} GB for full batches"
        )
    return lines


def _run_worker(module: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run a module beside this one, which imports LLaMA-Factory; only ``measure`` sees a GPU."""
    result: dict[str, Any] = ask(
        f"dft_factory.estimate.{module}",
        job,
        single_process() | {"CUDA_VISIBLE_DEVICES": first_gpu() if module == "measure" else ""},
        failure=f"The step could not be {'measured' if module == 'measure' else 'simulated'}",
        fix="Run `dft-factory validate` on the YAML. If it has no error, this model does something "
        "that a simulation cannot follow.",
    )
    return result
