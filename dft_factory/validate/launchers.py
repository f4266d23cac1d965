"""Check DeepSpeed and accelerate configurations with their own parsers; runs in the worker."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dft_factory.errors import did_you_mean
from dft_factory.validate.findings import WHOLE, Verdict

NOT_INSTALLED = (ImportError, importlib.metadata.PackageNotFoundError)


def one_line(error: BaseException) -> str:
    """The message of an exception, without line breaks."""
    is_package = isinstance(error, importlib.metadata.PackageNotFoundError)
    text = str(error.args[0] if is_package and error.args else error)  # its str() adds a preamble
    return " ".join(text.split()) or type(error).__name__


def check_accelerate(values: Mapping[str, Any]) -> Iterator[Verdict]:
    """What ``accelerate launch --config_file`` rejects or silently ignores."""
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import launch_command_parser

    settings = dict(values)
    fields = set(ClusterConfig.__dataclass_fields__) | {"fp16", "dynamo_backend"}
    for key in [key for key in values if key not in fields]:
        yield "error", key, f"is not a setting of accelerate.{did_you_mean(key, fields)}"
        del settings[key]
    options = {action.dest for action in launch_command_parser()._actions}
    for part, prefix in (("fsdp_config", "fsdp_"), ("parallelism_config", "parallelism_config_")):
        section = values.get(part)
        for key, value in section.items() if isinstance(section, dict) else ():
            full = key if key.startswith(prefix) else f"{prefix}{key}"
            path = f"{part}.{key}"
            if full not in options:
                hint = did_you_mean(
                    full, [option for option in options if option.startswith(prefix)]
                )
                yield "error", path, f"is not a setting of accelerate, which ignores it.{hint}"
            elif re.search(r"_(cp|sp|tp)_size$", full) and value not in (1, None):
                message = (
                    f"{value!r}: transformers computes the loss itself under this parallelism, so "
                    "finetuning_type: dft is refused. Set it to 1 for DFT."
                )
                yield "warning", path, message
    try:
        ClusterConfig(**ClusterConfig.process_config(settings))
    except Exception as error:
        yield "error", WHOLE, f"accelerate rejects it: {one_line(error)}"


def check_deepspeed(values: Mapping[str, Any]) -> Iterator[Verdict]:
    """Check the ZeRO section with DeepSpeed's own model; the Trainer fills in ``auto``."""
    zero = values.get("zero_optimization", {})
    if not isinstance(zero, dict):
        yield "error", "zero_optimization", f"{zero!r} is not a mapping."
        return
    try:
        model = importlib.import_module("deepspeed.runtime.zero.config").DeepSpeedZeroConfig
    except Exception as error:  # its import compiles code and inspects the machine
        message = (
            f"DeepSpeed cannot be imported, so nothing was checked ({one_line(error)}). "
            "`pip install 'dft-factory[deepspeed]'`"
        )
        yield "warning", WHOLE, message
        return
    from pydantic import ValidationError

    try:
        model(**{key: value for key, value in zero.items() if value != "auto"})
    except ValidationError as error:
        for problem in error.errors():
            names = [str(part) for part in problem["loc"]]
            if problem["type"] == "extra_forbidden":
                message = (
                    f"is not a setting of DeepSpeed.{did_you_mean(names[-1], model.model_fields)}"
                )
            else:
                message = f"{problem['input']!r}: {problem['msg']}."
            yield "error", ".".join(["zero_optimization", *names]), message


@contextlib.contextmanager
def deepspeed_active(settings: Any) -> Iterator[Verdict | None]:
    """Activate these DeepSpeed settings (None for no DeepSpeed) in transformers.

    Yields the problem, if there is one.
    """
    if settings is None:
        yield None
        return
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    problem: Verdict | None = None
    active = None  # transformers keeps only a weak reference
    try:
        active = HfDeepSpeedConfig(settings)
    except NOT_INSTALLED as error:
        problem = ("warning", "deepspeed", f"is not installed here: {one_line(error)}")
    except Exception as error:
        problem = ("error", "deepspeed", f"cannot be read: {one_line(error)}")
    try:
        yield problem
    finally:
        del active
        unset_hf_deepspeed_config()


def against_recipe(
    settings: Any, training: Any, finetuning: Any, problem: Verdict | None
) -> Iterator[Verdict]:
    """Conflicts of DeepSpeed settings with parsed arguments.

    Args:
        problem: of :func:`deepspeed_active`.
    """
    if finetuning.use_galore or finetuning.use_apollo:
        yield "error", "deepspeed", "does not combine with GaLore or APOLLO. Remove one of them."
    if training.use_cpu:
        message = (
            "accelerate starts no DeepSpeed with use_cpu: true: each process would train alone. "
            "Remove use_cpu; without a GPU, DS_ACCELERATOR=cpu has the same effect."
        )
        yield "error", "use_cpu, deepspeed", message
    yield "warning", "deepspeed", "start it with `FORCE_TORCHRUN=1 llamafactory-cli train`."
    if problem is not None:
        yield problem
        return
    from transformers.integrations.deepspeed import (
        HfTrainerDeepSpeedConfig,
        unset_hf_deepspeed_config,
    )

    try:
        config = HfTrainerDeepSpeedConfig(settings)
        config.trainer_config_process(training)
        if config.mismatches:
            mismatches = "; ".join(line.strip("- ") for line in config.mismatches)
            yield "error", "deepspeed", f"contradicts the recipe: {mismatches}. Write 'auto' there."
    except Exception as error:
        yield "error", "deepspeed", f"cannot be used: {one_line(error)}"
    finally:
        unset_hf_deepspeed_config()
