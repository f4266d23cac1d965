"""Random Qwen2-VL and Qwen2.5-VL checkpoints whose answers depend on pictures and positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

KINDS = ("qwen2_vl", "qwen2_5_vl")


def make_vision_model(kind: str, tiny: Path, out: Path, **text: Any) -> Path:
    """A model of ``kind`` with the tokenizer, processor and sizes of a tiny Qwen2.5-VL.

    Args:
        tiny: a checkpoint of ``make_tiny("qwen2.5-vl")``, whose weights are too small for this: its
            answers hardly change with the positions.
        text: changes to the text model's configuration.
    """
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(tiny)
    values = {**config.text_config.to_dict(), "initializer_range": 0.3, **text}
    values = {k: v for k, v in values.items() if k not in ("model_type", "layer_types")}
    tower: dict[str, Any] = {"hidden_size": 64, "embed_dim": 32, "mlp_ratio": 2}
    if kind == "qwen2_5_vl":
        tower = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 64}
        tower |= {"fullatt_block_indexes": [1], "window_size": 112}
    vision = {"depth": 2, "num_heads": 2, "initializer_range": 0.3, **tower}
    tokens = {name: getattr(config, name) for name in vars(config) if name.endswith("_token_id")}
    name = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL"}[kind]
    made = getattr(transformers, f"{name}Config")(
        text_config=values, vision_config=vision, tie_word_embeddings=False, **tokens
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(transformers, f"{name}ForConditionalGeneration")(made).save_pretrained(out)
    transformers.AutoProcessor.from_pretrained(tiny).save_pretrained(out)
    return out
