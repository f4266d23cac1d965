"""The replacements that the patch table names; the only module that knows LLaMA-Factory's insides.

Every factory takes LLaMA-Factory's own object and returns one that behaves the same until one of
our objectives is asked for.
"""

from __future__ import annotations

import functools
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
from dft_factory.patch.refusals import refuse_arguments, refuse_empty_stream, refuse_training

_SCORE_FIELDS: list[tuple[str, Any, str]] = [
    ("score_task", Optional[str], "Scored during training: a task file or a benchmark of text."),  # noqa: UP045
    ("score_steps", Optional[int], "Steps between scores (default: at every evaluation)."),  # noqa: UP045
    ("score_limit", Optional[int], "Score the first N items (default: 50)."),  # noqa: UP045
]


def widen_finetuning_arguments(base: type) -> type:
    """FinetuningArguments that also accept our objectives."""
    types = Literal[(*METHODS, *finetuning_types())]  # type: ignore[valid-type]

    def post_init(self: Any) -> None:
        asked = self.finetuning_type
        selection = select(asked, self.dft_weight)
        self.dft_objective = None
        if selection is not None:
            apply.require_intact()
            refuse_arguments(asked, self)
            self.finetuning_type = selection.method
            self.dft_objective = selection.objective.name
            self.dft_weight = selection.weight.spec if selection.objective.weighted else None
        base.__post_init__(self)  # type: ignore[attr-defined]

    summaries = "; ".join(
        f"{objective.name}: {objective.summary}" for objective in OBJECTIVES.values()
    )
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
            *(
                (name, hint, field(default=None, metadata={"help": text}))
                for name, hint, text in _SCORE_FIELDS
            ),
        ],
        bases=(base,),
        namespace={"__post_init__": post_init, **_naming(base)},
    )


def _naming(base: type) -> dict[str, Any]:
    """Attributes by which a replacement has the name and the text of ``base``."""
    return {name: getattr(base, name) for name in ("__module__", "__qualname__", "__doc__")}


def refuse_objectives(base: type) -> type:
    """Where the sources are unknown: our objectives are refused, all else is untouched."""
    original = base.__post_init__  # type: ignore[attr-defined]

    @functools.wraps(original)
    def post_init(self: Any) -> None:
        if self.finetuning_type in finetuning_types():
            raise ConfigError(
                f"finetuning_type: {self.finetuning_type!r}: {apply.unsupported_reason()}. "
                f"{apply.INSTALL_SUPPORTED}"
            )
        original(self)

    return type(base.__name__, (base,), {"__post_init__": post_init, **_naming(base)})


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
        if any(getattr(finetuning, name) is not None for name, *_ in _SCORE_FIELDS):
            from dft_factory.patch.scores import check_score_arguments

            check_score_arguments(finetuning, training)
        if selection is not None:
            apply.require_intact()
            refuse_training(selection, model, data, training, finetuning)
            _track_nll(selection, written, data, training, finetuning)
            apply.explain_unreadable_records(", ".join(data.dataset or ()))
            if training.do_train:
                check_output_dir(training.output_dir, adapter=selection.method in ("lora", "oft"))
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
        name, equals, inline = word.lstrip("-").partition("=")
        if name == "finetuning_type":
            value = inline if equals else (words[index + 1] if index + 1 < len(words) else None)
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
    from dft_factory.patch.trainer import LlamaFactoryTrainerMixin

    return type(base.__name__, (LlamaFactoryTrainerMixin, base), _naming(base))


def name_objective_in_card(original: Callable[..., Any]) -> Callable[..., Any]:
    """The model card names objective and weight."""

    @functools.wraps(original)
    def create(trainer: Any, *args: Any) -> None:
        if hasattr(trainer, "note_dataset"):
            trainer.note_dataset(args[1].dataset)  # model, data, training, fine-tuning arguments
            trainer.remove_card_of_an_adapter()
        original(trainer, *args)
        # What goes to the hub was named before its upload, by trainer.create_model_card.
        if hasattr(trainer, "name_objective_in_model_card") and not trainer.args.push_to_hub:
            trainer.name_objective_in_model_card()

    return create
