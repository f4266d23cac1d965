"""Log-probabilities of a training YAML's data, through LLaMA-Factory's own data and model code.

One process, one forward pass, LLaMA-Factory's batches; where the head can be taken over, the logits
are never materialised in full, as in training.
"""

from __future__ import annotations

import contextlib
import functools
import math
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dft_factory.errors import ConfigError, MissingDependencyError
from dft_factory.losses.head import HeadLoss, find_head, transform_of
from dft_factory.losses.token import IGNORE_INDEX, TokenLoss, shift_labels, token_weighted_nll
from dft_factory.losses.weights import UNIT_WEIGHT
from dft_factory.patch.record import end_of_turn_ids
from dft_factory.probe.collapse import Plan
from dft_factory.probe.segments import segments_of, turns_of
from dft_factory.probe.settings import check_config, settings_for
from dft_factory.probe.statistics import TokenProbabilities, summarise

Progress = Callable[[str, int, int], None]
"""Called with (label, batches done, all)."""


@dataclass(frozen=True)
class Measured:
    """Every labelled token of the sampled examples under one model.

    Attributes:
        logps: (n,) natural log-probabilities, on the CPU.
        tokens: (n,) token ids.
        example: (n,) number of the example in the sample.
        position: (n,) place of the token in its example's row.
        segments: n names of ``probe.segments``.
        rows: token ids of each example, padding included.
        decode: text of token ids.
        probabilities: the histogram and its numbers.
        plan: the training that the YAML asks for.
    """

    logps: Tensor
    tokens: Tensor
    example: Tensor
    position: Tensor
    segments: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    decode: Callable[[Sequence[int]], str]
    probabilities: TokenProbabilities
    plan: Plan


def measure(
    config: Mapping[str, Any],
    models: Mapping[str, str | None],
    *,
    limit: int = 64,
    seed: int = 0,
    progress: Progress,
) -> list[Measured]:
    """Token probabilities of the YAML's training set under each model.

    Args:
        config: a LLaMA-Factory training YAML; its data, template and precision are used.
        models: label -> model folder, adapter folder or hub id; None is the YAML's own model.
        limit: examples, sampled with ``seed``; the same for every model.
        progress: called after each batch.

    Raises:
        ConfigError: settings that LLaMA-Factory or the probe refuses, or nothing labelled.
        MissingDependencyError: a model or a package is not here.
    """
    check_config(config)
    if limit < 1:
        raise ConfigError(f"--limit {limit}: at least one example is needed. Write --limit 64.")
    measured = []
    # LLaMA-Factory prints to stdout, which is the caller's.
    with contextlib.redirect_stdout(sys.stderr):
        for label, name in models.items():
            with tempfile.TemporaryDirectory() as scratch:
                settings = settings_for(config, name, scratch)
                measured.append(_measure(settings, label, name, limit, seed, progress))
    return measured


@contextlib.contextmanager
def _settings_errors() -> Iterator[None]:
    """Errors of LLaMA-Factory and transformers about settings, as ours."""
    try:
        yield
    except (ConfigError, MissingDependencyError):
        raise
    except ImportError as error:
        raise MissingDependencyError(f"{error}. `dft-factory doctor` says what is here.") from error
    except (ValueError, OSError, KeyError) as error:
        text = str(error).strip() or type(error).__name__
        raise ConfigError(
            f"LLaMA-Factory refuses these settings: {text}\n`dft-factory validate` on the YAML "
            "says more."
        ) from error


def _measure(
    settings: dict[str, Any],
    label: str,
    name: str | None,
    limit: int,
    seed: int,
    progress: Progress,
) -> Measured:
    from llamafactory.data import SFTDataCollatorWith4DAttentionMask
    from llamafactory.data import get_template_and_fix_tokenizer as get_template
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_model, load_tokenizer

    shown = name or str(settings["model_name_or_path"])
    with _settings_errors():
        model_args, data_args, training_args, finetuning_args, _ = get_train_args(settings)
        with _loading_errors(shown):
            module = load_tokenizer(model_args)
        tokenizer = module["tokenizer"]
        template = get_template(tokenizer, data_args)
        dataset, n_examples = sample_dataset(
            template, model_args, data_args, training_args, module, limit, seed
        )
        with _loading_errors(shown):
            model = load_model(tokenizer, model_args, finetuning_args, False).eval()
    full = finetuning_args.finetuning_type == "full"
    if full and model_args.compute_dtype == torch.float32:
        model.float()  # as in training; LLaMA-Factory loads weights in the dtype of their files
    for part in (model.config, getattr(model.config, "text_config", None)):
        if part is not None and hasattr(part, "use_cache"):
            part.use_cache = False
    collator = SFTDataCollatorWith4DAttentionMask(
        template=template, model=model, label_pad_token_id=IGNORE_INDEX, **module
    )
    size = training_args.per_device_train_batch_size
    groups = [range(i, min(i + size, len(dataset))) for i in range(0, len(dataset), size)]
    forward = _Forward(model, model_args.compute_dtype)
    logps: list[Tensor] = []
    targets: list[Tensor] = []
    examples: list[Tensor] = []
    positions: list[Tensor] = []
    rows: list[tuple[int, ...]] = []
    for done, group in enumerate(groups, start=1):
        batch = collator([dataset[i] for i in group])
        labelled = shift_labels(batch["labels"]).ne(IGNORE_INDEX)
        row, place = labelled.nonzero(as_tuple=True)
        loss = forward(batch)
        logps.append(loss.logps.cpu())
        targets.append(loss.targets.cpu())
        examples.append(row + len(rows))
        positions.append(place + 1)
        rows.extend(tuple(ids) for ids in batch["input_ids"].tolist())
        progress(label, done, len(groups))
    tokens, example, position = torch.cat(targets), torch.cat(examples), torch.cat(positions)

    def decode(ids: Sequence[int]) -> str:
        text = tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)

    all_logps = torch.cat(logps)
    spell = functools.cache(lambda number: decode([number]))
    ends, special = set(end_of_turn_ids(template, tokenizer)), set(tokenizer.all_special_ids)
    # Examples far apart: no turn reaches from one into the next.
    places = (example * 2**40 + position).tolist()
    segments: list[str] = []
    for turn in turns_of(places):
        ids = tokens[turn.start : turn.stop].tolist()
        segments += segments_of(ids, spell, end_of_turn=ends, special=special)
    return Measured(
        logps=all_logps,
        tokens=tokens,
        example=example,
        position=position,
        segments=tuple(segments),
        rows=tuple(rows),
        decode=decode,
        probabilities=summarise(
            all_logps,
            model=shown,
            label=label,
            dataset=", ".join(data_args.dataset or [str(settings.get("tokenized_path"))]),
            n_examples=len(dataset),
        ),
        plan=_plan(training_args, n_examples, full=full),
    )


def _plan(args: Any, n_examples: int, *, full: bool) -> Plan:
    """From transformers' TrainingArguments, as if in one process."""
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps
    steps = math.ceil(math.ceil(n_examples / batch) * args.num_train_epochs)
    return Plan(
        learning_rate=args.learning_rate,
        batch=batch,
        n_examples=n_examples,
        steps=args.max_steps if args.max_steps > 0 else steps,
        full=full,
    )


@contextlib.contextmanager
def _loading_errors(model: str) -> Iterator[None]:
    """What transformers says of a model that it cannot load, as ours."""
    try:
        yield
    except OSError as error:
        reason = str(error.__cause__ or error).strip()
        if Path(model).exists():
            raise ConfigError(f"model {model} cannot be loaded: {reason}") from error
        raise MissingDependencyError(
            f"model {model!r} is no folder here and could not be had from the hub ({reason}). Name "
            "a folder, or download it first."
        ) from error


def sample_dataset(
    template: Any,
    model_args: Any,
    data_args: Any,
    training_args: Any,
    module: Mapping[str, Any],
    limit: int,
    seed: int,
) -> tuple[Any, int]:
    """The sampled examples, tokenized, and the number of all; the others stay as they are."""
    from llamafactory.data import get_dataset, loader
    from llamafactory.data.data_utils import split_dataset

    if data_args.tokenized_path is not None:
        whole = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)[
            "train_dataset"
        ]
    else:
        merged = loader._get_merged_dataset(
            data_args.dataset, model_args, data_args, training_args, "sft"
        )
        whole = split_dataset(merged, None, data_args, seed=training_args.seed)[0]["train"]
    chosen = random.Random(seed).sample(range(len(whole)), min(limit, len(whole)))
    sample = whole.select(chosen)
    if data_args.tokenized_path is not None:
        return sample, len(whole)
    try:
        tokenized = loader._get_preprocessed_dataset(
            sample, data_args, training_args, "sft", template, **module
        )
        return tokenized, len(whole)
    except RuntimeError as error:  # its way of saying that no example is valid
        raise ConfigError(
            f"dataset: {', '.join(data_args.dataset)}: none of {len(chosen)} sampled examples is "
            f"valid: {error}"
        ) from error


class _Forward:
    """The forward pass that gives log-probabilities, inside the head where that is possible."""

    def __init__(self, model: Any, compute_dtype: Any) -> None:
        self._model = model
        kind = model.device.type
        reduced = compute_dtype in (torch.bfloat16, torch.float16)
        self._autocast = torch.autocast(kind, compute_dtype, enabled=reduced)
        head = find_head(model)
        self._head = None if head is None else HeadLoss(head, transform_of(model.config))
        self._checked = False
        if head is None:
            self._say("its head is no linear layer")

    def _say(self, reason: str) -> None:
        sys.stderr.write(f"dft-factory: probing with full logits ({reason}): more memory.\n")

    @torch.inference_mode()
    def __call__(self, batch: Mapping[str, Any]) -> TokenLoss:
        inputs = {k: v.to(self._model.device) for k, v in batch.items() if torch.is_tensor(v)}
        labels = inputs.pop("labels")
        if self._head is not None:
            with self._head.request(labels, UNIT_WEIGHT), self._autocast:
                logits = self._model(**inputs).logits
                loss = self._head.answer(logits)
            if loss is not None and (self._checked or self._head.is_untouched(logits)):
                self._checked = True
                return loss
            self._head.release()
            self._head = None
            self._say("the model changes its head's output in its own way")
        with self._autocast:
            logits = self._model(**inputs).logits
        return token_weighted_nll(logits, labels, UNIT_WEIGHT)
