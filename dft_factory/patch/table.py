"""Every change made to LLaMA-Factory, as data. Standard library only: read at ``import torch``."""

from __future__ import annotations

from dataclasses import dataclass

SUPPORTED_LLAMAFACTORY = ("0.9.4", "0.9.5", "0.9.6.dev0")
"""Releases that the tests below pass with. What decides at run time is ``patch.contract``."""

INSTALL_LLAMAFACTORY = "pip install llamafactory==0.9.5"

OTHER_TRAINERS = {
    "USE_V1": "the v1 trainer",
    "USE_MCA": "Megatron (MCA)",
    "USE_MEGATRON_BRIDGE": "Megatron Bridge",
    "USE_KT": "KTransformers",
}
"""Environment variables that select a trainer under which our objectives are refused."""


@dataclass(frozen=True)
class Patch:
    """One change to one attribute of one LLaMA-Factory module.

    Attributes:
        module: the module whose attribute is replaced right after the module has run, before any
            ``from X import Y`` copies it.
        attribute: what is replaced.
        factory: ``module:function`` that makes the replacement from the original.
        change: what the replacement does differently.
        reason: why it cannot be had without the change, and when it can go.
        test: the contract test that fails when LLaMA-Factory no longer fits.
        requires: attributes that the original must have, its own or transformers'.
        on_unsupported: factory used instead on an unsupported release; None leaves it untouched.
    """

    name: str
    module: str
    attribute: str
    factory: str
    change: str
    reason: str
    test: str
    requires: tuple[str, ...] = ()
    on_unsupported: str | None = None

    @property
    def target(self) -> str:
        """Dotted name of what is replaced."""
        return f"{self.module}.{self.attribute}"


_FACTORIES = "dft_factory.patch.llamafactory"

PATCHES: tuple[Patch, ...] = (
    Patch(
        name="arguments",
        module="llamafactory.hparams.finetuning_args",
        attribute="FinetuningArguments",
        factory=f"{_FACTORIES}:widen_finetuning_arguments",
        change="Accepts finetuning_type <objective>[_<method>] and dft_weight; hands the method on "
        "to LLaMA-Factory and keeps the objective in dft_objective. Accepts score_task, "
        "score_steps and score_limit.",
        reason="finetuning_type is a closed list. Goes when LLaMA-Factory lets a plugin register "
        "objectives.",
        test="tests/contract/test_arguments.py",
        on_unsupported=f"{_FACTORIES}:refuse_objectives",
    ),
    Patch(
        name="refusals",
        module="llamafactory.hparams.parser",
        attribute="_parse_train_args",
        factory=f"{_FACTORIES}:check_training_arguments",
        change="Refuses, with our objectives only, every combination that would train something "
        "else than asked.",
        reason="FinetuningArguments does not see the model, data and trainer arguments.",
        test="tests/contract/test_refusals.py",
    ),
    Patch(
        name="refusals_mca",
        module="llamafactory.hparams.parser",
        attribute="_parse_train_mca_args",
        factory=f"{_FACTORIES}:check_training_arguments",
        change="The same where USE_MCA is set.",
        reason="Megatron (MCA) runs are parsed by a function of their own and have their own loss.",
        test="tests/contract/test_refusals.py",
    ),
    Patch(
        name="refusals_v1",
        module="llamafactory.v1.config.arg_parser",
        attribute="get_args",
        factory=f"{_FACTORIES}:refuse_objectives_in_v1",
        change="Refuses our objectives under USE_V1 by name.",
        reason="LLaMA-Factory's v1 trainer has its own arguments and loss; with ALLOW_EXTRA_KEYS "
        "it would drop finetuning_type in silence.",
        test="tests/contract/test_refusals.py",
    ),
    Patch(
        name="loss",
        module="llamafactory.train.sft.trainer",
        attribute="CustomSeq2SeqTrainer",
        factory=f"{_FACTORIES}:weight_trainer",
        change="With our objectives only: the token-weighted loss, exact normalisation over the "
        "accumulated all-rank batch for text and multimodal models, nll / mean_token_prob / "
        "token_weight_mean / mean_token_entropy in the logs, token_probabilities.jsonl and "
        "evaluations.jsonl in output_dir, four warnings, scores of score_task in the logs and in "
        "scores.jsonl, evaluation losses that do not depend on batch size.",
        reason="use_dft_loss crashes on a micro-batch without labels, and plain VL SFT averages "
        "means of micro-batches (model_accepts_loss_kwargs = False). Remove when both are fixed "
        "upstream.",
        test="tests/contract/test_trainer.py",
        requires=(
            "train",
            "compute_loss",
            "prediction_step",
            "evaluation_loop",
            "log",
            "save_model",
            "create_model_card",
            "get_tp_size",
            "_get_num_items_in_batch",
            "_maybe_log_save_evaluate",
            "_save_checkpoint",
            "_load_from_checkpoint",
            "_load_best_model",
        ),
    ),
    Patch(
        name="model_card",
        module="llamafactory.train.trainer_utils",
        attribute="create_modelcard_and_push",
        factory=f"{_FACTORIES}:name_objective_in_card",
        change="With our objectives only: the model card names objective and weight; that of an "
        "earlier adapter is removed before whole weights get theirs.",
        reason="It says full or lora, which is not what was trained, and transformers fails on the "
        "adapter's. Goes when LLaMA-Factory lets a plugin add tags.",
        test="tests/contract/test_run_summary.py",
    ),
)
