"""Load a model of transformers, ready to generate: its devices and its attention."""

from __future__ import annotations

import sys
from typing import Any

from dft_eval.errors import UsageError
from dft_eval.generation.hf_prepare import prepare
from dft_eval.model_files import ModelFiles, weights_bytes

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""accelerate's ways to spread a model over the visible GPUs."""
DeviceMap = str | dict[str, int | str]
WEIGHTS_SHARE = 0.9
"""Of a GPU's free memory that weights may take; the rest is for the KV cache and activations."""
FLASH = "flash_attention_2"


def load(
    auto_class: Any, files: ModelFiles, dtype: str, device_map: DeviceMap | None = None
) -> Any:
    """The model, on a GPU if there is one, or spread as ``device_map`` says; with its adapter.

    Args:
        auto_class: of transformers, ``AutoModelForCausalLM`` or another.
        device_map: one of :data:`DEVICE_MAPS`, or accelerate's map of modules to devices.

    Raises:
        UsageError: an adapter, and its base does not fit the GPUs.
    """
    import torch

    options: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if attention(files, dtype) == FLASH:
        options["attn_implementation"] = FLASH
    if device_map is not None:
        options["device_map"] = device_map
    model = auto_class.from_pretrained(files.base or files.folder, **options)
    if device_map is None:
        model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    offloaded = {"cpu", "disk"} & set(getattr(model, "hf_device_map", {}).values())
    if offloaded:
        _say_or_refuse(files, " and ".join(sorted(offloaded)))
    prepare(model)
    if files.base is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, files.folder)
    return model.eval()


def _say_or_refuse(files: ModelFiles, places: str) -> None:
    """A part of the weights lies in ``places``.

    Raises:
        UsageError: an adapter: peft 0.18 fails on modules that are on disk.
    """
    what = f"{files.name}: the GPUs do not hold all weights; a part is on {places}"
    if files.base is not None:
        raise UsageError(
            f"{what}. An adapter is not put on such a base: use more GPUs or --dtype bfloat16, or "
            "merge them (llamafactory-cli export)."
        )
    sys.stderr.write(f"dft-factory: {what}, which is slow. More GPUs or --dtype bfloat16 help.\n")


def needed_device_map(files: ModelFiles, dtype: str) -> str | None:
    """``auto`` for a model that does not fit one GPU where there are several; said on stderr."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus < 2:
        return None
    weights, (free, _) = weights_bytes(files, dtype), torch.cuda.mem_get_info(0)
    device_map = map_for(weights, free, gpus)
    if device_map is not None:
        sys.stderr.write(
            f"dft-factory: {files.name}: weights of {weights / 1e9:.1f} GB in {dtype} do not fit "
            f"the {free / 1e9:.1f} GB that are free on one GPU: spread over {gpus} GPUs "
            f"(--device-map {device_map})\n"
        )
    return device_map


def map_for(weights: float, free: int, gpus: int) -> str | None:
    """``auto`` if ``weights`` bytes need more than one of ``gpus`` GPUs with ``free`` bytes."""
    return "auto" if gpus > 1 and weights > WEIGHTS_SHARE * free else None


def attention(files: ModelFiles, dtype: str) -> str:
    """The attention that :func:`load` runs a model with, by its class; known without loading it.

    FlashAttention-2 where its package, a GPU and 16 bits are there, else what transformers takes by
    itself: ``sdpa``, or ``eager`` for a model without it.
    """
    import torch
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        AutoConfig,
    )
    from transformers.utils import is_flash_attn_2_available

    kind = type(AutoConfig.from_pretrained(files.base or files.folder))
    classes = [
        mapping[kind]
        for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING)
        if kind in mapping
    ]
    flash = any(getattr(cls, "_supports_flash_attn", False) for cls in classes)
    if flash and flash_runs(
        dtype, gpu=torch.cuda.is_available(), installed=is_flash_attn_2_available()
    ):
        return FLASH
    return "sdpa" if any(getattr(cls, "_supports_sdpa", False) for cls in classes) else "eager"


def flash_runs(dtype: str, *, gpu: bool, installed: bool) -> bool:
    """Whether FlashAttention-2 runs here: it has kernels for 16 bits on GPUs alone."""
    return gpu and installed and dtype in ("bfloat16", "float16")


def first_device(model: Any) -> Any:
    """The device that takes the model's inputs; the hooks of a spread model move them on."""
    import torch

    hooks = (getattr(module, "_hf_hook", None) for module in model.modules())
    devices = (getattr(hook, "execution_device", None) for hook in hooks)
    device = next((device for device in devices if device is not None), model.device)
    return torch.device(device)
