"""Started once by ``validate``: what only LLaMA-Factory and its libraries know.

Reads a JSON list of jobs from stdin, imports LLaMA-Factory with the patches on, and writes one
marked line of JSON: for every job a list of ``[severity, key, message]``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dft_factory.errors import ConfigError, DftFactoryError
from dft_factory.validate.blame import ESSENTIAL, Refusal, every_refusal, named_in
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

MACHINE = (
    (
        "Output directory already exists",
        "output_dir",
        "it holds a trained model already. Move that away, or name another folder.",
    ),
)
"""Refusals that depend on this machine: what LLaMA-Factory says, the key meant, what we say."""


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
            """Building one takes longer than parsing with it, and blame parses often."""
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
        self._parser = parser
        self._templates = list(TEMPLATES)
        self._train = fields_of(parser._TRAIN_ARGS)
        self._infer = fields_of(parser._INFER_ARGS)

    def check(self, job: Mapping[str, Any]) -> Iterator[Verdict]:
        """Everything about one recipe that LLaMA-Factory knows.

        A job has ``kind``, ``values``, ``deepspeed`` (the settings or the absolute path of their
        file; None where the recipe asks for none, or for a file that is not there) and ``model``
        (the absolute path of its folder; None where it is not on this machine).
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
        # What is bad already must not be found missing.
        for key in ("model_name_or_path", "dataset", "do_train"):
            if key in bad:
                left[key] = True if key == "do_train" else "given"
        yield from self._machine(left)
        yield from self._parse(left, training, job["deepspeed"], job["model"])

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
        self, values: Mapping[str, Any], training: bool, deepspeed: Any, model: str | None
    ) -> Iterator[Verdict]:
        parse_args = self._parser.get_train_args if training else self._parser.get_infer_args
        parsed: list[Any] = []

        def parse(attempt: dict[str, Any]) -> BaseException | None:
            parsed.clear()
            try:
                parsed.append(parse_args(dict(attempt)))
            except (Exception, SystemExit) as error:
                return error
            return None

        with zero_in_force(deepspeed) as trouble:
            for refusal in every_refusal(parse, values):
                yield _verdict(refusal, [key for key in self._train if key not in values])
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
        if ours and model is not None and _has_router_loss(Path(model) / "config.json"):
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


def _has_router_loss(file: Path) -> bool:
    """As the trainer's own refusal has it, which looks at the loaded model."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(config, dict):
        return False
    parts = (config, config.get("text_config"))
    return any(isinstance(part, dict) and part.get("output_router_logits") for part in parts)


def _verdict(refusal: Refusal, absent: Iterable[str]) -> Verdict:
    error = refusal.error
    text = one_line(error)
    keys = refusal.keys
    if set(keys) <= set(ESSENTIAL) and not named_in(text, keys):
        keys = tuple(named_in(text, absent)[:1]) or keys  # wanted, and not there
    key = ", ".join(keys) or WHOLE
    if isinstance(error, DftFactoryError):
        return "error", key, text
    for said, meant, instead in MACHINE:
        if said in text:
            return "warning", meant, instead
    if isinstance(error, NOT_INSTALLED):
        return "warning", key, f"needs something that is not installed here: {text}"
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
