"""The GPUs that this process may use, by the ids that ``CUDA_VISIBLE_DEVICES`` takes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping

VARIABLE = "CUDA_VISIBLE_DEVICES"


def named_ids(environment: Mapping[str, str] = os.environ) -> list[str] | None:
    """Those that ``CUDA_VISIBLE_DEVICES`` names: indices, UUIDs, MIG devices; None if it is unset.

    As CUDA reads it: what stands before the first entry that is none.
    """
    text = environment.get(VARIABLE)
    if text is None:
        return None
    ids = [id.strip() for id in text.split(",")]
    count = next((i for i, id in enumerate(ids) if id in ("", "-1")), len(ids))
    return ids[:count]


def nvidia_smi(*options: str) -> str:
    """What it prints; nothing where it is not there or fails."""
    try:
        return subprocess.run(
            ["nvidia-smi", *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def visible_ids(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Those that are named, else all that ``nvidia-smi`` lists; none where there is neither.

    Of a GPU that is divided by MIG, its parts.
    """
    named = named_ids(environment)
    if named is not None:
        return named
    ids: list[list[str]] = []
    parts: list[list[str]] = []
    for line in nvidia_smi("-L").splitlines():
        if gpu := re.match(r"GPU (\d+):", line):
            ids.append([gpu[1]])
            parts.append([])
        elif parts and (part := re.match(r"\s+MIG .*\(UUID: ([^)]+)\)", line)):
            parts[-1].append(part[1])
    return [id for gpu, divided in zip(ids, parts, strict=True) for id in divided or gpu]
