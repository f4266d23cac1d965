"""A trainer with the token-weighted loss: what LLaMA-Factory's (``patch.trainer``) and those of
transformers and TRL (``trainer``) share."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dft_factory.errors import ConfigError, UpstreamContractError
from dft_factory.losses.head import HeadLoss, find_head, transform_of
from dft_factory.losses.softmax import plain_torch_reason
from dft_factory.losses.token import (
    IGNORE_INDEX,
    STATISTICS,
    TokenLoss,
    count_labelled,
    token_weighted_nll,
)
from dft_factory.losses.weights import TokenWeight

LOGGED = {
    "nll": "nll",
    "token_prob": "mean_token_prob",
    "token_weight": "token_weight_mean",
    "token_entropy": "mean_token_entropy",
}
"""Statistic -> name in the logs; evaluation puts its prefix before each."""

if TYPE_CHECKING:  # a subclass of transformers' Trainer at run time
    _Base = Any
else:
    _Base = object


def means_of(sums: Sequence[float]) -> dict[str, float]:
    """Token means of summed :data:`STATISTICS`; NaN where there was no labelled token."""
    named = dict(zip(STATISTICS, sums, strict=True))
    tokens = named.pop("tokens")
    return {name: value / tokens if tokens else float("nan") for name, value in named.items()}


def _parts(config: Any) -> Iterator[Any]:
    """A model's configuration and every one nested in it (text_config, thinker_config)."""
    yield config
    for part in vars(config).values():
        if hasattr(part, "model_type") and hasattr(part, "to_dict"):
            yield from _parts(part)


def refuse_unsupported(asked: str, weight: TokenWeight, trainer: Any) -> None:
    """Refuse a loaded model, data set or accelerator under which another loss would be trained.

    Args:
        asked: what the user wrote, for the message.
    """
    parallelism = getattr(trainer.accelerator, "parallelism_config", None)
    for name, size, why in (
        ("sequence", "sp_size", "transformers computes the loss itself (plain NLL)"),
        ("context", "cp_size", "each rank sees only a part of every example"),
        ("tensor", "tp_size", "several ranks count the same tokens"),
    ):
        ranks = getattr(parallelism, size, 1)
        if size == "tp_size" and ranks == 1:  # of the model, or DeepSpeed's autotp_size
            ranks = trainer.get_tp_size()
        if ranks > 1:
            raise ConfigError(
                f"{asked} does not work with {name} parallelism ({size} {ranks}), under which "
                f"{why}. Switch it off in the accelerate or DeepSpeed configuration."
            )
    for part in _parts(trainer.model.config):
        if getattr(part, "output_router_logits", False):
            raise ConfigError(
                f"{asked} would drop the router loss of this mixture-of-experts model, whose "
                "config.json sets output_router_logits: true. Set it to false."
            )
    if weight.needs_sequence:
        for dataset in (trainer.train_dataset, trainer.eval_dataset):
            parts = dataset.values() if isinstance(dataset, dict) else (dataset,)
            # LLaMA-Factory's packing writes position_ids; a data set packed and tokenized earlier
            # (tokenized_path) is told by nothing else.
            if any("position_ids" in (getattr(part, "column_names", None) or ()) for part in parts):
                raise ConfigError(
                    f"{asked} with dft_weight: {weight.spec!r} weighs whole "
                    "examples, and this tokenized data set was packed: several are joined in one "
                    "row. Tokenize it again without packing, or choose a weight of single tokens."
                )


class _HeadNotUnderstoodError(Exception):
    """The model changes its head's output in an unknown way: full logits are needed."""


class TokenWeightedTrainerMixin(_Base):  # type: ignore[misc]
    """Token-weighted NLL, exact over the accumulated all-rank batch, for text and multimodal data.

    Logged in training beside ``loss``: ``nll`` (nats a token), ``mean_token_prob``,
    ``token_weight_mean`` and ``mean_token_entropy`` (nats, of the model's own distributions), means
    over the labelled tokens of all ranks since the last log. In evaluation the same with the
    prefix, and ``eval_loss`` as the mean over all labelled tokens of the set, so that it depends on
    neither batch size nor number of ranks.

    Every method calls the original unless :meth:`_set_token_weight` was called.
    """

    _weight: TokenWeight | None = None
    _n_sums = len(STATISTICS)
    _logger = logging.getLogger("transformers.dft_factory")

    def _set_token_weight(self, weight: TokenWeight, asked: str) -> None:
        """Train with this weight; called once, at the end of ``__init__``.

        Raises:
            ConfigError: as :func:`refuse_unsupported`.
        """
        refuse_unsupported(asked, weight, self)
        self._weight = weight
        # transformers divides the loss by the accumulation steps, or passes the token count to the
        # model, unless a loss function does the normalising.
        self.model_accepts_loss_kwargs = False
        self.compute_loss_func = self._token_weighted_loss
        self._since_log: Tensor | None = None
        self._evaluated: list[Tensor] | None = None
        self._keep_logits = False
        self._head_checked = False
        self._head: HeadLoss | None = None
        head = find_head(self.model)
        if head is None or self.args.torch_compile:
            self._use_full_logits(
                "torch_compile is on" if self.args.torch_compile else "its head is no linear layer"
            )
        else:
            self._head = HeadLoss(head, transform_of(self.model.config))
            half = torch.float16 if self.args.fp16 else head.weight.dtype
            # Launches Triton's kernels once, so that a warning comes before step 1.
            plain_torch_reason(self.args.device, torch.bfloat16 if self.args.bf16 else half)

    def _use_full_logits(self, reason: str) -> None:
        if self._head is not None:
            self._head.release()
        self._head = None
        if self.is_world_process_zero():
            self._logger.warning(
                "dft-factory: materialising the full logits of %s (%s). Same loss, more memory.",
                type(self.model).__name__,
                reason,
            )

    def _forward_loss(self, *args: Any) -> Any:
        """The trainer's own ``compute_loss``, which calls ``compute_loss_func``."""
        return super().compute_loss(*args)

    def compute_loss(
        self,
        model: Any,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The same loss, computed inside the head where that is possible."""
        if self._weight is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs.get("labels")
        if self._head is None or self._keep_logits or labels is None:
            return self._forward_loss(model, inputs, return_outputs, num_items_in_batch)
        # What transformers multiplies the sum by before backward.
        scale = 1.0 if num_items_in_batch is None else self.args.world_size / num_items_in_batch
        with self._head.request(labels, self._weight, scale):
            if self._head_checked:
                return self._forward_loss(model, inputs, return_outputs, num_items_in_batch)
            # transformers takes the labels out of the inputs; a second try needs them again.
            try:
                return self._forward_loss(model, {**inputs}, return_outputs, num_items_in_batch)
            except _HeadNotUnderstoodError as error:
                reason = str(error)
        self._use_full_logits(reason)
        return self._forward_loss(model, inputs, return_outputs, num_items_in_batch)

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> Any:
        """Metrics of predictions (compute_accuracy) need the logits themselves."""
        self._keep_logits = self._weight is not None and not prediction_loss_only
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
        assert self._weight is not None
        loss = self._loss_of_head(logits)
        if loss is None:
            loss = token_weighted_nll(logits, labels, self._weight, IGNORE_INDEX)
        if self._evaluated is not None:
            rows = loss.rows.double() if loss.rows.device.type in ("cpu", "cuda") else loss.rows
            # Drops the rows that pad the last batch of uneven ranks; gather_function does not,
            # since transformers' Seq2SeqTrainer sets it to plain gather.
            gathered = self.accelerator.gather_for_metrics(rows)
            self._evaluated.append(gathered.sum(dim=0))
        else:
            sums = self._sums(loss)
            self._since_log = sums if self._since_log is None else self._since_log + sums
        normalised: Tensor = loss.total / num_items_in_batch
        return normalised

    def _sums(self, loss: TokenLoss) -> Tensor:
        """Sums over one micro-batch that :meth:`log` reports; :data:`STATISTICS` come first."""
        return loss.rows.double().sum(dim=0)

    def _log_sums(self, sums: list[float]) -> None:
        """What else is done with the sums since the last log."""

    def _record_evaluation(self, prefix: str, means: Mapping[str, float]) -> None:
        """What else is done with the means of an evaluation."""

    def _loss_of_head(self, logits: Tensor) -> TokenLoss | None:
        """What the head made of the open request; None where it gave full logits."""
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
        if self._weight is None:
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
        if self._weight is not None and "loss" in logs:
            sums, self._since_log = self._since_log, None
            if sums is None:
                sums = torch.zeros(self._n_sums, dtype=torch.float64, device=self.args.device)
            if self.args.world_size > 1:
                sums = self.accelerator.reduce(sums, reduction="sum")
            values = sums.tolist()
            means = means_of(values[: len(STATISTICS)])
            logs.update({logged: means[name] for name, logged in LOGGED.items()})
            self._log_sums(values)
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
        evaluate = super().evaluation_loop
        arguments = (dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        if self._weight is None:
            return evaluate(*arguments)
        self._evaluated = []
        try:
            output = evaluate(*arguments)
            evaluated = self._evaluated
        finally:
            self._evaluated = None
        if evaluated:
            means = means_of(torch.stack(evaluated).sum(dim=0).tolist())
            output.metrics[f"{metric_key_prefix}_loss"] = means["objective"]
            for name, logged in LOGGED.items():
                output.metrics[f"{metric_key_prefix}_{logged}"] = means[name]
            self._record_evaluation(metric_key_prefix, means)
        return output
