"""Scores during a training: a small, fixed set of items, answered greedily and judged.

``score_task`` names it, ``score_steps`` and ``score_limit`` say when and how many. Each score is
logged as ``score_<task>`` and is a line of ``scores.jsonl`` in ``output_dir``. Rank 0 alone
answers; the others wait for it in the next step. The training is the same as without, bit for bit.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback
from transformers.integrations import is_deepspeed_zero3_enabled

from dft_eval.errors import EvaluationError, PrerequisiteError, UsageError
from dft_eval.in_memory import InMemory, Scored, text_benchmark
from dft_eval.own_tasks.items import data_path, load_items
from dft_factory.errors import ConfigError, MissingDependencyError
from dft_factory.objectives import finetuning_types
from dft_factory.patch.lines import JsonLines
from dft_factory.patch.refusals import is_on

FILE_NAME = "scores.jsonl"
DEFAULT_LIMIT = 50
_INSTEAD = "Remove score_task and evaluate the checkpoints: `dft-factory eval --checkpoints`."

# A child of LLaMA-Factory's logger: same format, same level, same files.
logger = logging.getLogger("llamafactory.dft_factory")


def check_score_arguments(finetuning: Any, training: Any) -> None:
    """Refuse settings that cannot be honoured, before the model is loaded.

    Args:
        finetuning: LLaMA-Factory's FinetuningArguments, with our fields.

    Raises:
        ConfigError: a wrong value, or one that would have no effect.
        MissingDependencyError: something that scoring needs is not on this machine.
    """
    task = finetuning.score_task
    for name in ("score_steps", "score_limit"):
        value = getattr(finetuning, name)
        if value is not None and task is None:
            raise ConfigError(
                f"{name}: {value} has no effect without score_task. Remove it, or name a task file "
                "or a benchmark in score_task."
            )
        if value is not None and value < 1:
            raise ConfigError(f"{name}: {value}: give a number of 1 or more.")
    if task is None or not training.do_train:
        return
    if finetuning.dft_objective is None:
        raise ConfigError(
            f"score_task: {task!r} has no effect with finetuning_type: "
            f"{finetuning.finetuning_type!r}. Remove it, or choose from: "
            f"{', '.join(finetuning_types())}."
        )
    if finetuning.score_steps is None and training.eval_strategy == "no":
        raise ConfigError(
            f"score_task: {task!r} is scored at every evaluation, and eval_strategy is no. Write "
            "score_steps: N, or choose an eval_strategy."
        )
    optim = getattr(training.optim, "value", training.optim)
    if "schedule_free" in optim:
        raise ConfigError(
            f"score_task: {task!r} does not work with optim: {optim!r}, which trains with other "
            "weights than those that it ends with. Remove score_task."
        )
    _refuse_sharded(task, training.fsdp or is_on("ACCELERATE_USE_FSDP"))
    _check_task(task)


def _check_task(task: str) -> None:
    with _as_config_errors(task):
        benchmark = text_benchmark(task)
        if missing := benchmark.missing():
            raise PrerequisiteError(f"it needs {missing[0].name}: {missing[0].fix}")
        path = data_path(benchmark.task) if benchmark.task is not None else None
        if path is not None and not path.is_file():
            raise PrerequisiteError(f"its data is not here: {path}")
        if path is not None and benchmark.task is not None:
            load_items(benchmark.task)


@contextlib.contextmanager
def _as_config_errors(task: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise ConfigError(f"score_task: {task!r}: {error}") from error
    except EvaluationError as error:
        raise MissingDependencyError(f"score_task: {task!r}: {error}") from error


def _refuse_sharded(task: str, fsdp: Any) -> None:
    if fsdp or is_deepspeed_zero3_enabled():
        raise ConfigError(
            f"score_task: {task!r} does not work with ZeRO-3 and FSDP, under which no process "
            f"holds the whole model. {_INSTEAD}"
        )


def score_callback(trainer: Any, *, multimodal: bool) -> ScoreCallback | None:
    """The callback of a trainer that is about to train; None where nothing is to be scored.

    Call it on every rank: what is refused is refused by all, and rank 0 scores.

    Raises:
        ConfigError, MissingDependencyError: as :func:`check_score_arguments`, for the model too.
    """
    arguments, args = trainer.finetuning_args, trainer.args
    task = arguments.score_task
    if task is None:
        return None
    _refuse_sharded(task, trainer.is_fsdp_enabled)
    if multimodal:
        raise ConfigError(
            f"score_task: {task!r}: models that read pictures, sound or video are not scored "
            f"during training. {_INSTEAD}"
        )
    if not trainer.is_world_process_zero():
        return None
    limit = arguments.score_limit or DEFAULT_LIMIT
    with _as_config_errors(task):
        benchmark = text_benchmark(task)
        items = InMemory(benchmark, args.output_dir, limit, args.per_device_eval_batch_size)
        items.check(trainer.processing_class)
    when = (
        "evaluations" if arguments.score_steps is None else f"every {arguments.score_steps} steps"
    )
    logger.info(
        "dft-factory: %s items of %s are scored at the start, %s and the end",
        *(sum(len(part.prompts) for part in items.parts), benchmark.name, when),
    )
    return ScoreCallback(
        benchmark.name,
        items,
        arguments.score_steps,
        Path(args.output_dir),
        trainer.log,
        trainer.processing_class,
    )


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """``model`` in evaluation mode; after it modes and random states are as they were."""
    modes = [(module, module.training) for module in model.modules()]
    states = random.getstate(), np.random.get_state()
    device = next(model.parameters()).device
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type="cuda" if not devices else device.type):
        model.eval()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode
            random.setstate(states[0])
            np.random.set_state(states[1])


class ScoreCallback(TrainerCallback):  # type: ignore[misc]
    """Scores before the first step, at evaluations or every ``steps``, and after the last step.

    A scoring that fails ends neither the training nor later scorings: it is logged once, has no
    score, and is counted at the end.
    """

    def __init__(
        self,
        name: str,
        items: InMemory,
        steps: int | None,
        folder: Path,
        log: Callable[[dict[str, float]], None],
        tokenizer: Any,
    ) -> None:
        self._key = f"score_{name.replace('+', '_plus')}"  # MLflow takes no plus sign
        self._items = items
        self._steps = steps
        self._path = folder / FILE_NAME
        self._log = log
        self._tokenizer = tokenizer
        self._scores: dict[int, float | None] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._lines = JsonLines(self._path, state.global_step)
        self._scores = {line["step"]: line["score"] for line in self._lines.before}
        if state.global_step == 0:
            self._score(state, control, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        is_due = self._steps is not None and state.global_step % self._steps == 0
        if is_due or state.global_step >= state.max_steps:
            self._score(state, control, kwargs["model"])

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._steps is None:
            self._score(state, control, kwargs["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        scores = [score for score in self._scores.values() if score is not None]
        if scores:
            first, last = scores[0], scores[-1]
            logger.info(
                "dft-factory: %s %.3g -> %.3g (first -> last of %s; all in %s)",
                *(self._key, first, last, len(scores), self._path),
            )
        if failed := [step for step, score in self._scores.items() if score is None]:
            logger.warning(
                "dft-factory: %s could not be scored at steps %s: the reasons are in %s",
                *(self._key, ", ".join(map(str, failed)), self._path),
            )

    def _score(self, state: Any, control: Any, model: torch.nn.Module) -> None:
        step = state.global_step
        if step in self._scores:
            return
        started = time.monotonic()
        try:
            with undisturbed(model):
                scored = self._items.score(model, self._tokenizer)
            line, problem = _line(scored), _problem(scored)
        except Exception as error:  # for example out of memory
            line, problem = {}, f"{type(error).__name__}: {error}"
        score = None if problem else line["score"]
        self._lines.append(
            {
                "step": step,
                "progress": step / state.max_steps,
                "epoch": state.epoch,
                "seconds": round(time.monotonic() - started, 3),
                **line,
                "score": score,
                "problem": problem,
                "sandbox": self._items.sandbox,
            }
        )
        if problem and None not in self._scores.values():
            logger.warning("dft-factory: step %d: no %s: %s", step, self._key, problem)
        self._scores[step] = score
        if score is not None:
            should_log = control.should_log  # of the step's own log, which this one would replace
            self._log({self._key: score})
            control.should_log = should_log


def _line(scored: Scored) -> dict[str, Any]:
    """What a line of the file says of a scoring; texts of the items last."""
    result = scored.result.model_dump(mode="json")
    names = ("benchmark", "metric", "score", "stderr", "n_total", "n_scored", "breakdown")
    texts = {row.id: row.completion for row in scored.completions}
    return {
        **{name: result[name] for name in (*names, "harness", "prompt_style", "decoding", "notes")},
        "n_truncated": sum(row.finish_reason == "length" for row in scored.completions),
        "items": [
            {
                **item.model_dump(include={"id", "score", "reason", "cluster"}),
                "completion": texts.get(item.id),
            }
            for item in scored.items
        ],
    }


def _problem(scored: Scored) -> str | None:
    """Why there is no score: over fewer items it would be another one."""
    unscored = [item for item in scored.items if item.score is None]
    if not unscored:
        return None
    first = unscored[0]
    return f"{len(unscored)} of {len(scored.items)} items unscored, {first.id}: {first.reason}"
