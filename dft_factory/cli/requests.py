"""The requests that the options of ``dft-factory eval`` and ``generate`` make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dft_factory.cli.options import choice_of, judge_choice

if TYPE_CHECKING:
    from dft_eval.benchmark import Request
    from dft_eval.generation.run import Decoding
    from dft_eval.serving.engines import ServeOptions

Options = Mapping[str, Any]
"""Name of an option, with underscores, to its value; paths may be text."""

_SAMPLING = (
    *("batch_size", "samples", "top_p", "top_k", "min_p"),
    *("repetition_penalty", "seed"),
)
_UNCHANGED = (
    *("label", "base_model", "prompt_style", "limit", "seed", "backend", "base_url", "dtype"),
    *("min_pixels", "max_pixels", "harness", "num_fewshot", "sandbox", "judge_workers", "fresh"),
    "device_map",
)
"""Options that are fields of a request as they are."""


def requests_from(options: Options, *, scored: bool) -> list[Request]:
    """A request for each model or checkpoint.

    Args:
        scored: False for ``generate``.

    Raises:
        UsageError: an option that cannot be honoured.
    """
    from dft_eval.benchmark import Request
    from dft_eval.checkpoints import requests_of_run
    from dft_eval.generation.shard import parse_shard
    from dft_eval.several_models import requests_of
    from dft_eval.tracking import tracking_runs

    _check_models(options)
    _check_command(options, scored=scored)
    _check_choices(options)
    request = Request(
        **{name: options[name] for name in _UNCHANGED},
        model="",
        out=Path(options["out"]),
        data=_path(options["data"]),
        decoding=_decoding(options),
        match_entropy=tuple(map(Path, options["match_entropy"] or ())),
        own_max_new_tokens=options["max_new_tokens"] is None,
        judge=judge_choice(options["judge"], options["judge_model"], options["judge_base_url"]),
        shard=parse_shard(options["shard"]),
        serve=_serve_options(options),
        sandboxed=not options["unsafe_no_sandbox"],
    )
    run = _path(options["checkpoints"])
    if run is None:
        requests = requests_of(options["model"], request)
    else:
        requests = requests_of_run(run, request, options["every"])
    if options["track"]:
        for one in requests:
            tracking_runs(one.model)  # refused before anything is generated
    return requests


def _path(text: Path | str | None) -> Path | None:
    return None if text is None else Path(text)


def _check_models(options: Options) -> None:
    """Refuse options of models that do not go together."""
    from dft_eval.errors import UsageError

    models, run, every = options["model"] or (), options["checkpoints"], options["every"]
    if bool(models) == (run is not None):
        both = f", not both {', '.join(map(repr, models))} and {str(run)!r}" if models else ""
        raise UsageError(f"Give either --model or --checkpoints{both}.")
    if run is not None and options["backend"] != "hf":
        raise UsageError(f"--checkpoints {run} needs --backend hf: a server has one model.")
    if every is not None and run is None:
        raise UsageError(f"--every {every} is for --checkpoints RUN_DIR. Leave it out.")
    label = options["label"]
    if len(models) > 1 and label != "model":
        raise UsageError(
            f"--label {label!r}: of several models each has its own: --model LABEL=MODEL."
        )


def _check_command(options: Options, *, scored: bool) -> None:
    """Refuse options that belong to another command."""
    from dft_eval.errors import UsageError

    if scored and options["shard"] is not None:
        raise UsageError(
            f"--shard {options['shard']} is for dft-factory generate; dft-factory score puts the "
            "shards together."
        )
    if not scored and options["track"]:
        raise UsageError("--track is for dft-factory score: generate makes no scores.")
    if not scored and options["unsafe_no_sandbox"]:
        raise UsageError("--unsafe-no-sandbox is for dft-factory score: generate runs no program.")


def _check_choices(options: Options) -> None:
    """Refuse unknown choices, and options that the backend does not have."""
    from dft_eval.benchmark import BACKENDS, PROMPT_STYLES
    from dft_eval.errors import UsageError
    from dft_eval.generation.hf_load import DEVICE_MAPS
    from dft_eval.model_files import DTYPES
    from dft_eval.per_gpu import check_gpus
    from dft_eval.sandbox import SANDBOXES

    for name, choices in (
        ("backend", BACKENDS),
        ("prompt_style", PROMPT_STYLES),
        ("dtype", DTYPES),
        ("device_map", DEVICE_MAPS),
        ("sandbox", SANDBOXES),
    ):
        if options[name] is not None:
            choice_of(f"--{name.replace('_', '-')}", options[name], choices)
    backend, device_map = options["backend"], options["device_map"]
    check_gpus(options["gpus"], backend, options["shard"], device_map)
    if backend == "hf":
        return
    if device_map is not None:
        raise UsageError(
            f"--device-map {device_map} is for --backend hf: vllm and sglang take "
            "--tensor-parallel."
        )
    if options["match_entropy"]:
        raise UsageError("--match-entropy needs --backend hf, which knows the entropy.")


def _decoding(options: Options) -> Decoding:
    from dft_eval.errors import UsageError
    from dft_eval.generation.run import Decoding
    from dft_eval.system_prompts import parse_system_prompt

    temperature, matched = options["temperature"], bool(options["match_entropy"])
    if matched and temperature is not None:
        raise UsageError("--match-entropy chooses the temperature: leave --temperature out.")
    decoding = Decoding(
        **{name: options[name] for name in _SAMPLING},
        temperature=float(matched) if temperature is None else temperature,
        system_prompt=parse_system_prompt(options["system_prompt"]),
    )
    if options["max_new_tokens"] is None:
        return decoding
    return replace(decoding, max_new_tokens=options["max_new_tokens"])


def _serve_options(options: Options) -> ServeOptions:
    from dft_eval.serving.engines import ServeOptions

    return ServeOptions(
        python=_path(options["serve_python"]),
        args=options["serve_args"],
        command=options["serve_command"],
        timeout=options["serve_timeout"],
        tensor_parallel=options["tensor_parallel"],
        data_parallel=options["data_parallel"],
    )
