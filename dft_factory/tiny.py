"""Tiny checkpoints with the architecture and tokenizer layout of published model families.

Made offline in seconds with random weights, for tests and to try a config before spending a GPU on
it. They have learned nothing: do not compare objectives with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dft_factory.checkpoint_folder import new_checkpoint
from dft_factory.errors import ConfigError
from dft_factory.tiny_tokenizers import DEEPSEEK, LLAMA3, QWEN, Style, make_tokenizer


@dataclass(frozen=True)
class Size:
    """Dimensions of a checkpoint; the vision tower is Qwen2.5-VL's.

    Attributes:
        initializer_range: standard deviation of the random weights. Qwen's 0.02 is for wide layers;
            with it, narrow ones pass on too little of a picture.
    """

    hidden: int
    intermediate: int
    layers: int
    vision_hidden: int
    vision_intermediate: int
    vision_layers: int
    initializer_range: float


SIZES = {"tiny": Size(64, 128, 2, 32, 64, 2, 0.02), "small": Size(96, 256, 3, 64, 128, 3, 0.06)}
"""``small`` can learn an easy task in minutes on a CPU."""


def _text_config(tokenizer: Any, tie_word_embeddings: bool, size: Size) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer) + (-len(tokenizer)) % 64,
        "hidden_size": size.hidden,
        "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "initializer_range": size.initializer_range,
        "tie_word_embeddings": tie_word_embeddings,
        "bos_token_id": tokenizer.convert_tokens_to_ids(tokenizer.bos_token or "<|endoftext|>"),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _rope(**sections: Any) -> dict[str, Any]:
    """Rotary embedding settings, under the names of transformers 4 or 5."""
    from transformers import __version__

    if __version__ < "5":
        scaling = {"rope_type": "default", **sections} if sections else None
        return {"rope_theta": 1e6, "rope_scaling": scaling}
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, **sections}}


def _make_text(
    family: str,
    style: Style,
    rope: Mapping[str, Any],
    out: Path,
    tie_word_embeddings: bool,
    size: Size,
    corpus: Sequence[str],
) -> None:
    import transformers

    tokenizer = make_tokenizer(style, corpus)
    config = getattr(transformers, f"{family}Config")(
        **_text_config(tokenizer, tie_word_embeddings, size), **_rope(**rope)
    )
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _make_vl(out: Path, tie_word_embeddings: bool, size: Size, corpus: Sequence[str]) -> None:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = make_tokenizer(QWEN, corpus)
    text = _text_config(tokenizer, tie_word_embeddings, size)
    # The sections (time, height, width) share half a head: 2 + 3 + 3 = 16 / 2.
    half = text["hidden_size"] // text["num_attention_heads"] // 2
    side = half * 3 // 8
    config = Qwen2_5_VLConfig(
        text_config={**text, **_rope(mrope_section=[half - 2 * side, side, side])},
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_intermediate,
            "num_heads": 2,
            "out_hidden_size": text["hidden_size"],
            "fullatt_block_indexes": [size.vision_layers - 1],
            "window_size": 112,
            "initializer_range": size.initializer_range,
        },
        tie_word_embeddings=tie_word_embeddings,
        **{
            f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
            for name, token in (
                ("image", "image_pad"),
                ("video", "video_pad"),
                ("vision_start", "vision_start"),
                ("vision_end", "vision_end"),
            )
        },
    )
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(out)
    pixels = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=dict(pixels)),
        video_processor=Qwen2VLVideoProcessor(size=dict(pixels)),
        tokenizer=tokenizer,
        chat_template=QWEN.chat,
    ).save_pretrained(out)


_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_MAKERS: dict[str, Callable[[Path, bool, Size, Sequence[str]], None]] = {
    "qwen2.5-coder": partial(_make_text, "Qwen2", QWEN, {}),
    "qwen2.5-vl": _make_vl,
    "llama3": partial(_make_text, "Llama", LLAMA3, _LLAMA3_ROPE),
    "deepseek": partial(_make_text, "Llama", DEEPSEEK, {}),
}
KINDS = tuple(_MAKERS)


def make_tiny(
    kind: str,
    out: Path,
    *,
    seed: int = 0,
    tie_word_embeddings: bool = False,
    force: bool = False,
    size: str = "tiny",
    corpus: Sequence[str] = (),
) -> Path:
    """Write a tiny checkpoint of :data:`KINDS` with its tokenizer (and processor) to ``out``.

    Args:
        seed: of the random weights; the same seed gives the same file.
        tie_word_embeddings: True in Qwen2.5's models up to 3B.
        force: replace a checkpoint that this function or ``make_smollm2`` wrote to ``out``.
        size: a key of :data:`SIZES`.
        corpus: more texts to train the tokenizer on.

    Raises:
        ConfigError: unknown kind or size, or ``out`` exists and must not be replaced.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind: {kind!r} is unknown. Choose from: {', '.join(KINDS)}.")
    if size not in SIZES:
        raise ConfigError(f"size: {size!r} is unknown. Choose from: {', '.join(SIZES)}.")
    with new_checkpoint(out, force=force) as folder:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _MAKERS[kind](folder, tie_word_embeddings, SIZES[size], corpus)
    return out
