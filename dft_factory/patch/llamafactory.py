"""The replacements that the patch table names; the only module that knows LLaMA-Factory's insides.

Every factory takes LLaMA-Factory's own object and returns one that behaves the same until one of
our objectives is asked for.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Any, Literal, Optional

from dft_factory.errors import ConfigError
from dft_factory.losses.weights import weight_choices
from dft_factory.objectives import (
    METHODS,
    OBJECTIVES,
    Selection,
    finetuning_types,
    select,
    selection_of,
    split_finetuning_type,
)
from dft_factory.patch import apply
from dft_factory.patch.checkpoint import check_output_dir, choose_checkpoint
from dft_factory.patch.table import OTHER_TRAINERS

OTHER_LOSSES = ("use_dft_loss", "use_eaft_loss", "use_asft_loss")
"""LLaMA-Factory's own loss switches, which silently shadow each other."""


def _is_on(variable: str) -> bool:
    return os.getenv(variable, "0").lower() in ("true", "y", "1")


def _refuse_arguments(asked: str, arguments: Any) -> None:
    """Refusals that FinetuningArguments and the environment decide."""
    for variable, name in OTHER_TRAINERS.items():
        # KTransformers also serves chat and export, so _refuse_training refuses it.
        if variable != "USE_KT" and _is_on(variable):
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


def widen_finetuning_arguments(base: type) -> type:
    """FinetuningArguments that also accept our objectives."""
    types = Literal[(*METHODS, *finetuning_types())]  # type: ignore[valid-type]

    def post_init(self: Any) -> None:
        asked = self.finetuning_type
        selection = select(asked, self.dft_weight)
        self.dft_objective = None
        if selection is not None:
            apply.require_intact()
            _refuse_arguments(asked, self)
            self.finetuning_type = selection.method
            self.dft_objective = selection.objective.name
            self.dft_weight = selection.weight.spec if selection.objective.weighted else None
        base.__post_init__(self)  # type: ignore[attr-defined]

    summaries = "; ".join(f"{each.name}: {each.summary}" for each in OBJECTIVES.values())
    return make_dataclass(
        base.__name__,
        [
            (
                "finetuning_type",
                types,
                field(
                    default=base.__dataclass_fields__["finetuning_type"].default,  # type: ignore[attr-defined]
                    metadata={
                        "help": "Which fine-tuning method to use, or <objective>[_<method>] with "
                        f"dft-factory's objectives. {summaries}."
                    },
                ),
            ),
            (
                "dft_weight",
                Optional[str],  # noqa: UP045 - HfArgumentParser does not know `str | None` everywhere
                field(
                    default=None,
                    metadata={
                        "help": "Token weight of the dft objective: "
                        f"{', '.join(weight_choices())} (default: token)."
                    },
                ),
            ),
            ("dft_objective", Optional[str], field(default=None, init=False)),  # noqa: UP045
        ],
        bases=(base,),
        namespace={
            "__post_init__": post_init,
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "__doc__": base.__doc__,
        },
    )


def refuse_objectives(base: type) -> type:
    """Where the sources are unknown: our objectives are refused, all else is untouched."""
    original = base.__post_init__  # type: ignore[attr-defined]

    @functools.wraps(original)
    def post_init(self: Any) -> None:
        if self.finetuning_type in finetuning_types():
            raise ConfigError(
                f"finetuning_type: {self.finetuning_type!r}: {apply.unsupported_message()}"
            )
        original(self)

    return type(
        base.__name__,
        (base,),
        {
            "__post_init__": post_init,
            "__module__": base.__module__,
            "__qualname__": base.__qualname__,
            "__doc__": base.__doc__,
        },
    )


def _refuse_training(
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
    if model.use_kt or _is_on("USE_KT"):
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


def _track_nll(
    selection: Selection, written: Collection[str], data: Any, training: Any, finetuning: Any
) -> None:
    """The best model, early stopping and plateaus go by the NLL, lower is better.

    Not by the objective: -p·log p rises until p = 1/e, so a model that improves may look worse.
    transformers takes a greater metric for the better one unless its name ends in "loss".

    Args:
        written: the keys that the user wrote.
    """
    asked = f"finetuning_type: {selection.name!r}"
    if "metric_for_best_model" not in written:
        unused = training.metric_for_best_model is None and training.save_strategy != "best"
        if unused and finetuning.early_stopping_steps is None:
            return
        if data.eval_on_each_dataset:
            choices = ", ".join(f"eval_{name}_nll" for name in data.eval_dataset or ())
            raise ConfigError(
                f"metric_for_best_model is not set, and eval_on_each_dataset: true has one NLL for "
                f"each data set. Choose from: {choices}."
            )
        training.metric_for_best_model = "eval_nll"
    metric = training.metric_for_best_model
    if metric.endswith("loss"):
        raise ConfigError(
            f"metric_for_best_model: {metric!r} may rise under {asked} while the model improves: "
            f"-p·log p has its maximum at p = 1/e. Write {metric.removesuffix('loss')}nll, or "
            "remove the line: the NLL is the default."
        )
    if metric.endswith("nll"):
        if "greater_is_better" in written and training.greater_is_better:
            raise ConfigError(
                f"greater_is_better: true with metric_for_best_model: {metric!r} would keep the "
                "worst model. Remove greater_is_better."
            )
        training.greater_is_better = False


def _written_keys(args: Mapping[str, Any] | Sequence[str]) -> set[str]:
    """The keys of arguments that are not parsed yet: a mapping, or command line words."""
    if isinstance(args, Mapping):
        return set(args)
    return {word[2:].partition("=")[0] for word in args if word.startswith("--")}


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


def check_training_arguments(original: Callable[..., Any]) -> Callable[..., Any]:
    """Parse as LLaMA-Factory does, then refuse what our objectives cannot honour."""

    @functools.wraps(original)
    def parse(args: Any = None) -> Any:
        from llamafactory.hparams.parser import read_args

        args = read_args(args)
        written = _written_keys(args)  # parsing may change args
        parsed = original(args)
        model, data, training, finetuning, _ = parsed
        selection = selection_of(finetuning)
        if selection is not None:
            apply.require_intact()
            _refuse_training(selection, model, data, training, finetuning)
            _track_nll(selection, written, data, training, finetuning)
            if training.do_train:
                check_output_dir(training.output_dir)
                choose_checkpoint(training)
            refuse_empty_stream(data, training)
        return parsed

    return parse


def _raw_finetuning_type(args: Any) -> Any:
    """``finetuning_type`` in arguments that are not parsed yet: a mapping, a YAML, or words."""
    if isinstance(args, Mapping):
        return args.get("finetuning_type")
    words = list(args) if args is not None else sys.argv[1:]
    value: Any = None
    if words and words[0].endswith((".yaml", ".yml", ".json")):
        import yaml

        loaded = yaml.safe_load(Path(words[0]).read_text(encoding="utf-8"))
        value = loaded.get("finetuning_type") if isinstance(loaded, Mapping) else None
    for index, word in enumerate(words):
        name, equals, given = word.lstrip("-").partition("=")
        if name == "finetuning_type":
            value = given if equals else (words[index + 1] if index + 1 < len(words) else None)
    return value


def refuse_objectives_in_v1(original: Callable[..., Any]) -> Callable[..., Any]:
    """LLaMA-Factory v1's parser, which refuses our objectives by name."""

    @functools.wraps(original)
    def get_args(args: Any = None) -> Any:
        value = _raw_finetuning_type(args)
        if value is not None and split_finetuning_type(value) is not None:
            raise ConfigError(
                f"finetuning_type: {value!r} does not work with LLaMA-Factory's v1 trainer, which "
                "has a loss of its own. Unset the environment variable USE_V1."
            )
        return original(args)

    return get_args


def weight_trainer(base: type) -> type:
    """CustomSeq2SeqTrainer with the token-weighted loss where an objective of ours is asked for."""
    from dft_factory.patch.trainer import TokenWeightedTrainerMixin

    return type(
        base.__name__,
        (TokenWeightedTrainerMixin, base),
        {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__},
    )


def name_objective_in_card(original: Callable[..., Any]) -> Callable[..., Any]:
    """The model card names objective and weight."""

    @functools.wraps(original)
    def create(trainer: Any, *args: Any) -> None:
        original(trainer, *args)
        # What goes to the hub was named before its upload, by trainer.create_model_card.
        if hasattr(trainer, "name_objective_in_model_card") and not trainer.args.push_to_hub:
            trainer.name_objective_in_model_card()

    return create
