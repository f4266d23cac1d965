"""LLaMA-Factory's trainer: the objective that the YAML selects, its refusals and its records.

A mixin over LLaMA-Factory's ``CustomSeq2SeqTrainer`` (transformers' ``Seq2SeqTrainer``). Every
method calls the original unless one of our objectives is selected.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from torch import Tensor

from dft_factory.losses.token import IGNORE_INDEX, TokenLoss
from dft_factory.objectives import selection_of
from dft_factory.patch.answers import HeldOut
from dft_factory.patch.record import COLUMNS, Recorder, end_of_turn_ids, sums_of
from dft_factory.patch.run import RunMixin
from dft_factory.trainer_base import TokenWeightedTrainerMixin


def _collate(collator: Any, rows: list[dict[str, Any]]) -> Any:
    """``collator(rows)``; in packed rows no label crosses from one example into the next.

    train_on_prompt labels the first token of an example. Alone nothing predicts it. In a packed
    row the end of the example before would.
    """
    for row in rows:
        if "position_ids" in row:  # as in refuse_unsupported; 0 where an example starts
            row["labels"] = [
                label if position else IGNORE_INDEX
                for label, position in zip(row["labels"], row["position_ids"], strict=True)
            ]
    return collator(rows)


class LlamaFactoryTrainerMixin(RunMixin, TokenWeightedTrainerMixin):
    """The token-weighted trainer in LLaMA-Factory.

    Each training log also adds a line to ``token_probabilities.jsonl`` in ``output_dir``, each
    evaluation during training one to ``evaluations.jsonl``, and both may bring a warning
    (``patch.record``, ``watch``): from the sums of the same pass, in the same exchange between the
    ranks. The answers to held-out prompts are rank 0's alone.
    """

    # A child of LLaMA-Factory's logger: same format, same level, same files.
    _logger = logging.getLogger("llamafactory.dft_factory")
    _n_sums = len(COLUMNS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._selection = selection_of(self.finetuning_args)
        if self._selection is None:
            return
        self._recorder: Recorder | None = None
        self._template = getattr(self.data_collator, "template", None)  # LLaMA-Factory's
        self._multimodal = getattr(self.data_collator, "processor", None) is not None
        self._held_out: list[HeldOut] | None = None
        self.data_collator: Any = functools.partial(_collate, self.data_collator)
        ends = end_of_turn_ids(self._template, self.processing_class)
        self._end_of_turn = torch.tensor(ends, dtype=torch.int64, device=self.args.device)
        asked = f"finetuning_type: {self._selection.name!r}"
        self._set_token_weight(self._selection.weight, asked)

    def _sums(self, loss: TokenLoss) -> Tensor:
        self._start_recorder()
        return sums_of(loss, self._end_of_turn.to(loss.targets.device))

    def _log_sums(self, sums: list[float]) -> None:
        if self._recorder is not None:
            self._recorder.record(
                sums,
                step=self.state.global_step,
                max_steps=self.state.max_steps,
                epoch=self.state.epoch,
                ranks=self.args.world_size,
            )
