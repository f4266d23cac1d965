"""The checkpoints of a training run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dft_eval.benchmark import Request
from dft_eval.errors import UsageError
from dft_eval.generation.resume import CompletionCache
from dft_eval.model_files import find_model, model_sha256, weight_files
from dft_eval.results import ResultFile
from dft_eval.training_file import TRAINER_STATE, is_checkpoint

SHARDS = ("zero_to_fp32.py", "pytorch_model_fsdp_0", "pytorch_model_fsdp.bin")
"""What DeepSpeed and FSDP leave beside sharded weights."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a training run; ``step`` is None for the final ones, in the run's folder."""

    step: int | None
    folder: Path

    def label(self, label: str) -> str:
        """As experiments label it: ``dft at step 40``, the final weights ``dft``."""
        return label if self.step is None else f"{label} at step {self.step}"

    def out(self, out: Path) -> Path:
        """Where its results go: ``out/checkpoint-40``, the final weights' ``out``."""
        return out if self.step is None else out / f"checkpoint-{self.step}"


def find_checkpoints(run: Path, every: int | None = None) -> list[Checkpoint]:
    """The checkpoints of a training's ``output_dir`` by step, then its final weights if it has any.

    Args:
        every: only the steps that are multiples of it, and the last one.

    Raises:
        UsageError: no checkpoint, or one that is incomplete, sharded or without a tokenizer.
    """
    if every is not None and every < 1:
        raise UsageError(f"--every {every}: give a number of steps, 1 or more.")
    if not run.is_dir():
        raise UsageError(
            f"--checkpoints {run}: there is no such folder. Give a training's output_dir."
        )
    paths = [path for path in run.iterdir() if path.is_dir() and is_checkpoint(path)]
    by_step = {int(path.name.rpartition("-")[2]): path for path in paths}
    if not by_step:
        hint = f" It is a checkpoint itself: give {run.parent}." if is_checkpoint(run) else ""
        raise UsageError(
            f"--checkpoints {run}: no checkpoint-STEP folder in it. Give the output_dir of a "
            f"training with save_strategy: steps or epoch.{hint}"
        )
    steps = sorted(by_step)
    selected = [step for step in steps if step % (every or 1) == 0 or step == steps[-1]]
    problems = [
        f"{by_step[step].name} {problem}"
        for step in selected
        if (problem := _problem(by_step[step]))
    ]
    if problems:
        raise UsageError(f"--checkpoints {run}: {'; '.join(problems)}.")
    final = []
    if weight_files(run):
        find_model(str(run)).tokenizer_folder()
        final = [Checkpoint(None, run)]
    return [*(Checkpoint(step, by_step[step]) for step in selected), *final]


def _problem(folder: Path) -> str | None:
    """Why a checkpoint cannot be evaluated, and what to do; None if it can."""
    if not (folder / TRAINER_STATE).is_file():
        return (
            f"has no {TRAINER_STATE}, the last file that is written: the training is saving it, or "
            "was killed then. Wait, or remove it"
        )
    if not weight_files(folder):
        sharded = any((folder / name).exists() for name in SHARDS)
        return "holds no weights" + (
            " but shards of ZeRO-3 or FSDP: merge them by its zero_to_fp32.py or "
            "`accelerate merge-weights`"
            if sharded
            else ". Remove it"
        )
    try:
        find_model(str(folder)).tokenizer_folder()
    except UsageError as error:
        return f"cannot be loaded: {error}"
    return None


def requests_of_run(run: Path, request: Request, every: int | None = None) -> list[Request]:
    """A request for each checkpoint of a training, its results in a folder of its own.

    Raises:
        UsageError: as :func:`find_checkpoints`.
    """
    return [
        replace(
            request,
            model=str(checkpoint.folder),
            label=checkpoint.label(request.label),
            out=checkpoint.out(request.out),
        )
        for checkpoint in find_checkpoints(run, every)
    ]


def reuse_completions(request: Request, done: Sequence[tuple[Request, ResultFile]]) -> None:
    """Give a training's final weights the completions of the checkpoint with the same weights.

    The cache's keys decide which of them are used.
    """
    target = _cache(request)
    checkpoints = {
        results.model_sha256: earlier
        for earlier, results in done
        if Path(earlier.model).parent == Path(request.model)
    }
    if not checkpoints or target.exists():
        return
    same = checkpoints.get(model_sha256(find_model(request.model)))
    if same is not None:
        sys.stderr.write(f"{request.model}: the same weights as {same.out.name}\n")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_cache(same), target)


def _cache(request: Request) -> Path:
    folder = request.out if request.shard is None else request.shard.folder(request.out)
    return folder / CompletionCache.NAME
