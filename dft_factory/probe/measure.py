"""Log-probabilities of a training YAML's data, through LLaMA-Factory's own data and model code."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from dft_factory.errors import ConfigError
from dft_factory.losses.token import IGNORE_INDEX, per_token_logps, shift_labels
from dft_factory.probe.statistics import TokenProbabilities, summarise

TRAINING_ONLY = ("deepspeed", "fsdp", "fsdp_config", "resume_from_checkpoint", "eval_on_start")
"""Settings of a training YAML that a single forward pass must not bring up."""


def read_config(path: Path) -> dict[str, Any]:
    """The training YAML as a mapping.

    Raises:
        ConfigError: no such file, or no mapping.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file.")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ConfigError(f"{path} holds no mapping of settings.")
    return config


def measure(
    config: Mapping[str, Any],
    models: Mapping[str, str],
    *,
    limit: int = 64,
    seed: int = 0,
    progress: Callable[[str, int, int], None],
) -> list[TokenProbabilities]:
    """Token probabilities of the YAML's training set under each model.

    Args:
        config: a LLaMA-Factory training YAML; its data, template and precision are used.
        models: label -> model folder or hub id.
        limit: examples, sampled with ``seed``; the same for every model.
        progress: called with (label, done, all) after each batch.
    """
    from llamafactory.data import SFTDataCollatorWith4DAttentionMask, get_dataset
    from llamafactory.data import get_template_and_fix_tokenizer as get_template
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_model, load_tokenizer

    found: list[TokenProbabilities] = []
    for label, name in models.items():
        with tempfile.TemporaryDirectory() as scratch:
            settings = {key: value for key, value in config.items() if key not in TRAINING_ONLY}
            settings.update(model_name_or_path=name, output_dir=scratch)
            model_args, data_args, training_args, finetuning_args, _ = get_train_args(settings)
            module = load_tokenizer(model_args)
            template = get_template(module["tokenizer"], data_args)
            dataset = get_dataset(
                template, model_args, data_args, training_args, stage="sft", **module
            )["train_dataset"]
            model = load_model(module["tokenizer"], model_args, finetuning_args, False).eval()
            collator = SFTDataCollatorWith4DAttentionMask(
                template=template, model=model, label_pad_token_id=IGNORE_INDEX, **module
            )
            chosen = random.Random(seed).sample(range(len(dataset)), min(limit, len(dataset)))
            size = training_args.per_device_train_batch_size
            groups = [chosen[start : start + size] for start in range(0, len(chosen), size)]
            logps: list[Tensor] = []
            for done, group in enumerate(groups, start=1):
                logps.append(_batch_logps(model, collator, [dataset[i] for i in group]))
                progress(label, done, len(groups))
            found.append(
                summarise(
                    torch.cat(logps),
                    model=name,
                    label=label,
                    dataset=", ".join(data_args.dataset or []),
                    n_examples=len(chosen),
                )
            )
    return found


def _batch_logps(model: Any, collator: Any, examples: Sequence[Any]) -> Tensor:
    """(n,) log-probabilities of the labelled tokens of one batch, on the CPU."""
    batch = {k: v.to(model.device) for k, v in collator(examples).items() if torch.is_tensor(v)}
    labels = batch.pop("labels")
    with torch.inference_mode():
        logits = model(**batch).logits
        targets = shift_labels(labels)
        labelled = targets.ne(IGNORE_INDEX)
        return per_token_logps(logits[labelled], targets[labelled]).cpu()
