"""Run a task of lm-eval on a model of this machine, in a process of its own."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from dft_eval.benchmark import Request
from dft_eval.errors import EvaluationError, UsageError
from dft_eval.harness_process import run_logged
from dft_eval.model_files import DEFAULT_DTYPE, ModelFiles, find_model
from dft_eval.progress import tail

RECORDS = "records"
"""Folder of the harness's own results and samples."""
RUNS_CODE = "marked as unsafe"
"""In the harness's error on a task that runs what the model wrote."""


def ask(task: str, folder: Path, request: Request, sha256: str | None) -> None:
    """Let the harness evaluate ``request.model``; its records lie in ``folder / RECORDS`` then.

    What it asked in an earlier call of the same model is not asked again, unless ``request.fresh``.

    Args:
        sha256: of the weights.

    Raises:
        EvaluationError: the harness failed; with the end of its log.
    """
    if request.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder / RECORDS, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    dtype = request.dtype or DEFAULT_DTYPE
    config = {
        "tasks": [task],
        "model": "hf",
        "model_args": _model(find_model(request.model), dtype),
        "batch_size": request.decoding.batch_size,
        "num_fewshot": request.num_fewshot,
        "limit": request.limit,
        # The seeds of its own published scores, unless another is asked for.
        "seed": request.seed or [0, 1234, 1234, 1234],
        "apply_chat_template": request.prompt_style == "chat",
        "system_instruction": request.decoding.system_prompt,
        "include_path": None if request.data is None else str(request.data.resolve()),
        "use_cache": str(folder.resolve() / f"requests-{str(sha256)[:12]}-{dtype}"),
        "output_path": str(folder.resolve() / RECORDS),
        "log_samples": True,
    }
    config_file, log = folder / "run.yaml", folder / "log"
    config_file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    sys.stderr.write(f"{request.label} lm-eval:{task}: its log is {log}\n")
    # lm-eval lets a task run programs that the model wrote only where this is set.
    environment = {k: v for k, v in os.environ.items() if k != "HF_ALLOW_CODE_EVAL"}
    words = [sys.executable, "-m", "lm_eval", "run", "--config", str(config_file)]
    status = run_logged(words, log, environment)
    # The harness ends with 0 where it could not write its results.
    if status or not list((folder / RECORDS).rglob("results_*.json")):
        _refuse(task, status, log)


def _model(files: ModelFiles, dtype: str) -> dict[str, Any]:
    """The ``model_args`` of a whole model, or of an adapter on its base."""
    args = {"pretrained": str(files.base or files.folder), "dtype": dtype}
    args["tokenizer"] = str(files.tokenizer_folder())
    return args if files.base is None else {**args, "peft": str(files.folder)}


def _refuse(task: str, status: int, log: Path) -> None:
    if RUNS_CODE in log.read_text(encoding="utf-8", errors="replace"):
        raise UsageError(
            f"lm-eval:{task} runs programs that the model wrote, which lm-eval does without a "
            "sandbox. For code, choose humaneval, humaneval+, multipl-e or a task of your own with "
            "metric pass@1, which run in one."
        )
    raise EvaluationError(
        f"lm-eval:{task}: the harness ended with status {status} and no results. The end of {log}:"
        f"\n{tail(log)}"
    )
