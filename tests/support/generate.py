"""Completions without failures, and LoRA adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dft_eval.generation.resume import generate_each
from dft_eval.generation.run import Backend, Completion, Decoding, Prompt


def generate(
    prompts: Sequence[Prompt],
    decoding: Decoding,
    path: Path,
    *,
    backend: Backend,
    progress: Callable[[int, int], None],
) -> list[Completion]:
    """As :func:`generate_each`, but a failed prompt fails the test."""
    rows = generate_each(prompts, decoding, path, backend=backend, progress=progress)
    completions = [row for row in rows if isinstance(row, Completion)]
    assert len(completions) == len(prompts), rows
    return completions


def save_lora(base: Path, folder: Path) -> Any:
    """Save a random LoRA adapter of a text model; returns the peft model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"]))
    generator = torch.Generator().manual_seed(0)
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.5
    tuned.save_pretrained(folder)
    return tuned
