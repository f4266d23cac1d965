"""Run by ``doctor`` in a fresh process: report the state that a training run gets, as JSON.

Only ``import torch`` activates this package, as in ``llamafactory-cli``,
``torchrun`` workers and ``accelerate launch``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from typing import Any

MARK = "dft-factory probe: "
"""Prefix of the JSON line, since libraries print to stdout too."""


def _short(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _gpus(torch: Any) -> list[dict[str, Any]]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [
        {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            # Native bfloat16 came with compute capability 8.0; ROCm builds report their own.
            "bf16": bool(torch.version.hip) or properties.major >= 8,
        }
        for properties in map(torch.cuda.get_device_properties, range(count))
    ]


def _loss_head(torch: Any, gpus: list[dict[str, Any]]) -> str:
    """Which code computes the softmax of the loss head here, and why."""
    from dft_factory.errors import ConfigError
    from dft_factory.losses.softmax import plain_torch_reason

    device = torch.device("cuda" if gpus else "cpu")
    half = torch.bfloat16 if not gpus or gpus[0]["bf16"] else torch.float16
    try:
        reason = plain_torch_reason(device, half)
    except ConfigError as error:
        return str(error)
    return f"plain torch ({reason})" if reason else "Triton kernels (a trial launch succeeded)"


def probe() -> dict[str, Any]:
    """Import torch, then the modules of the patch table; report the state of each patch."""
    probed: dict[str, Any] = {"torch_error": None, "gpus": None, "active": False, "patches": {}}
    try:
        torch = importlib.import_module("torch")
    except BaseException as error:  # a half-installed torch may raise anything
        probed["torch_error"] = _short(error)
        return probed
    try:
        probed["gpus"] = _gpus(torch)
        probed["loss_head"] = _loss_head(torch, probed["gpus"])
    except Exception as error:  # a broken driver must not hide the patch table
        probed["gpu_error"] = _short(error)

    probed["torch_family"] = {}
    for name in ("torchvision", "torchaudio"):  # transformers and LLaMA-Factory import them
        try:
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)
        except BaseException as error:  # built for another torch: OSError, RuntimeError, ...
            probed["torch_family"][name] = _short(error)

    from dft_factory import startup
    from dft_factory.patch.apply import FAILED, WAITING, llamafactory_version, status
    from dft_factory.patch.table import PATCHES

    probed["active"] = startup.installed() is not None
    if not probed["active"] or llamafactory_version() is None:
        return probed
    errors: dict[str, str] = {}
    for module in dict.fromkeys(patch.module for patch in PATCHES):
        try:
            importlib.import_module(module)
        except BaseException as error:  # SystemExit too: some dependencies exit at import
            errors[module] = _short(error)
    for row in status():
        state, detail = row.state, row.detail
        if state == WAITING:
            state, detail = FAILED, errors.get(row.patch.module, "its module was never loaded")
        probed["patches"][row.patch.name] = {"state": state, "detail": detail}
    return probed


if __name__ == "__main__":
    result = probe()
    sys.stdout.write(f"\n{MARK}{json.dumps(result)}\n")
    sys.stdout.flush()
    os._exit(0)  # skips the threads and atexit hooks of the libraries
