"""Tiny checkpoints with the architecture and tokenizer layout of Qwen2.5-Coder and Qwen2.5-VL.

Made offline in seconds with random weights: to try a config from its first line to its last
before spending a GPU on it, and to test. They know nothing; do not judge an objective by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dft_factory.checkpoint_folder import new_checkpoint
from dft_factory.errors import ConfigError

KINDS = ("qwen2.5-coder", "qwen2.5-vl")
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Qwen2.5's special tokens, by name; their ids follow the small vocabulary."""

VOCABULARY = 512
_CORPUS = (
    "def add(a, b):\n    return a + b\n\nfor item in items:\n    print(item)\n",
    "Write a Python function that returns the sum of a list of numbers.",
    "How many circles are in the picture? There are three circles and one square.",
    "<think> The triangle has a base of 4 and a height of 3. </think> <answer> 6 </answer>",
    "user assistant system You are a helpful assistant.",
)

_TEXT_CHAT = (
    "{%- if messages[0].role != 'system' %}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
_VISION_CHAT = (
    "{%- if messages[0].role != 'system' %}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}"
    "{%- else %}{%- for part in message.content %}"
    "{%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part.type == 'video' %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- elif part.type == 'text' %}{{- part.text }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class Size:
    """How wide and deep; the vision tower for Qwen2.5-VL alone.

    Attributes:
        initializer_range: standard deviation of the random weights. Qwen's 0.02 is for wide layers;
            narrow ones hand on too little of a picture to learn from it.
    """

    hidden: int
    intermediate: int
    layers: int
    vision_hidden: int
    vision_intermediate: int
    vision_layers: int
    initializer_range: float


SIZES = {
    "tiny": Size(64, 128, 2, 32, 64, 2, 0.02),
    "small": Size(96, 256, 3, 64, 128, 3, 0.06),
}
"""``tiny`` for trying things out; ``small`` can learn an easy task in minutes on a CPU."""


def _tokenizer(chat_template: str, corpus: Sequence[str]) -> Any:
    """A byte-level BPE trained on a few lines, plus Qwen's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2TokenizerFast, __version__

    # Qwen2.5-VL's processor takes no other class in transformers 4.
    tokenizer_class = Qwen2TokenizerFast if __version__ < "5" else PreTrainedTokenizerFast
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((*_CORPUS, *corpus), trainer)
    bpe.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer_class(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        chat_template=chat_template,
        model_max_length=32768,
        padding_side="left",
    )


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
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
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


def _make_coder(out: Path, tie_word_embeddings: bool, size: Size, corpus: Sequence[str]) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = _tokenizer(_TEXT_CHAT, corpus)
    config = Qwen2Config(**_text_config(tokenizer, tie_word_embeddings, size), **_rope())
    Qwen2ForCausalLM(config).save_pretrained(out)
    tokenizer.save_pretrained(out)


def _make_vl(out: Path, tie_word_embeddings: bool, size: Size, corpus: Sequence[str]) -> None:
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = _tokenizer(_VISION_CHAT, corpus)
    text = _text_config(tokenizer, tie_word_embeddings, size)
    head_dim = text["hidden_size"] // text["num_attention_heads"]
    config = Qwen2_5_VLConfig(
        text_config={
            **text,
            # The three sections (time, height, width) share half a head: 2 + 3 + 3 = 16 / 2.
            **_rope(
                mrope_section=[head_dim // 2 - 2 * (head_dim // 2 * 3 // 8)]
                + [head_dim // 2 * 3 // 8] * 2
            ),
        },
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
        chat_template=_VISION_CHAT,
    ).save_pretrained(out)


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
        tie_word_embeddings: as Qwen2.5's models up to 3B have it.
        force: replace a checkpoint that this function or ``make_smollm2`` wrote to ``out``.
        size: a key of :data:`SIZES`.
        corpus: more texts for the tokenizer, which spells what it has not seen letter by letter.

    Raises:
        ConfigError: unknown kind or size, or ``out`` exists and must not be replaced.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind: {kind!r} is unknown. Choose one of {', '.join(KINDS)}.")
    if size not in SIZES:
        raise ConfigError(f"size: {size!r} is unknown. Choose one of {', '.join(SIZES)}.")
    with new_checkpoint(out, force=force) as folder:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            make = _make_coder if kind == KINDS[0] else _make_vl
            make(folder, tie_word_embeddings, SIZES[size], corpus)
    return out
