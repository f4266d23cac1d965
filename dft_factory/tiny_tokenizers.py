"""Tokenizers of the tiny checkpoints: a small vocabulary with a family's tokens and template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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

LLAMA3_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
DEEPSEEK_TOKENS = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")

VOCABULARY = 512
_CORPUS = (
    "def add(a, b):\n    return a + b\n\nfor item in items:\n    print(item)\n",
    "Write a Python function that returns the sum of a list of numbers.",
    "How many circles are in the picture? There are three circles and one square.",
    "<think> The triangle has a base of 4 and a height of 3. </think> <answer> 6 </answer>",
    "user assistant system You are a helpful assistant.",
)

_QWEN_CHAT = (
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
_LLAMA3_CHAT = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}"
    "{{- message.content + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
_DEEPSEEK_CHAT = (
    "{{- bos_token }}{%- for message in messages %}"
    "{%- if message.role == 'user' %}{{- 'User: ' + message.content + '\n\n' }}"
    "{%- elif message.role == 'assistant' %}"
    "{{- 'Assistant: ' + message.content + eos_token }}"
    "{%- else %}{{- message.content + '\n\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'Assistant:' }}{%- endif %}"
)


@dataclass(frozen=True)
class Style:
    """A family's tokenizer.

    Attributes:
        tokens: its special tokens.
        adds_bos: whether encoding puts ``bos`` before each text.
    """

    tokens: Sequence[str]
    chat: str
    eos: str
    pad: str | None
    bos: str | None = None
    adds_bos: bool = False


QWEN = Style(SPECIAL_TOKENS, _QWEN_CHAT, eos="<|im_end|>", pad="<|endoftext|>")
LLAMA3 = Style(
    LLAMA3_TOKENS,
    _LLAMA3_CHAT,
    eos="<|end_of_text|>",
    pad=None,
    bos=LLAMA3_TOKENS[0],
    adds_bos=True,
)
DEEPSEEK = Style(
    DEEPSEEK_TOKENS,
    _DEEPSEEK_CHAT,
    eos=DEEPSEEK_TOKENS[1],
    pad=DEEPSEEK_TOKENS[1],
    bos=DEEPSEEK_TOKENS[0],
    adds_bos=True,
)


def make_tokenizer(style: Style, corpus: Sequence[str]) -> Any:
    """A byte-level BPE trained on a few lines, plus the family's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2TokenizerFast, __version__

    # Qwen2.5-VL's processor takes no other class in transformers 4.
    qwen = __version__ < "5" and style.tokens is SPECIAL_TOKENS
    tokenizer_class = Qwen2TokenizerFast if qwen else PreTrainedTokenizerFast
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((*_CORPUS, *corpus), trainer)
    bpe.add_special_tokens(list(style.tokens))
    if style.adds_bos:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{style.bos} $A", special_tokens=[(style.bos, bpe.token_to_id(style.bos))]
        )
    return tokenizer_class(
        tokenizer_object=bpe,
        bos_token=style.bos,
        eos_token=style.eos,
        pad_token=style.pad,
        additional_special_tokens=list(style.tokens[1:]),
        chat_template=style.chat,
        model_max_length=32768,
        padding_side="left",
    )
