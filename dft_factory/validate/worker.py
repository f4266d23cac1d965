"""Started once by ``validate``: what only LLaMA-Factory and its libraries know.

Reads a JSON list of jobs from stdin, imports LLaMA-Factory with the patches on, and writes one
marked line of JSON: for every job a list of ``[severity, key, message]``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dft_factory.errors import ConfigError, DftFactoryError
from dft_factory.validate.fields import check_values, fields_of
from dft_factory.validate.findings import WHOLE, near
from dft_factory.validate.launchers import (
    NOT_INSTALLED,
    Verdict,
    against_recipe,
    check_accelerate,
    check_deepspeed,
    one_line,
    zero_in_force,
)

MARK = "dft-factory validate: "

IDENTITY = (
    "finetuning_type",
    "dft_weight",
    "model_name_or_path",
    "dataset",
    "do_train",
    "streaming",
)
"""Never removed: without one of these the recipe is another one, with other errors."""

STAND_INS = {
    "model_name_or_path": "model",
    "dataset": "data",
    "eval_dataset": "data",
    "reward_model": "model",
    "max_steps": 1,
    "dataloader_num_workers": 1,
    "predict_with_generate": True,
    "overwrite_output_dir": True,
}
"""Values for keys that LLaMA-Factory asks for, so that its parser goes on to the next error."""

TRAINED = "Output directory already exists"

NAMELESS = {
    "Quantization is only compatible with": "quantization_bit",
    "Adapter is only valid for": "adapter_name_or_path",
}
"""Messages of LLaMA-Factory that do not name their key."""


def parse_errors(
    parse: Callable[[dict[str, Any]], BaseException | None],
    values: Mapping[str, Any],
    fields: Iterable[str],
) -> Iterator[tuple[tuple[str, ...], BaseException]]:
    """(keys, error) of the errors of a parser that raises only its first one.

    The keys that a message names are removed, or set if they are missing, and the parser runs
    again, until it accepts the rest or repeats itself.
    """
    values = dict(values)
    messages: set[str] = set()
    while (error := parse(dict(values))) is not None and (text := one_line(error)) not in messages:
        messages.add(text)
        names = _names_in(text, fields)
        missing = [key for key in names if key in STAND_INS and not values.get(key)]
        removable = [key for key in names if key in values and key not in IDENTITY]
        yield tuple(missing or removable or names), error
        if missing:
            values |= {key: STAND_INS[key] for key in missing}
        else:
            values = {key: value for key, value in values.items() if key not in removable}


def _names_in(text: str, fields: Iterable[str]) -> list[str]:
    """The fields that a message names, in its order; it may write "val size" for val_size."""
    matches = {
        key: re.search(rf"(?<!\w){key.replace('_', '[_ ]')}(?!\w)", text, re.IGNORECASE)
        for key in fields
    }
    positions = {key: match.start() for key, match in matches.items() if match is not None}
    nameless = [key for fragment, key in NAMELESS.items() if fragment in text]
    return nameless or sorted(positions, key=positions.__getitem__)


class RecipeChecks:
    """LLaMA-Factory's own tables and parsers, imported once."""

    def __init__(self) -> None:
        from dft_factory import startup

        startup.install()  # whether or not activation is switched off in this shell
        import torch
        import transformers.training_args
        from llamafactory.data.template import TEMPLATES
        from llamafactory.hparams import parser
        from transformers import HfArgumentParser
        from transformers.utils import is_torch_bf16_gpu_available, is_torch_tf32_available

        parsers: dict[tuple[type, ...], Any] = {}

        def cached(classes: list[type]) -> Any:
            """Building one takes longer than parsing with it, and a recipe is parsed often."""
            key = tuple(classes)
            if key not in parsers:
                parsers[key] = HfArgumentParser(classes)
            return parsers[key]

        self._gpu = {
            "bf16": is_torch_bf16_gpu_available(),
            "tf32": is_torch_tf32_available(),
            "any": torch.cuda.is_available(),
        }
        # A recipe is right or wrong on any machine alike; what this one lacks is a warning of ours.
        parser.is_torch_bf16_gpu_available = lambda: True
        transformers.training_args.is_torch_bf16_gpu_available = lambda: True
        transformers.training_args.is_torch_tf32_available = lambda: True
        transformers.training_args.enable_tf32 = lambda enable: None
        parser.HfArgumentParser = cached
        self._not_installed: list[str] = []
        check_version = parser.check_version

        def collect(*args: Any, **kwargs: Any) -> None:
            try:
                check_version(*args, **kwargs)
            except NOT_INSTALLED as error:
                self._not_installed.append(one_line(error))

        parser.check_version = collect
        self._parser = parser
        self._templates = list(TEMPLATES)
        self._train = fields_of(parser._TRAIN_ARGS)
        self._infer = fields_of(parser._INFER_ARGS)

    def check(self, job: Mapping[str, Any]) -> Iterator[Verdict]:
        """Everything about one recipe that LLaMA-Factory knows.

        A job has ``kind``, ``values`` (with an absolute dataset_dir), ``deepspeed`` (the settings
        or the absolute path of their file; None where the recipe asks for none, or for a file that
        is not there) and ``model`` (the absolute path of its folder; None where it is not on this
        machine).
        """
        values: Mapping[str, Any] = job["values"]
        training = job["kind"] == "train"
        bad: set[str] = set()
        for verdict in self._check_values(values, training):
            bad.add(verdict[1])
            yield verdict
        left = {key: value for key, value in values.items() if key not in bad}
        left.pop("deepspeed", None)
        if "finetuning_type" in bad:
            left.pop("dft_weight", None)
        if "do_train" in bad:
            left["do_train"] = True
        yield from self._machine(left)
        yield from self._parse(left, training, job, bad)

    def _check_values(self, values: Mapping[str, Any], training: bool) -> Iterator[Verdict]:
        fields = self._train if training else self._infer
        elsewhere = {} if training else dict.fromkeys(self._train, "a training recipe")
        for key, message in check_values(values, fields, elsewhere):
            yield "error", key, message
        yield from _check_selection(values)
        template = values.get("template")
        if isinstance(template, str) and template not in self._templates:
            yield (
                "error",
                "template",
                f"{template!r} is unknown to LLaMA-Factory.{near(template, self._templates)} Its "
                f"{len(self._templates)} templates are listed in llamafactory/data/template.py.",
            )
        if training and not any(values.get(key) for key in ("do_train", "do_eval", "do_predict")):
            yield (
                "error",
                "do_train",
                "is not true, and neither is do_eval or do_predict: this recipe would do nothing. "
                "Write do_train: true.",
            )

    def _machine(self, values: Mapping[str, Any]) -> Iterator[Verdict]:
        for key, needs in (
            ("bf16", "bf16"),
            ("bf16_full_eval", "bf16"),
            ("pure_bf16", "bf16"),
            ("tf32", "tf32"),
            ("fp16", "any"),
        ):
            on_cpu = key.startswith("bf16") and values.get("use_cpu")
            if values.get(key) is True and not self._gpu[needs] and not on_cpu:
                mend = " On a CPU it needs use_cpu: true." if key.startswith("bf16") else ""
                yield (
                    "warning",
                    key,
                    f"needs a GPU that can do it, and this machine has none.{mend}",
                )

    def _parse(
        self, values: Mapping[str, Any], training: bool, job: Mapping[str, Any], bad: set[str]
    ) -> Iterator[Verdict]:
        from dft_factory.patch.llamafactory import refuse_empty_stream

        parse_args = self._parser.get_train_args if training else self._parser.get_infer_args
        fields = self._train if training else self._infer
        deepspeed = job["deepspeed"]
        config = _model_config(job["model"])
        parsed: list[Any] = []
        self._not_installed.clear()

        def parse(attempt: dict[str, Any]) -> BaseException | None:
            parsed.clear()
            try:
                arguments = parse_args(attempt)
                if training:
                    refuse_empty_stream(arguments[1], arguments[2])
            except (Exception, SystemExit) as error:
                return error
            parsed.append(arguments)
            return None

        with zero_in_force(deepspeed) as trouble:
            for keys, error in parse_errors(parse, values, fields):
                if not bad.intersection(keys):  # reported already
                    yield _verdict(keys, error)
            if parsed:
                yield from _check_quantization(parsed[0][0], config, training)
        for message in dict.fromkeys(self._not_installed):
            yield "warning", WHOLE, f"needs a package that is not installed here: {message}"
        if not parsed:
            yield (
                "warning",
                WHOLE,
                "LLaMA-Factory's parser stops at the error above. Fix it, then run validate again.",
            )
        if not training or not parsed:
            return
        _, _, training_args, finetuning_args, _ = parsed[0]
        ours = getattr(finetuning_args, "dft_objective", None) is not None
        if ours and not training_args.average_tokens_across_devices:
            yield (
                "warning",
                "average_tokens_across_devices",
                "with more than one process, dft and sft are refused without it. Remove it.",
            )
        if ours and _has_router_loss(config):
            yield (
                "error",
                "model_name_or_path",
                "dft and sft would drop the router loss of this mixture-of-experts model, whose "
                "config.json sets output_router_logits: true. Set it to false.",
            )
        if deepspeed is None:
            return
        if finetuning_args.use_galore or finetuning_args.use_apollo:
            yield (
                "error",
                "deepspeed",
                "does not combine with GaLore or APOLLO. Remove one of them.",
            )
        if values.get("use_cpu") is True:
            yield (
                "error",
                "use_cpu, deepspeed",
                "accelerate starts no DeepSpeed on use_cpu: true, so that every process would be "
                "alone. Remove use_cpu; without a GPU, DS_ACCELERATOR=cpu has the same effect.",
            )
        yield "warning", "deepspeed", "start it with `FORCE_TORCHRUN=1 llamafactory-cli train`."
        if trouble is not None:
            yield trouble
        else:
            yield from against_recipe(deepspeed, training_args)


def _check_selection(values: Mapping[str, Any]) -> Iterator[Verdict]:
    from dft_factory.objectives import select, split_finetuning_type

    asked = values.get("finetuning_type", "lora")  # LLaMA-Factory's default
    key = "finetuning_type"
    try:
        split_finetuning_type(asked)
        key = "dft_weight"
        select(asked, values.get("dft_weight"))
    except ConfigError as error:
        yield "error", key, str(error).removeprefix(f"{key}: ")


def _model_config(folder: str | None) -> dict[str, Any]:
    """The model's config.json; empty if it is not on this machine or cannot be read."""
    if folder is None:
        return {}
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _has_router_loss(config: Mapping[str, Any]) -> bool:
    """As the trainer's own refusal has it, which looks at the loaded model."""
    parts = (config, config.get("text_config"))
    return any(isinstance(part, dict) and part.get("output_router_logits") for part in parts)


def _check_quantization(
    model_args: Any, config: Mapping[str, Any], training: bool
) -> Iterator[Verdict]:
    """What LLaMA-Factory finds only when it loads the model."""
    from llamafactory.model.model_utils.quantization import configure_quantization
    from transformers import PretrainedConfig

    if model_args.export_quantization_bit is not None:
        return  # would read its calibration data
    key = "model_name_or_path" if config.get("quantization_config") else "quantization_bit"
    stand_in = PretrainedConfig(quantization_config=config.get("quantization_config"))
    try:
        configure_quantization(stand_in, None, model_args, training, {})
    except Exception as error:
        yield _verdict((key,), error)


def _verdict(keys: tuple[str, ...], error: BaseException) -> Verdict:
    text = one_line(error)
    key = ", ".join(keys) or WHOLE
    if isinstance(error, DftFactoryError):
        return "error", key, text
    if TRAINED in text:
        message = "it holds a trained model already. Move that away, or name another folder."
        return "warning", "output_dir", message
    if isinstance(error, NOT_INSTALLED):
        return "warning", key, f"needs a package that is not installed here: {text}"
    kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return "error", key, f"LLaMA-Factory refuses it: {kind}{text}"


def judge(jobs: list[dict[str, Any]]) -> list[list[Verdict]]:
    """Verdicts of every job, in order."""
    recipes: RecipeChecks | None = None
    answers: list[list[Verdict]] = []
    for job in jobs:
        if job["kind"] == "accelerate":
            answers.append(list(check_accelerate(job["values"])))
        elif job["kind"] == "deepspeed":
            answers.append(list(check_deepspeed(job["values"])))
        else:
            recipes = recipes or RecipeChecks()
            answers.append(list(recipes.check(job)))
    return answers


def _main() -> None:
    jobs = json.load(sys.stdin)
    # Libraries print what they please; the answer goes to the true stdout alone.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        answer.write(f"{MARK}{json.dumps(judge(jobs))}\n")
    os._exit(0)  # threads and atexit hooks of what was imported have no say


if __name__ == "__main__":
    _main()
