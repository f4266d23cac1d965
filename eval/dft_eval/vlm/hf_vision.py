"""Prompts with pictures to greedy completions, batched, by a vision-language model of transformers.

Qwen2-VL, Qwen2.5-VL and models with their interface. A picture is resized by Qwen's own
``qwen_vl_utils`` into the pixel range asked for and then goes through the checkpoint's processor,
as in VLMEvalKit 0.0.20 (``Qwen2VLChat``). Rows of like length run together, padded on the left;
the prompt is read once and rows that have ended leave the batch and its cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from dft_eval.benchmark import PixelRange, is_installed
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.generation import hf_load
from dft_eval.generation.chat import decode_text, render_chat, stop_tokens
from dft_eval.generation.hf_cache import new_cache, select
from dft_eval.generation.hf_prepare import memory_errors
from dft_eval.generation.hf_sampling import check_generation_config, entropy, penalise
from dft_eval.generation.run import Completion, Decoding, Prompt, cut, noop
from dft_eval.model_files import PROCESSOR, ModelFiles

STEPS_BETWEEN_CHECKS = 16
"""Tokens made before the rows that have ended are looked for (a GPU waits at each look)."""

MAX_BATCH_TOKENS = 65_536
"""Prompt tokens, padding included, of one batch: what its cache and pictures may take."""


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
        lengths = [
            prompt_tokens(processor, prompt, self._pixels, decoding.system_prompt)
            for prompt in prompts
        ]
        return batches(lengths, decoding.batch_size, MAX_BATCH_TOKENS)

    def complete(
        self,
        prompts: Sequence[Prompt],
        decoding: Decoding,
        ended: Callable[[Completion], None] = noop,
    ) -> list[Completion]:
        """Greedy completions of one batch."""
        with memory_errors(decoding.batch_size):
            return complete_batch(*self._load(), prompts, decoding, self._pixels, ended)


def batches(lengths: Sequence[int], size: int, max_tokens: int) -> list[list[int]]:
    """Indices in fixed batches, longest first, none above ``size`` rows or (with more than one
    row) ``max_tokens`` padded tokens."""
    planned: list[list[int]] = []
    room = 0
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if room == 0:
            planned.append([])
            room = max(1, min(size, max_tokens // max(1, lengths[i])))
        planned[-1].append(i)
        room -= 1
    return planned


def render(processor: Any, prompt: Prompt, system_prompt: str | None = None) -> str:
    """The whole input: one user turn, pictures before the text, in the processor's template.

    Raises:
        UsageError: a raw prompt; pictures are shown in a chat alone.
    """
    if not prompt.chat:
        raise UsageError(f"{prompt.id}: a prompt with pictures is a chat (--prompt-style chat).")
    content = [{"type": "image"} for _ in prompt.images] + [{"type": "text", "text": prompt.text}]
    return f"{render_chat(processor, content, system_prompt)}{prompt.answer_begins}"


def prompt_tokens(
    processor: Any, prompt: Prompt, pixels: PixelRange, system_prompt: str | None = None
) -> int:
    """Length of the prompt in tokens, pictures included, without decoding a picture."""
    from PIL import Image
    from qwen_vl_utils.vision_process import smart_resize  # type: ignore[import-untyped]

    patch = processor.image_processor.patch_size * processor.image_processor.merge_size
    count = len(processor.tokenizer(render(processor, prompt, system_prompt))["input_ids"])
    for path in prompt.images:
        with Image.open(path) as picture:
            width, height = picture.size
        height, width = smart_resize(height, width, patch, pixels.min_pixels, pixels.max_pixels)
        count += height * width // patch**2
    return count


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


def complete_batch(
    model: Any,
    processor: Any,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    pixels: PixelRange,
    ended: Callable[[Completion], None] = noop,
) -> list[Completion]:
    """Greedy completions of one batch."""
    import torch

    texts = [render(processor, prompt, decoding.system_prompt) for prompt in prompts]
    inputs = _inputs(processor, prompts, texts, pixels).to(hf_load.first_device(model))
    check_generation_config(model.generation_config)
    ends = stop_tokens(model, processor, chat=True)
    penalty = decoding.repetition_penalty
    rows: dict[int, Completion] = {}
    active = list(range(len(prompts)))
    new_ids: list[list[int]] = [[] for _ in prompts]
    entropies: list[list[float]] = [[] for _ in prompts]
    with torch.inference_mode():
        mask, cache = inputs["attention_mask"], new_cache(model.config)
        output = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        # Pictures take fewer positions than tokens; the difference goes on for every later token.
        shift = output.rope_deltas if inputs.get("pixel_values") is not None else 0
        seen = torch.zeros_like(output.logits[:, -1], dtype=torch.bool)
        if penalty != 1.0:
            for row, ids, held in zip(seen, inputs["input_ids"], mask.bool(), strict=True):
                row[ids[held]] = True
        while active:
            tokens, nats = [], []
            for _ in range(STEPS_BETWEEN_CHECKS):
                logits = output.logits[:, -1].float()
                if penalty != 1.0:
                    logits = penalise(logits, seen, penalty)
                nats.append(entropy(logits, logits.softmax(-1)))
                tokens.append(logits.argmax(-1))
                seen.scatter_(1, tokens[-1][:, None], value=True)
                if len(new_ids[active[0]]) + len(tokens) >= decoding.max_new_tokens:
                    break
                mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
                positions = mask.sum(1, keepdim=True) - 1 + shift
                output = model(
                    input_ids=tokens[-1][:, None],
                    attention_mask=mask,
                    position_ids=positions.expand(3, -1, -1),
                    past_key_values=cache,
                    use_cache=True,
                )
            columns = (torch.stack(each, dim=1).tolist() for each in (tokens, nats))
            for i, new, values in zip(active, *columns, strict=True):
                new_ids[i] += new
                entropies[i] += values
                row = _ended(
                    processor.tokenizer, prompts[i].id, texts[i], new_ids[i], ends, decoding
                )
                if row is not None:
                    with_end = entropies[i][: row.n_tokens + 1]
                    row = row.model_copy(update={"mean_entropy": round(fmean(with_end), 6)})
                    rows[i] = row
                    ended(row)
            stay = [place for place, i in enumerate(active) if i not in rows]
            if stay and len(stay) < len(active):
                mask = select(cache, mask, stay)
                output.logits, seen = output.logits[stay], seen[stay]
                shift = shift if isinstance(shift, int) else shift[stay]
            active = [active[place] for place in stay]
    return [rows[i] for i in range(len(prompts))]


def _ended(
    tokenizer: Any, id: str, prompt: str, ids: list[int], ends: set[int], decoding: Decoding
) -> Completion | None:
    """The completion of one row, if it has ended; what follows its end is dropped."""
    end = next((i for i, token in enumerate(ids) if token in ends), None)
    if end is None and not decoding.stop and len(ids) < decoding.max_new_tokens:
        return None
    text = decode_text(tokenizer, ids if end is None else ids[:end])
    text, stopped = cut(text, decoding.stop)
    finished = stopped or end is not None
    if not finished and len(ids) < decoding.max_new_tokens:
        return None
    return Completion(
        id=id,
        prompt=prompt,
        completion=text,
        finish_reason="stop" if finished else "length",
        n_tokens=len(ids) if end is None else end,
    )
