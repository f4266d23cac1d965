"""The settings of a training YAML, as a probe needs them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dft_factory.errors import ConfigError
from dft_factory.objectives import select
from dft_factory.validate.files import read

TRAINING_ONLY = (
    *("deepspeed", "fsdp", "fsdp_config", "resume_from_checkpoint", "eval_on_start"),
    *("eval_dataset", "eval_strategy", "do_eval", "do_predict", "predict_with_generate"),
    *("load_best_model_at_end", "push_to_hub", "dft_weight", "preprocessing_num_workers"),
    # Examples one by one: a packed row would be several of them.
    *("packing", "neat_packing"),
)
"""Settings of a training YAML that a single forward pass must not bring up."""


def read_config(path: Path, words: Sequence[str] = ()) -> dict[str, Any]:
    """The settings, with ``KEY=VALUE`` words put over them as after ``llamafactory-cli train``.

    Raises:
        ConfigError: no such file, no settings, or a word that is not KEY=VALUE.
    """
    config, findings = read(path)
    if config is None or findings:
        raise ConfigError("\n".join(map(str, findings)))
    for word in words:
        key, equals, _ = word.partition("=")
        if not (key and equals):
            raise ConfigError(f"{word!r}: write KEY=VALUE.")
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged = OmegaConf.merge(config.values, OmegaConf.from_cli(list(words)))
        return dict(OmegaConf.to_container(merged))  # type: ignore[arg-type]
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{' '.join(words)}: not KEY=VALUE words: {error}") from error


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse what a probe cannot do.

    Raises:
        ConfigError: naming the setting, what is possible and the fix.
    """
    stage = config.get("stage", "sft")
    if stage != "sft":
        raise ConfigError(
            f"stage: {stage!r} has no labelled answers that a probe could read. Possible: "
            "stage: sft; if the data fits it, add stage=sft after the YAML."
        )
    select(config.get("finetuning_type", "lora"), config.get("dft_weight"))
    if config.get("streaming"):
        raise ConfigError(
            "streaming: true: a stream cannot be sampled. Add streaming=false after the YAML, and "
            "max_samples=N if the data set is too large to load."
        )
    for key in ("dataset", "template"):
        if not config.get(key) and not config.get("tokenized_path"):
            raise ConfigError(f"{key} is not set. Name the training set's in the YAML.")


def settings_for(config: Mapping[str, Any], model: str | None, scratch: str) -> dict[str, Any]:
    """LLaMA-Factory's settings for one model; None stands for the YAML's own.

    Raises:
        ConfigError: no model is named, or an adapter's base is not.
    """
    settings = {key: value for key, value in config.items() if key not in TRAINING_ONLY}
    selection = select(config.get("finetuning_type", "lora"), config.get("dft_weight"))
    if selection is not None:
        settings["finetuning_type"] = selection.method
    settings.update(output_dir=scratch, report_to="none", do_train=True)
    if not Path(str(settings.get("tokenized_path"))).is_dir():
        settings.pop("tokenized_path", None)  # LLaMA-Factory would write the sample there
    if model is None:
        if not settings.get("model_name_or_path"):
            raise ConfigError("model_name_or_path is not set. Set it, or name models by --model.")
        return settings
    settings.pop("adapter_name_or_path", None)
    settings["model_name_or_path"] = model
    adapter = Path(model) / "adapter_config.json"
    if adapter.is_file():
        described = json.loads(adapter.read_text(encoding="utf-8"))
        base = described.get("base_model_name_or_path")
        if not base:
            raise ConfigError(f"{adapter} names no base_model_name_or_path. Add it.")
        method = str(described.get("peft_type", "LORA")).lower()
        settings.update(model_name_or_path=base, adapter_name_or_path=model, finetuning_type=method)
    return settings
