"""Prompts with pictures to completions, batched, by a vision-language model of transformers.

Qwen2-VL, Qwen2.5-VL and models with their interface. A picture is resized by Qwen's own
``qwen_vl_utils`` into the pixel range asked for and then goes through the checkpoint's processor,
as in VLMEvalKit 0.0.20 (``Qwen2VLChat``). The decoding loop is that of text (``hf_decode``); a
picture is read from its file when its row begins.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

from dft_eval.benchmark import PixelRange, is_installed
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.generation import hf_load
from dft_eval.generation.chat import render_chat
from dft_eval.generation.hf_cache import new_cache
from dft_eval.generation.hf_decode import Prefill, State
from dft_eval.generation.hf_prepare import memory_errors
from dft_eval.generation.hf_text import GROUP, complete_rendered
from dft_eval.generation.run import Completion, Decoding, Prompt, noop
from dft_eval.model_files import PROCESSOR, ModelFiles

MAX_BATCH_TOKENS = 65_536
"""Prompt tokens, padding included, of rows that run together: what cache and pictures may take."""


def load(
    files: ModelFiles, dtype: str, device_map: hf_load.DeviceMap | None = None
) -> tuple[Any, Any]:
    """Model and processor; arguments as :func:`~dft_eval.generation.hf_load.load`.

    Raises:
        UsageError, PrerequisiteError: as :func:`load_processor`.
    """
    from transformers import AutoModelForImageTextToText

    processor = load_processor(files)
    return hf_load.load(AutoModelForImageTextToText, files, dtype, device_map), processor


def load_processor(files: ModelFiles) -> Any:
    """The processor of a vision-language model.

    Raises:
        UsageError: no processor, or no vision-language model.
        PrerequisiteError: qwen_vl_utils is not installed.
    """
    from transformers import AutoProcessor

    if not is_installed("qwen-vl-utils"):
        raise PrerequisiteError(
            "The Python package qwen-vl-utils is missing: uv pip install 'dft-factory[vl]'."
        )
    folders = files.settings_folders
    holds = [folder / name for name in PROCESSOR for folder in folders if (folder / name).is_file()]
    if not holds:
        raise UsageError(
            f"--model {files.name!r}: no preprocessor_config.json or processor_config.json in "
            f"{files.folder}: this model reads no pictures."
        )
    processor = AutoProcessor.from_pretrained(holds[0].parent)
    processor.tokenizer.padding_side = "left"
    kind = json.loads((files.base or files.folder).joinpath("config.json").read_text("utf-8"))
    if not str(kind.get("model_type", "")).startswith("qwen2"):
        raise UsageError(
            f"--model {files.name!r}: model_type {kind.get('model_type')!r}. Prompts with pictures "
            "are answered by qwen2_vl and qwen2_5_vl models here; serve others with an "
            "OpenAI-compatible server."
        )
    return processor


class HfVisionBackend:
    """A vision-language model of transformers; loaded when it is first needed."""

    def __init__(
        self, identity: str, pixels: PixelRange, load: Callable[[], tuple[Any, Any]]
    ) -> None:
        self._identity = f"{identity} pixels {pixels.min_pixels}-{pixels.max_pixels}"
        self._pixels = pixels
        self._load = load

    @property
    def identity(self) -> str:
        """The hashes of the model's weights and settings, and the pixel range."""
        return self._identity

    def batches(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[list[int]]:
        """Prompts of like length together, longest first."""
        _, processor = self._load()
        texts = [render(processor, prompt, decoding.system_prompt) for prompt in prompts]
        ids = prompt_ids(processor, prompts, texts, self._pixels)
        return batches([len(each) for each in ids], decoding.batch_size, MAX_BATCH_TOKENS)

    def complete(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        ended: Callable[[Completion], None] = noop,
    ) -> list[Completion]:
        """Completions of one batch."""
        with memory_errors(decoding.batch_size):
            return complete_batch(*self._load(), prompts, decoding, self._pixels, ended)


def rows_together(longest: int, size: int, max_tokens: int) -> int:
    """Rows that run together: ``size``, or fewer (at least one) whose prompts, padded to the
    longest, take ``max_tokens``."""
    return max(1, min(size, max_tokens // longest))


def batches(lengths: Sequence[int], size: int, max_tokens: int) -> list[list[int]]:
    """Indices in fixed batches, longest first, of ``GROUP`` times the rows that run together."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    planned: list[list[int]] = []
    start = 0
    while start < len(order):
        rows = GROUP * rows_together(lengths[order[start]], size, max_tokens)
        planned.append(order[start : start + rows])
        start += rows
    return planned


def render(processor: Any, prompt: Prompt, system_prompt: str | None = None) -> str:
    """The whole input: one user turn, pictures before the text, in the processor's template.

    Raises:
        UsageError: a raw prompt (pictures are shown in a chat alone), or one with the model's
            placeholder of a picture in its text.
    """
    if not prompt.chat:
        raise UsageError(f"{prompt.id}: a prompt with pictures is a chat (--prompt-style chat).")
    if processor.image_token in prompt.text:
        raise UsageError(
            f"{prompt.id}: the question holds {processor.image_token!r}, which stands for a "
            "picture. Remove it from the question's text."
        )
    content = [{"type": "image"} for _ in prompt.images] + [{"type": "text", "text": prompt.text}]
    return f"{render_chat(processor, content, system_prompt)}{prompt.answer_begins}"


def prompt_ids(
    processor: Any, prompts: Sequence[Prompt], texts: Sequence[str], pixels: PixelRange
) -> list[list[int]]:
    """Token ids of rendered prompts, pictures included, without decoding a picture."""
    return [
        _expanded(processor, ids, prompt.images, pixels)
        for prompt, ids in zip(prompts, processor.tokenizer(list(texts))["input_ids"], strict=True)
    ]


def _expanded(
    processor: Any, ids: Sequence[int], images: Sequence[str], pixels: PixelRange
) -> list[int]:
    """``ids`` with the placeholder of each picture as often as the picture has tokens."""
    from PIL import Image
    from qwen_vl_utils.vision_process import smart_resize  # type: ignore[import-untyped]

    patch = processor.image_processor.patch_size * processor.image_processor.merge_size
    placeholder = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    expanded: list[int] = []
    paths = iter(images)
    for token in ids:
        count = 1
        if token == placeholder:
            with Image.open(next(paths)) as picture:
                width, height = picture.size
            sides = smart_resize(height, width, patch, pixels.min_pixels, pixels.max_pixels)
            count = sides[0] * sides[1] // patch**2
        expanded += [token] * count
    return expanded


def _inputs(processor: Any, prompts: Sequence[Prompt], texts: list[str], pixels: PixelRange) -> Any:
    from qwen_vl_utils import fetch_image  # type: ignore[import-untyped]

    patch = processor.image_processor.patch_size
    limits = {"min_pixels": pixels.min_pixels, "max_pixels": pixels.max_pixels}
    pictures = [
        fetch_image({"image": path, **limits}, image_patch_size=patch)
        for prompt in prompts
        for path in prompt.images
    ]
    return processor(text=texts, images=pictures or None, padding=True, return_tensors="pt")


class _PicturePrefill(Prefill):
    """Runs prompts with pictures, whose files are read then."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        prompts: Sequence[Prompt],
        texts: Sequence[str],
        pixels: PixelRange,
    ) -> None:
        super().__init__(model, prompt_ids(processor, prompts, texts, pixels))
        self._processor = processor
        self._chats = prompts
        self._texts = texts
        self._pixels = pixels

    def key(self, row: int) -> Hashable:
        return self._texts[row], self._chats[row].images

    def run(self, rows: list[int]) -> tuple[Any, State]:
        chats, texts = [self._chats[row] for row in rows], [self._texts[row] for row in rows]
        inputs = _inputs(self._processor, chats, texts, self._pixels)
        inputs = inputs.to(hf_load.first_device(self.model))
        mask, cache = inputs["attention_mask"], new_cache(self.model.config)
        positions = mask.sum(1, keepdim=True) - 1
        pictures = inputs.get("pixel_values") is not None
        if not pictures:  # the model would count the blanks of padding
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0).expand(3, -1, -1)
        output = self.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        if pictures:  # they take fewer positions than tokens
            positions = positions + output.rope_deltas.to(mask.device)
        return output.logits[:, -1], State(mask, positions.expand(3, -1, -1), cache)


def complete_batch(
    model: Any,
    processor: Any,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    pixels: PixelRange,
    ended: Callable[[Completion], None] = noop,
) -> list[Completion]:
    """Completions of one group of prompts."""
    texts = [render(processor, prompt, decoding.system_prompt) for prompt in prompts]
    prefill = _PicturePrefill(model, processor, prompts, texts, pixels)
    longest = max(map(len, prefill.prompts))
    rows = rows_together(longest, decoding.batch_size, MAX_BATCH_TOKENS)
    decoding = replace(decoding, batch_size=rows)
    return complete_rendered(processor, prompts, texts, prefill, decoding, ended)
