"""What ``estimate`` does not cover, refused by name: never a wrong number in silence."""

from __future__ import annotations

from typing import Any

from dft_factory.errors import ConfigError

OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd")
"""torch's own, which the simulation runs."""

_MODEL = {
    "adapter_name_or_path": "an adapter that is trained further",
    "quantization_bit": "quantised weights (QLoRA)",
    "use_unsloth": "Unsloth's kernels",
    "use_unsloth_gc": "Unsloth's checkpointing, which moves activations to the CPU",
    "use_kt": "KTransformers",
    "enable_liger_kernel": "Liger's kernels",
    "mixture_of_depths": "mixture of depths",
    "resize_vocab": "a resized vocabulary",
    "shift_attn": "shifted sparse attention",
    "use_v1_kernels": "LLaMA-Factory's v1 kernels",
}
_FINETUNING = {
    "use_galore": "GaLore",
    "use_apollo": "APOLLO",
    "use_badam": "BAdam",
    "use_adam_mini": "Adam-mini",
    "use_muon": "Muon",
    "use_asft_loss": "a second model as reference",
    "pissa_init": "PiSSA, which decomposes the weights",
}
_TRAINING = {
    "fp16": "fp16; bf16 is covered",
    "fp8": "fp8",
    "torch_compile": "compiled models",
    "auto_find_batch_size": "a batch size that is looked for",
}


def refuse_uncovered(arguments: tuple[Any, ...]) -> None:
    """Refuse parsed LLaMA-Factory arguments that a simulated step does not stand for.

    Raises:
        ConfigError: naming each setting, its value and what it is.
    """
    model_args, _, training_args, finetuning_args, _ = arguments
    problems = [
        f"{key}: {getattr(part, key)!r} ({what})"
        for part, table in (
            (model_args, _MODEL),
            (finetuning_args, _FINETUNING),
            (training_args, _TRAINING),
        )
        for key, what in table.items()
        if getattr(part, key, None)
    ]
    if finetuning_args.stage != "sft":
        problems.append(f"stage: {finetuning_args.stage!r} (covered is sft)")
    optimizer = str(getattr(training_args.optim, "value", training_args.optim))
    if optimizer not in OPTIMIZERS:
        problems.append(f"optim: {optimizer!r} (covered are {', '.join(OPTIMIZERS)})")
    problems += _of_model(model_args)
    if problems:
        raise ConfigError(
            f"estimate does not cover {'; '.join(problems)}. Put KEY=VALUE after the YAML to "
            "estimate it without."
        )


def _of_model(model_args: Any) -> list[str]:
    from llamafactory.model.loader import load_config

    config = load_config(model_args)
    problems = []
    if getattr(config, "quantization_config", None):
        problems.append("model_name_or_path: its weights are quantised")
    for part in (config, getattr(config, "text_config", None)):
        for key in ("num_experts", "num_local_experts", "n_routed_experts"):
            if (getattr(part, key, None) or 0) > 1:
                problems.append(f"model_name_or_path: mixture of experts ({key} in config.json)")
    return problems
