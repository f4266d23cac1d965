"""Subprocess of ``validate``: the checks that need LLaMA-Factory and its libraries.

Takes a list of jobs, imports LLaMA-Factory with the patches, and answers for each job a list of
``[severity, key, message]``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dft_factory.errors import ConfigError, did_you_mean
from dft_factory.validate.fields import check_values, fields_of
from dft_factory.validate.findings import WHOLE, Verdict
from dft_factory.validate.launchers import (
    NOT_INSTALLED,
    against_recipe,
    check_accelerate,
    check_deepspeed,
    deepspeed_active,
    one_line,
)
from dft_factory.validate.parser_errors import parse_errors, verdict_of
from dft_factory.worker_process import serve


class RecipeChecks:
    """LLaMA-Factory's own tables and parsers, imported once."""

    def __init__(self) -> None:
        import torch
        import transformers.training_args
        from llamafactory.data.template import TEMPLATES
        from llamafactory.hparams import parser
        from transformers import HfArgumentParser
        from transformers.utils import is_torch_bf16_gpu_available, is_torch_tf32_available

        parsers: dict[tuple[type, ...], Any] = {}

        def cached(classes: list[type]) -> Any:
            """Cached: building a parser takes longer than parsing, which happens often."""
            key = tuple(classes)
            if key not in parsers:
                parsers[key] = HfArgumentParser(classes)
            return parsers[key]

        self._gpu = {
            "bf16": is_torch_bf16_gpu_available(),
            "tf32": is_torch_tf32_available(),
            "any": torch.cuda.is_available(),
        }
        # Validity must not depend on this machine; hardware and packages are warnings below.
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
        """All findings of LLaMA-Factory about one recipe.

        A job has ``kind``, ``values`` (with an absolute dataset_dir), ``deepspeed`` (the settings,
        or the absolute path of their file; None if there are none or the file does not exist) and
        ``model`` (its absolute folder; None if it is not on this machine).
        """
        values: Mapping[str, Any] = job["values"]
        training = job["kind"] == "train"
        bad: set[str] = set()
        for verdict in self._check_values(values, training):
            bad.add(verdict[1])
            yield verdict
        rest = {key: value for key, value in values.items() if key not in bad}
        rest.pop("deepspeed", None)
        if "finetuning_type" in bad:
            rest.pop("dft_weight", None)
        if "do_train" in bad:
            rest["do_train"] = True
        yield from self._machine(rest)
        yield from self._parse(rest, training, job, bad)

    def _check_values(self, values: Mapping[str, Any], training: bool) -> Iterator[Verdict]:
        fields = self._train if training else self._infer
        elsewhere = {} if training else dict.fromkeys(self._train, "a training recipe")
        for key, message in check_values(values, fields, elsewhere):
            yield "error", key, message
        yield from _check_selection(values)
        template = values.get("template")
        if isinstance(template, str) and template not in self._templates:
            hint = did_you_mean(template, self._templates)
            message = (
                f"{template!r} is unknown to LLaMA-Factory.{hint} Its {len(self._templates)} "
                "templates are listed in llamafactory/data/template.py."
            )
            yield "error", "template", message
        if training and not any(values.get(key) for key in ("do_train", "do_eval", "do_predict")):
            message = (
                "is not true, and neither is do_eval or do_predict: this recipe would do nothing. "
                "Write do_train: true."
            )
            yield "error", "do_train", message

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
                fix = " On a CPU it needs use_cpu: true." if key.startswith("bf16") else ""
                message = f"needs a GPU that supports it, and this machine has none.{fix}"
                yield "warning", key, message

    def _parse(
        self, values: Mapping[str, Any], training: bool, job: Mapping[str, Any], bad: set[str]
    ) -> Iterator[Verdict]:
        from dft_factory.patch.refusals import refuse_empty_stream

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

        with deepspeed_active(deepspeed) as problem:
            for keys, error in parse_errors(parse, values, fields):
                if not bad.intersection(keys):  # reported already
                    yield verdict_of(keys, error)
            if parsed:
                yield from _check_quantization(parsed[0][0], config, training)
        for message in dict.fromkeys(self._not_installed):
            yield "warning", WHOLE, f"needs a package that is not installed here: {message}"
        if not parsed:
            message = "LLaMA-Factory's parser stops at the error above. Fix it and validate again."
            yield "warning", WHOLE, message
        elif training:
            _, _, training_args, finetuning_args, _ = parsed[0]
            yield from _check_training(training_args, finetuning_args, config)
            if deepspeed is not None:
                yield from against_recipe(deepspeed, training_args, finetuning_args, problem)


def _check_training(training: Any, finetuning: Any, config: Mapping[str, Any]) -> Iterator[Verdict]:
    """Checks that the trainer makes only with several processes or with the loaded model."""
    if getattr(finetuning, "dft_objective", None) is None:
        return
    if not training.average_tokens_across_devices:
        message = "with more than one process, dft and sft are refused without it. Remove it."
        yield "warning", "average_tokens_across_devices", message
    parts = (config, config.get("text_config"))
    if any(isinstance(part, dict) and part.get("output_router_logits") for part in parts):
        message = (
            "dft and sft would drop the router loss of this mixture-of-experts model, whose "
            "config.json sets output_router_logits: true. Set it to false."
        )
        yield "error", "model_name_or_path", message


def _check_selection(values: Mapping[str, Any]) -> Iterator[Verdict]:
    from dft_factory.objectives import select, split_finetuning_type

    name = values.get("finetuning_type", "lora")  # LLaMA-Factory's default
    key = "finetuning_type"
    try:
        split_finetuning_type(name)
        key = "dft_weight"
        select(name, values.get("dft_weight"))
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


def _check_quantization(
    model_args: Any, config: Mapping[str, Any], training: bool
) -> Iterator[Verdict]:
    """Checks that LLaMA-Factory makes only when it loads the model."""
    from llamafactory.model.model_utils.quantization import configure_quantization
    from transformers import PretrainedConfig

    if model_args.export_quantization_bit is not None:
        return  # would read its calibration data
    key = "model_name_or_path" if config.get("quantization_config") else "quantization_bit"
    stand_in = PretrainedConfig(quantization_config=config.get("quantization_config"))
    try:
        configure_quantization(stand_in, None, model_args, training, {})
    except Exception as error:
        yield verdict_of((key,), error)


def judge(jobs: list[dict[str, Any]]) -> list[list[Verdict]]:
    """Verdicts of each job, in order."""
    recipes = cache(RecipeChecks)
    checks = {
        "accelerate": lambda job: check_accelerate(job["values"]),
        "deepspeed": lambda job: check_deepspeed(job["values"]),
    }
    return [list(checks.get(job["kind"], lambda job: recipes().check(job))(job)) for job in jobs]


if __name__ == "__main__":
    serve(judge)
