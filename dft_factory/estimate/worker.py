"""Subprocess of ``estimate``: the part that imports LLaMA-Factory.

Answers a job with the simulated step, or with the message of a refusal.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dft_factory.errors import ConfigError
from dft_factory.worker_process import serve

FLASH = ("fa2", "fa3")
"""Kernels that are no part of torch; its own keep the same tensors."""
BESIDE_STEPS = (
    *("eval_strategy", "eval_steps", "eval_on_start", "do_eval", "do_predict", "eval_dataset"),
    *("load_best_model_at_end", "predict_with_generate", "push_to_hub", "plot_loss"),
    *("resume_from_checkpoint", "save_steps", "compute_accuracy", "early_stopping_steps"),
    *("score_task", "score_steps", "score_limit"),
)
"""Settings of what a training does beside its steps: left out, they change no step."""


def parse(values: Mapping[str, Any], scratch: str, *, zero: bool, fsdp: bool) -> tuple[Any, ...]:
    """LLaMA-Factory's parsed arguments, whatever this machine has.

    Args:
        zero: DeepSpeed's engine holds the model itself in bf16, without autocast.
        fsdp: LLaMA-Factory checkpoints without reentrance there.
    """
    from llamafactory.hparams import parser

    changes: dict[str, Any] = {"output_dir": scratch, "use_cpu": True, "report_to": "none"}
    changes.update(train_from_scratch=True, tokenized_path=None, tf32=None, deepspeed=None)
    changes.update(overwrite_output_dir=None, **dict.fromkeys(BESIDE_STEPS))
    if values.get("flash_attn") in FLASH:
        changes["flash_attn"] = "sdpa"
    if zero:
        changes.update(bf16=False, pure_bf16=True)
    if fsdp:
        changes["use_reentrant_gc"] = False
    merged = {k: v for k, v in {**values, **changes}.items() if v is not None}
    with _bf16_everywhere():
        return tuple(parser.get_train_args(merged))


@contextmanager
def _bf16_everywhere() -> Iterator[None]:
    """The GPU of the training need not be in this machine."""
    import transformers.training_args
    from llamafactory.hparams import parser

    name = "is_torch_bf16_gpu_available"
    modules = (parser, transformers.training_args)
    originals = [getattr(module, name) for module in modules]
    for module in modules:
        setattr(module, name, lambda: True)
    try:
        yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            setattr(module, name, original)


def full_row(
    arguments: tuple[Any, ...], tokenizer_module: Mapping[str, Any], template: Any, pictures: int
) -> dict[str, Any]:
    """One example of exactly cutoff_len tokens with the largest pictures that the YAML admits.

    Raises:
        ConfigError: pictures that the model does not take, or that fill cutoff_len.
    """
    from llamafactory.extras.constants import IGNORE_INDEX, IMAGE_PLACEHOLDER
    from PIL import Image

    model_args, data_args = arguments[:2]
    tokenizer, processor = tokenizer_module["tokenizer"], tokenizer_module["processor"]
    if pictures and (processor is None or template.mm_plugin.image_token is None):
        raise ConfigError(
            f"--pictures {pictures}: template {data_args.template!r} with this model takes none."
        )
    side = int(model_args.image_max_pixels**0.5)
    images = [Image.new("RGB", (side, side)) for _ in range(pictures)]
    messages = [
        {"role": "user", "content": IMAGE_PLACEHOLDER * pictures + "Go."},
        {"role": "assistant", "content": "Gone."},
    ]
    messages = template.mm_plugin.process_messages(messages, images, [], [], processor)
    before, _ = template.mm_plugin.process_token_ids([], [], images, [], [], tokenizer, processor)
    prompt, answer = template.encode_oneturn(tokenizer, messages)
    prompt = [*before, *prompt]
    room = data_args.cutoff_len - len(prompt)
    if room < 1:
        raise ConfigError(
            f"cutoff_len: {data_args.cutoff_len} is too short for {pictures} pictures of "
            f"{model_args.image_max_pixels} pixels ({len(prompt)} tokens). Lower image_max_pixels, "
            "or --pictures."
        )
    answer = (answer * room)[:room]
    return {
        "input_ids": prompt + answer,
        "attention_mask": [1] * data_args.cutoff_len,
        "labels": [IGNORE_INDEX] * len(prompt) + answer,
        "images": images,
        "videos": [],
        "audios": [],
    }


SAMPLE = 256
"""Examples whose mean length stands for all."""


def _plan(
    arguments: tuple[Any, ...], template: Any, tokenizer_module: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``duration.duration_of`` needs."""
    from dft_factory.probe.measure import sample_dataset

    model_args, data_args, training_args = arguments[:3]
    examples, mean = None, None
    if _is_local(data_args):
        sample, examples = sample_dataset(
            *(template, model_args, data_args, training_args, tokenizer_module, SAMPLE, 0)
        )
        mean = sum(map(len, sample["input_ids"])) / len(sample)
    return {
        "max_steps": max(0, training_args.max_steps),
        "epochs": training_args.num_train_epochs,
        "rows": training_args.per_device_train_batch_size,
        "accumulated": training_args.gradient_accumulation_steps,
        "cutoff_len": data_args.cutoff_len,
        "examples": examples,
        "mean_tokens": mean,
    }


def _is_local(data_args: Any) -> bool:
    """Whether the files of every data set are on this machine."""
    folder = Path(data_args.dataset_dir)
    try:
        entries = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    names = data_args.dataset or ()
    files = [(entries.get(name) or {}).get("file_name") for name in names]
    return bool(files) and all(file and (folder / file).exists() for file in files)


def estimate(job: Mapping[str, Any]) -> dict[str, Any]:
    """Simulate one job.

    A job has ``values``, ``pictures`` (None for one, where the model takes pictures), ``on_gpu``,
    ``sharded``, ``zero``, and ``plan``: whether to count examples and tokens.
    """
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer

    from dft_factory.estimate.coverage import refuse_uncovered
    from dft_factory.estimate.simulate import simulate

    with tempfile.TemporaryDirectory() as scratch:
        fsdp = job["sharded"] and not job["zero"]
        arguments = parse(job["values"], scratch, zero=job["zero"], fsdp=fsdp)
        refuse_uncovered(arguments)
        model_args, data_args, training_args = arguments[:3]
        tokenizer_module = load_tokenizer(model_args)
        template = get_template_and_fix_tokenizer(tokenizer_module["tokenizer"], data_args)
        pictures = job["pictures"]
        if pictures is None:
            takes = tokenizer_module["processor"] is not None and template.mm_plugin.image_token
            pictures = int(bool(takes))
        row = full_row(arguments, tokenizer_module, template, pictures)
        simulated = simulate(
            arguments,
            [row] * training_args.per_device_train_batch_size,
            tokenizer_module,
            template,
            on_gpu=job["on_gpu"],
            sharded=job["sharded"],
        )
        plan = _plan(arguments, template, tokenizer_module) if job["plan"] else None
    return {
        **dataclasses.asdict(simulated),
        "plan": plan,
        "batch": training_args.per_device_train_batch_size,
        "cutoff_len": data_args.cutoff_len,
        "pictures": pictures,
        "image_max_pixels": model_args.image_max_pixels,
        "width": model_args.compute_dtype.itemsize if model_args.compute_dtype else 4,
    }


if __name__ == "__main__":
    serve(estimate)
