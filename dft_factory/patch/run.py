"""The trainer's other part: what a run says of itself, and its checkpoints."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard
from torch import Tensor
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_pt_utils import get_model_param_count

import dft_factory
from dft_eval.training_file import TRAINING_FILE
from dft_factory.objectives import Selection
from dft_factory.patch.answers import HeldOut, greedy, held_out, summarise, without_end
from dft_factory.patch.checkpoint import load_weights, one_message_if_writing_fails
from dft_factory.patch.record import Recorder, system_prompt_of
from dft_factory.patch.tracking import NoteRuns, tracking_runs
from dft_factory.watch import Answers

# A child of LLaMA-Factory's logger: same format, same level, same files.
logger = logging.getLogger("llamafactory.dft_factory")

if TYPE_CHECKING:  # LLaMA-Factory's class at run time
    _Base = Any
else:
    _Base = object


HYPERPARAMETERS = (
    *("learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "lr_scheduler_type", "warmup_ratio", "warmup_steps"),
    *("weight_decay", "max_grad_norm", "optim", "bf16", "fp16", "seed"),
)
"""Of transformers' TrainingArguments, told in the training file."""


def _short(count: int) -> str:
    """3,085,938,688 as '3.1 B'."""
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " K")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


class RunMixin(_Base):  # type: ignore[misc]
    """Start line, summary, model card; saves and loads that lose nothing.

    The class that it is mixed into sets the attributes.
    """

    _selection: Selection | None
    _recorder: Recorder | None
    _head: Any
    _template: Any
    _multimodal: bool
    _end_of_turn: Tensor
    _held_out: list[HeldOut] | None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; say at the start what is trained, at the end what became of it."""
        if self._selection is None:
            return super().train(*args, **kwargs)
        if self.is_world_process_zero():
            n_trained = get_model_param_count(self.model, trainable_only=True)
            logger.info(
                "dft-factory: objective %s, weight %s, chunked head %s, %s parameters trained",
                self._selection.objective.name,
                self._selection.weight.spec,
                "off" if self._head is None else "on",
                _short(n_trained),
            )
            self._write_training_file()
            if self.args.report_to:
                self.add_callback(NoteRuns(self._write_training_file))
        if self.finetuning_args.score_task is not None:
            from dft_factory.patch.scores import score_callback

            if (callback := score_callback(self, multimodal=self._multimodal)) is not None:
                self.add_callback(callback)
        output = super().train(*args, **kwargs)
        if self._recorder is not None:
            self._recorder.summarise()
        return output

    def _start_recorder(self) -> None:
        """When the step at which a training begins is known."""
        if self._recorder is None and self.is_world_process_zero():
            assert self._selection is not None
            self._recorder = Recorder(
                Path(self.args.output_dir),
                self.state.global_step,
                warns=self._selection.objective.weighted,
            )

    def _record_evaluation(self, prefix: str, means: Mapping[str, float]) -> None:
        """Of several evaluation sets the first one's."""
        sets = self.eval_dataset
        several = isinstance(sets, dict)
        name = f"eval_{next(iter(sets))}" if several else "eval"
        if not self.is_in_train or not self.is_world_process_zero() or prefix != name:
            return
        self._start_recorder()
        assert self._recorder is not None
        if self._held_out is None:
            self._held_out = self._choose_held_out(next(iter(sets.values())) if several else sets)
        self._recorder.record_evaluation(
            means,
            *self._answer_held_out(),
            step=self.state.global_step,
            max_steps=self.state.max_steps,
        )

    def _choose_held_out(self, dataset: Any) -> list[HeldOut]:
        reason, chosen = None, []
        if self._multimodal:
            reason = "the model reads pictures, sound or video"
        elif not len(self._end_of_turn):
            reason = "the tokenizer has no end-of-turn token"
        elif self.is_fsdp_enabled or is_deepspeed_zero3_enabled():
            reason = "under ZeRO-3 and FSDP no process holds the whole model"
        else:
            chosen = held_out(dataset)
            reason = None if chosen else "no example of the evaluation set has a prompt"
        if reason is not None:
            logger.info(
                "dft-factory: evaluations record no answers to held-out prompts: %s", reason
            )
        return chosen

    def _answer_held_out(self) -> tuple[Answers | None, list[str]]:
        """Greedy answers to the held-out prompts; without any, None."""
        if not self._held_out:
            return None, []
        ends = self._end_of_turn.tolist()
        try:
            answers = greedy(self.model, [example.prompt for example in self._held_out], ends)
        except Exception as error:  # for example out of memory: a diagnosis must not end a training
            logger.warning("dft-factory: no further answers to held-out prompts: %s", error)
            self._held_out = []
            return None, []
        references = [without_end(example.reference, ends) for example in self._held_out]
        texts = [self.processing_class.decode(ids) for ids in answers]
        return summarise(answers, references), texts

    def _write_training_file(self) -> None:
        """Tell ``dft-factory eval`` how the model was trained."""
        assert self._selection is not None
        dataset, tokenizer = self.train_dataset, self.processing_class
        record = {
            "schema_version": 1,
            "dft_factory": dft_factory.__version__,
            "finetuning_type": self._selection.name,
            "token_weight": self._selection.weight.spec,
            "seed": self.args.seed,
            "system_prompt": system_prompt_of(self._template, tokenizer, dataset),
            "n_examples": len(dataset) if hasattr(dataset, "__len__") else None,
            "base_model": getattr(self.model.config, "_name_or_path", None),
            "hyperparameters": {
                "num_processes": self.args.world_size,
                **{name: getattr(self.args, name, None) for name in HYPERPARAMETERS},
            },
            "tracking": tracking_runs(self.callback_handler.callbacks, self.args.output_dir),
        }
        path = Path(self.args.output_dir) / TRAINING_FILE
        with self._writing():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def note_dataset(self, names: Sequence[str] | None) -> None:
        """Tell ``dft-factory card`` on which data sets of ``dataset_info.json`` we trained."""
        path = Path(self.args.output_dir) / TRAINING_FILE
        if self._selection is None or not self.is_world_process_zero() or not path.is_file():
            return
        record = json.loads(path.read_text(encoding="utf-8"))
        record["dataset"] = list(names or [])
        with self._writing():
            path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    def remove_card_of_an_adapter(self) -> None:
        """Remove a card that an earlier LoRA run left: of whole weights it is another model's.

        transformers (4.57 to 5.8) would have the model complete it, and fail after the training:
        "object has no attribute 'create_or_update_model_card'".
        """
        path = Path(self.args.output_dir) / "README.md"
        if self._selection is None or not self.is_world_process_zero() or not path.is_file():
            return
        is_adapter = hasattr(self.model, "peft_config")
        if not is_adapter and ModelCard.load(path).data.get("library_name") == "peft":
            path.unlink()

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        super().create_model_card(*args, **kwargs)
        self.name_objective_in_model_card()

    def name_objective_in_model_card(self) -> None:
        """Add to ``README.md`` in ``output_dir`` what its tags and hyperparameters do not say."""
        path = Path(self.args.output_dir) / "README.md"
        if self._selection is None or not self.is_world_process_zero() or not path.is_file():
            return
        card = ModelCard.load(path)
        others = (tag for tag in card.data.tags or () if tag not in ("full", self._selection.name))
        card.data.tags = [*others, self._selection.name]
        card.text += (
            f"\n### Objective\n\n- finetuning_type: {self._selection.name}\n"
            f"- token weight: {self._selection.weight.spec}\n"
            f"- dft-factory {dft_factory.__version__}\n"
        )
        card.save(path)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Log at every save and evaluation and at the end, whatever ``logging_steps`` is.

        So a run has at least one ``nll``, and a run that is killed loses no token that a checkpoint
        has seen: sums since the last log are in no checkpoint.
        """
        control = self.control
        if self._selection is not None and (
            control.should_save
            or control.should_evaluate
            or control.should_training_stop
            or self.state.global_step >= self.state.max_steps
        ):
            control.should_log = True
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        if self._selection is None:
            return contextlib.nullcontext()
        return one_message_if_writing_fails(self.args.output_dir)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with self._writing():
            super()._save_checkpoint(*args, **kwargs)

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        with self._writing():
            super().save_model(*args, **kwargs)

    def _holds_full_weights(self) -> bool:
        """Whether transformers would load them with strict=False: all but adapters, shards."""
        sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        return (
            self._selection is not None and not sharded and not hasattr(self.model, "peft_config")
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._holds_full_weights():
            load_weights(self.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self._holds_full_weights():
            load_weights(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()
