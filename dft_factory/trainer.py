"""DFT in the trainers of transformers and TRL, without LLaMA-Factory.

* :class:`DFTTrainerMixin` in front of ``Trainer``, ``Seq2SeqTrainer`` or TRL's ``SFTTrainer``:
  exact normalisation, the loss inside the head (no full logits), our statistics in the logs.
* :func:`dft_loss_func`: a ``compute_loss_func`` for ``Trainer``; full logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from dft_factory.errors import ConfigError
from dft_factory.losses.token import divisor, token_weighted_nll
from dft_factory.losses.weights import TokenWeight, parse_weight
from dft_factory.objectives import OBJECTIVES, select
from dft_factory.trainer_base import TokenWeightedTrainerMixin


def dft_loss_func(weight: str | TokenWeight = "token") -> Callable[..., Tensor]:
    """A ``compute_loss_func`` for transformers' ``Trainer``: ``sum sg(w_t)·NLL_t / N``.

    ``Trainer(..., compute_loss_func=dft_loss_func())``. N is the ``num_items_in_batch`` that the
    Trainer counts: the labels of the accumulated, all-rank batch. The model's full logits are used.

    Raises:
        ConfigError: unknown weight.
    """
    token_weight = parse_weight(weight)

    def loss_func(
        outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        loss = token_weighted_nll(outputs["logits"], labels, token_weight)
        count = len(loss.targets) if num_items_in_batch is None else num_items_in_batch
        return loss.total / divisor(count, len(loss.targets)).to(loss.total.device)

    return loss_func


class DFTTrainerMixin(TokenWeightedTrainerMixin):
    """DFT in a trainer of transformers or TRL: ``class MyTrainer(DFTTrainerMixin, SFTTrainer)``.

    Args:
        objective: ``dft``, or ``sft`` for plain NLL through the same code, to compare with.
        dft_weight: ``token`` (the method, default), ``sequence``, ``floor:0.1``, ...

    All other arguments are the trainer's. TRL's own entropy and token accuracy, which need the full
    logits, are not logged.

    Raises:
        ConfigError: an unknown objective or weight, or an argument that asks for another loss.
    """

    def __init__(
        self, *args: Any, objective: str = "dft", dft_weight: str | None = None, **kwargs: Any
    ) -> None:
        if objective not in OBJECTIVES:
            choices = ", ".join(OBJECTIVES)
            raise ConfigError(f"objective: {objective!r} is unknown. Choose from: {choices}.")
        selection = select(objective, dft_weight)
        assert selection is not None
        super().__init__(*args, **kwargs)
        self._refuse_other_losses(selection.weight)
        self._set_token_weight(selection.weight, f"objective: {objective!r}")

    def _refuse_other_losses(self, weight: TokenWeight) -> None:
        args = self.args
        refused = {
            "label_smoothing_factor": (args.label_smoothing_factor, 0),
            "loss_type": (getattr(args, "loss_type", "nll"), "nll"),
            "use_liger_kernel": (args.use_liger_kernel, False),
            "average_tokens_across_devices": (args.average_tokens_across_devices, True),
        }
        for name, (value, needed) in refused.items():
            if value not in (needed, None):
                raise ConfigError(
                    f"{name}: {value!r} does not combine with DFTTrainerMixin, whose loss it "
                    f"would change. Set {name}={needed!r}."
                )
        if self.compute_loss_func is not None:
            raise ConfigError("compute_loss_func: DFTTrainerMixin brings its own. Leave it out.")
        if args.n_gpu > 1:
            raise ConfigError(
                f"{args.n_gpu} GPUs in one process (DataParallel): start one process per GPU with "
                "`torchrun --nproc-per-node` or `accelerate launch`."
            )
        if weight.needs_sequence and (
            getattr(args, "packing", False) or getattr(args, "padding_free", False)
        ):
            raise ConfigError(
                f"dft_weight: {weight.spec!r} weighs whole examples, and packing or padding_free "
                "joins several into one row. Switch it off, or choose a weight of single tokens."
            )

    def _forward_loss(self, *args: Any) -> Any:
        """transformers' own; TRL's reads full logits after it."""
        from transformers import Trainer

        return Trainer.compute_loss(self, *args)
