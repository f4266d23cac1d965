"""The trainer's part: which loss, normalised by what, logged as what.

A mixin over LLaMA-Factory's ``CustomSeq2SeqTrainer`` (transformers' ``Seq2SeqTrainer``). Every
method hands on to the original unless one of our objectives is asked for.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dft_factory.errors import UpstreamContractError
from dft_factory.losses.softmax import plain_torch_reason
from dft_factory.losses.token import (
    IGNORE_INDEX,
    STATISTICS,
    TokenLoss,
    count_labelled,
    token_weighted_nll,
)
from dft_factory.objectives import selection_of
from dft_factory.patch.answers import HeldOut
from dft_factory.patch.head import HeadLoss, find_head, transform_of
from dft_factory.patch.record import COLUMNS, LOGGED, Recorder, end_of_turn_ids, sums_of
from dft_factory.patch.refusals import refuse_runtime
from dft_factory.patch.run import RunMixin

# A child of LLaMA-Factory's logger: same format, same level, same files.
logger = logging.getLogger("llamafactory.dft_factory")

if TYPE_CHECKING:  # LLaMA-Factory's class at run time
    _Base = Any
else:
    _Base = object


def _means(sums: Sequence[float]) -> dict[str, float]:
    """Token means of summed :data:`STATISTICS`; NaN where there was no labelled token."""
    named = dict(zip(STATISTICS, sums, strict=True))
    tokens = named.pop("tokens")
    return {name: value / tokens if tokens else float("nan") for name, value in named.items()}


def _collate(collator: Any, rows: list[dict[str, Any]]) -> Any:
    """``collator(rows)``; in packed rows no label crosses from one example into the next.

    train_on_prompt labels the first token of an example. Alone nothing predicts it. In a packed
    row the end of the example before would.
    """
    for row in rows:
        if "position_ids" in row:  # as in refuse_runtime; 0 where an example starts
            row["labels"] = [
                label if position else IGNORE_INDEX
                for label, position in zip(row["labels"], row["position_ids"], strict=True)
            ]
    return collator(rows)


class _HeadNotUnderstoodError(Exception):
    """The model does to its head's output what is not accounted for; whole logits are needed."""


class TokenWeightedTrainerMixin(RunMixin):
    """Token-weighted NLL, exact over the accumulated all-rank batch, for text and multimodal data.

    Logged in training beside ``loss``: ``nll`` (nats a token), ``mean_token_prob``,
    ``token_weight_mean`` and ``mean_token_entropy`` (nats, of the model's own distributions), means
    over the labelled tokens of all ranks since the last log. In
    evaluation the same with the prefix, and ``eval_loss`` as the mean over all labelled tokens of
    the set, so that it depends on neither batch size nor number of ranks.

    Each training log also adds a line to ``token_probabilities.jsonl`` in ``output_dir``, each
    evaluation during training one to ``evaluations.jsonl``, and both may bring a warning
    (``patch.record``, ``watch``): from the sums of the same pass, in the same exchange between the
    ranks. The answers to held-out prompts are rank 0's alone.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._selection = selection_of(self.finetuning_args)
        if self._selection is None:
            return
        refuse_runtime(self._selection, self)
        # transformers divides the loss by the accumulation steps, or hands the token count to the
        # model, unless told that a loss function of ours does the normalising.
        self.model_accepts_loss_kwargs = False
        self.compute_loss_func = self._token_weighted_loss
        self._since_log: Tensor | None = None
        self._recorder: Recorder | None = None
        self._template = getattr(self.data_collator, "template", None)  # LLaMA-Factory's
        self._multimodal = getattr(self.data_collator, "processor", None) is not None
        self._held_out: list[HeldOut] | None = None
        self.data_collator: Any = functools.partial(_collate, self.data_collator)
        ends = end_of_turn_ids(self._template, self.processing_class)
        self._end_of_turn = torch.tensor(ends, dtype=torch.int64, device=self.args.device)
        self._evaluated: list[Tensor] | None = None
        self._keep_logits = False
        self._head_checked = False
        self._head: HeadLoss | None = None
        head = find_head(self.model)
        if head is None or self.args.torch_compile:
            self._use_whole_logits(
                "torch_compile is on" if self.args.torch_compile else "its head is no linear layer"
            )
        else:
            self._head = HeadLoss(head, transform_of(self.model.config))
            half = torch.float16 if self.args.fp16 else head.weight.dtype
            # Launches Triton's kernels once, so that a warning comes before step 1.
            plain_torch_reason(self.args.device, torch.bfloat16 if self.args.bf16 else half)

    def _use_whole_logits(self, reason: str) -> None:
        if self._head is not None:
            self._head.release()
        self._head = None
        if self.is_world_process_zero():
            logger.warning(
                "dft-factory: materialising the full logits of %s (%s). Same loss, more memory.",
                type(self.model).__name__,
                reason,
            )

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The same loss, made inside the head where that is possible."""
        stock = super().compute_loss
        labels = inputs.get("labels")
        if self._selection is None or self._head is None or self._keep_logits or labels is None:
            return stock(model, inputs, return_outputs, num_items_in_batch)
        # What transformers multiplies the sum by before backward.
        scale = 1.0 if num_items_in_batch is None else self.args.world_size / num_items_in_batch
        with self._head.request(labels, self._selection.weight, scale):
            if self._head_checked:
                return stock(model, inputs, return_outputs, num_items_in_batch)
            # transformers takes the labels out of the inputs; a second try needs them again.
            try:
                return stock(model, {**inputs}, return_outputs, num_items_in_batch)
            except _HeadNotUnderstoodError as error:
                reason = str(error)
        self._use_whole_logits(reason)
        return stock(model, inputs, return_outputs, num_items_in_batch)

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> Any:
        """Metrics of predictions (compute_accuracy) need the logits themselves."""
        if self._selection is None:
            return super().prediction_step(model, inputs, prediction_loss_only, *args, **kwargs)
        self._keep_logits = not prediction_loss_only
        try:
            return super().prediction_step(model, inputs, prediction_loss_only, *args, **kwargs)
        finally:
            self._keep_logits = False

    def _token_weighted_loss(
        self, outputs: Any, labels: Tensor | None, num_items_in_batch: Any = None
    ) -> Tensor:
        """``compute_loss_func`` of transformers' Trainer, whose arguments it has."""
        logits = outputs.get("logits") if hasattr(outputs, "get") else outputs[0]
        if logits is None or labels is None:
            missing = "logits" if logits is None else "labels"
            raise UpstreamContractError(
                f"{type(self.model).__name__} came back without {missing}; without them there is "
                "no token-weighted loss, and plain SFT was not asked for."
            )
        assert self._selection is not None
        loss = self._loss_of_head(logits)
        if loss is None:
            loss = token_weighted_nll(logits, labels, self._selection.weight, IGNORE_INDEX)
        if self._evaluated is not None:
            rows = loss.rows.double() if loss.rows.device.type in ("cpu", "cuda") else loss.rows
            # Drops the rows that pad the last batch of uneven ranks; gather_function does not,
            # since transformers' Seq2SeqTrainer sets it to plain gather.
            gathered = self.accelerator.gather_for_metrics(rows)
            self._evaluated.append(gathered.sum(dim=0))
        else:
            sums = sums_of(loss, self._end_of_turn.to(loss.targets.device))
            self._since_log = sums if self._since_log is None else self._since_log + sums
            self._start_recorder()
        normalised: Tensor = loss.total / num_items_in_batch
        return normalised

    def _loss_of_head(self, logits: Tensor) -> TokenLoss | None:
        """What the head made of the open request; None where it gave whole logits."""
        if self._head is None or self._keep_logits:
            return None
        loss = self._head.answer(logits)
        if not self._head_checked:
            usable = loss is not None and self._head.is_untouched(logits)
            # All ranks decide together: one that ran its forward pass again alone would deadlock.
            votes = torch.tensor(float(usable), device=self.args.device)
            if self.accelerator.reduce(votes, reduction="sum").item() < self.args.world_size:
                raise _HeadNotUnderstoodError("the model changes its head's input or output")
            self._head_checked = True
        return loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Labelled tokens of the accumulated batch over all ranks, at least 1."""
        if self._selection is None:
            return super()._get_num_items_in_batch(batch_samples, device)
        counts: Iterable[Tensor] = (
            count_labelled(batch["labels"], IGNORE_INDEX)
            for batch in batch_samples
            if batch.get("labels") is not None
        )
        total = torch.zeros((), dtype=torch.int64, device=device)
        for count in counts:
            total = total + count.to(device)
        if self.args.world_size > 1:
            total = self.accelerator.reduce(total, reduction="sum")
        return total.clamp(min=1)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the statistics since the last log to every training log."""
        if self._selection is not None and "loss" in logs:
            sums = self._since_log
            self._since_log = None
            if sums is None:
                sums = torch.zeros(len(COLUMNS), dtype=torch.float64, device=self.args.device)
            if self.args.world_size > 1:
                sums = self.accelerator.reduce(sums, reduction="sum")
            values = sums.tolist()
            means = _means(values[: len(STATISTICS)])
            logs.update({logged: means[name] for name, logged in LOGGED.items()})
            if self._recorder is not None:
                self._recorder.record(
                    values,
                    step=self.state.global_step,
                    max_steps=self.state.max_steps,
                    epoch=self.state.epoch,
                    ranks=self.args.world_size,
                )
        super().log(logs, start_time)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """Evaluate, then put exact token means in the place of the mean of batch means."""
        if self._selection is None:
            return super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        self._evaluated = []
        try:
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
            evaluated = self._evaluated
        finally:
            self._evaluated = None
        if evaluated:
            means = _means(torch.stack(evaluated).sum(dim=0).tolist())
            output.metrics[f"{metric_key_prefix}_loss"] = means["objective"]
            for name, logged in LOGGED.items():
                output.metrics[f"{metric_key_prefix}_{logged}"] = means[name]
            self._record_evaluation(metric_key_prefix, means)
        return output
