"""What our objectives refuse because it would train something else than asked.

Two moments: when FinetuningArguments exist, and when all arguments are parsed. A third, when model,
data and accelerator are loaded, is in ``trainer_base``.
"""

from __future__ import annotations

import os
from typing import Any

from dft_factory.errors import ConfigError
from dft_factory.objectives import METHODS, Selection
from dft_factory.patch.table import OTHER_TRAINERS

OTHER_LOSSES = ("use_dft_loss", "use_eaft_loss", "use_asft_loss")
"""LLaMA-Factory's own loss switches, which silently shadow each other."""


def is_on(variable: str) -> bool:
    return os.getenv(variable, "0").lower() in ("true", "y", "1")


def refuse_arguments(asked: str, arguments: Any) -> None:
    """Refusals that FinetuningArguments and the environment decide."""
    for variable, name in OTHER_TRAINERS.items():
        # KTransformers also serves chat and export, so refuse_training refuses it.
        if variable != "USE_KT" and is_on(variable):
            raise ConfigError(
                f"finetuning_type: {asked!r} does not work with {name}, which has a loss of its "
                f"own. Unset the environment variable {variable}."
            )
    if arguments.stage != "sft":
        raise ConfigError(
            f"finetuning_type: {asked!r} needs stage: sft, not stage: {arguments.stage!r}: every "
            f"other stage has a loss of its own. Write stage: sft, or one of {', '.join(METHODS)} "
            "as finetuning_type."
        )
    others = [name for name in OTHER_LOSSES if getattr(arguments, name, False)]
    if others:
        raise ConfigError(
            f"finetuning_type: {asked!r} and {', '.join(others)}: true both choose a loss. Remove "
            f"{' and '.join(others)}."
        )
    if getattr(arguments, "use_hyper_parallel", False):  # not in 0.9.4
        raise ConfigError(
            f"finetuning_type: {asked!r} does not work with use_hyper_parallel: true, which has a "
            "loss of its own. Remove use_hyper_parallel."
        )


def refuse_training(
    selection: Selection, model: Any, data: Any, training: Any, finetuning: Any
) -> None:
    """Refusals that need more than FinetuningArguments."""
    asked = f"finetuning_type: {selection.name!r}"
    for switch in ("use_mca", "use_megatron_bridge"):
        if getattr(finetuning, switch, False):
            name = OTHER_TRAINERS[switch.upper()]
            raise ConfigError(
                f"{asked} does not work with {name}, which has a loss of its own. Remove {switch} "
                f"and unset the environment variable {switch.upper()}."
            )
    if model.use_kt or is_on("USE_KT"):
        raise ConfigError(
            f"{asked} does not work with KTransformers, whose trainer has a loss of its own. "
            "Remove use_kt and unset USE_KT."
        )
    if model.use_unsloth:
        raise ConfigError(
            f"{asked} does not work with use_unsloth: true: Unsloth replaces the model's forward "
            "and may return no logits. Remove use_unsloth."
        )
    if model.moe_aux_loss_coef:
        raise ConfigError(
            f"{asked} would drop the router loss that moe_aux_loss_coef: {model.moe_aux_loss_coef} "
            "asks for. Remove moe_aux_loss_coef."
        )
    if training.label_smoothing_factor:
        raise ConfigError(
            f"{asked} does not combine with label_smoothing_factor: "
            f"{training.label_smoothing_factor}. Remove label_smoothing_factor."
        )
    if not data.ignore_pad_token_for_loss:
        raise ConfigError(
            f"{asked} does not train on padding, which ignore_pad_token_for_loss: false asks for "
            "and whose amount depends on how the batch is split. Remove ignore_pad_token_for_loss."
        )
    if not training.average_tokens_across_devices and training.world_size > 1:
        raise ConfigError(
            f"{asked} normalises over the tokens of all ranks, which "
            "average_tokens_across_devices: false switches off. Remove "
            "average_tokens_across_devices."
        )
    if selection.weight.needs_sequence and (data.packing or data.neat_packing):
        raise ConfigError(
            f"{asked} with dft_weight: {selection.weight.spec!r} weighs whole examples, and "
            "packing joins several into one row. Remove packing and neat_packing, or choose a "
            "weight of single tokens."
        )


def refuse_empty_stream(data: Any, training: Any) -> None:
    """Refuse to stream local files without workers, which ends in a bare StopIteration.

    LLaMA-Factory splits such a data set into ``dataloader_num_workers`` shards.
    """
    if not data.streaming or training.dataloader_num_workers or data.tokenized_path:
        return
    from llamafactory.data.parser import get_dataset_list

    names = [*(data.dataset or ()), *(data.eval_dataset or ())]
    try:
        datasets = get_dataset_list(names, data.dataset_dir)
    except (OSError, ValueError):
        return  # not registered: LLaMA-Factory's own message is next
    local = [
        name for name, dataset in zip(names, datasets, strict=True) if dataset.load_from == "file"
    ]
    if local:
        raise ConfigError(
            f"streaming: true with dataloader_num_workers: 0 reads no example of "
            f"{', '.join(local)}: LLaMA-Factory splits local files into dataloader_num_workers "
            "shards. Write dataloader_num_workers: 1, or remove streaming."
        )
