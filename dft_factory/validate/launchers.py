"""Run by the worker: DeepSpeed and accelerate configurations, judged by their own readers."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dft_factory.validate.findings import WHOLE, Severity, near

Verdict = tuple[Severity, str, str]
"""(severity, key, message)"""

NOT_INSTALLED = (ImportError, importlib.metadata.PackageNotFoundError)


def one_line(error: BaseException) -> str:
    """The message of an exception, without line breaks."""
    is_package = isinstance(error, importlib.metadata.PackageNotFoundError)
    text = str(error.args[0] if is_package and error.args else error)  # its str() adds a preamble
    return " ".join(text.split()) or type(error).__name__


def check_accelerate(values: Mapping[str, Any]) -> Iterator[Verdict]:
    """What ``accelerate launch --config_file`` would say, and what it silently swallows."""
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import launch_command_parser

    left = dict(values)
    known = set(ClusterConfig.__dataclass_fields__) | {"fp16", "dynamo_backend"}
    for key in [key for key in values if key not in known]:
        yield "error", key, f"is no setting of accelerate.{near(key, known)}"
        del left[key]
    options = {action.dest for action in launch_command_parser()._actions}
    for part, prefix in (("fsdp_config", "fsdp_"), ("parallelism_config", "parallelism_config_")):
        given = values.get(part)
        for key, value in given.items() if isinstance(given, dict) else ():
            full = key if key.startswith(prefix) else f"{prefix}{key}"
            where = f"{part}.{key}"
            if full not in options:
                hint = near(full, [option for option in options if option.startswith(prefix)])
                yield "error", where, f"is no setting of accelerate, which ignores it.{hint}"
            elif re.search(r"_(cp|sp|tp)_size$", full) and value not in (1, None):
                message = (
                    f"{value!r}: transformers computes the loss itself under this parallelism, so "
                    "finetuning_type: dft is refused. Set it to 1 for DFT."
                )
                yield "warning", where, message
    try:
        ClusterConfig(**ClusterConfig.process_config(left))
    except Exception as error:
        yield "error", WHOLE, f"accelerate refuses it: {one_line(error)}"


def check_deepspeed(values: Mapping[str, Any]) -> Iterator[Verdict]:
    """The ZeRO part by DeepSpeed's own model; ``auto`` is the Trainer's to fill in."""
    zero = values.get("zero_optimization", {})
    if not isinstance(zero, dict):
        yield "error", "zero_optimization", f"{zero!r} is not a mapping."
        return
    try:
        model = importlib.import_module("deepspeed.runtime.zero.config").DeepSpeedZeroConfig
    except Exception as error:  # its import compiles and asks the machine
        message = (
            f"DeepSpeed cannot be imported, so nothing was checked ({one_line(error)}). "
            "`pip install 'dft-factory[deepspeed]'`"
        )
        yield "warning", WHOLE, message
        return
    from pydantic import ValidationError

    try:
        model(**{key: value for key, value in zero.items() if value != "auto"})
    except ValidationError as problems:
        for problem in problems.errors():
            names = [str(part) for part in problem["loc"]]
            if problem["type"] == "extra_forbidden":
                message = f"is no setting of DeepSpeed.{near(names[-1], model.model_fields)}"
            else:
                message = f"{problem['input']!r}: {problem['msg']}."
            yield "error", ".".join(["zero_optimization", *names]), message


@contextlib.contextmanager
def zero_in_force(settings: Any) -> Iterator[Verdict | None]:
    """transformers believes that these DeepSpeed settings are in force; or says why it cannot.

    ``None`` is no DeepSpeed at all.
    """
    if settings is None:
        yield None
        return
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    trouble: Verdict | None = None
    in_force = None  # transformers keeps a weak reference: ours keeps it alive
    try:
        in_force = HfDeepSpeedConfig(settings)
    except NOT_INSTALLED as error:
        trouble = ("warning", "deepspeed", f"is not installed here: {one_line(error)}")
    except Exception as error:
        trouble = ("error", "deepspeed", f"cannot be read: {one_line(error)}")
    try:
        yield trouble
    finally:
        del in_force
        unset_hf_deepspeed_config()


def against_recipe(settings: Any, training: Any) -> Iterator[Verdict]:
    """DeepSpeed settings that contradict the parsed TrainingArguments of a recipe."""
    from transformers.integrations.deepspeed import (
        HfTrainerDeepSpeedConfig,
        unset_hf_deepspeed_config,
    )

    try:
        config = HfTrainerDeepSpeedConfig(settings)
        config.trainer_config_process(training)
        if config.mismatches:
            listed = "; ".join(line.strip("- ") for line in config.mismatches)
            yield "error", "deepspeed", f"contradicts the recipe: {listed}. Write 'auto' there."
    except Exception as error:
        yield "error", "deepspeed", f"cannot be used: {one_line(error)}"
    finally:
        unset_hf_deepspeed_config()
