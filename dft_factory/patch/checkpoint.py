"""Checkpoints: which one a killed run resumes from, and how its weights are loaded.

transformers (4.57 to 5.8) resumes from the newest ``checkpoint-*`` folder, even one that a kill
left half-written, and loads full weights with ``strict=False`` under the names that they have on
disk, which are not the names of a live Qwen2.5-VL: its text weights silently stay those of the base
model. ``docs/upstream/`` has the report.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from dft_eval.model_files import ADAPTER_CONFIG
from dft_factory.errors import ConfigError, DftFactoryError, UpstreamContractError

STATE = "trainer_state.json"
"""The file that transformers writes last."""
NO_OPTIMIZER = "it has no optimizer state (save_only_model: true)"

logger = logging.getLogger("llamafactory.dft_factory")


def defect_of(folder: Path) -> str | None:
    """Why training cannot resume from this checkpoint; None if it can."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"it has no {STATE}"
    except (OSError, ValueError):
        return f"its {STATE} cannot be read"
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        defect = _defect_of_file(path)
        if defect is not None:
            return f"its {path.relative_to(folder)} {defect}"
    # optimizer.pt; optimizer.bin or optimizer_0/ under FSDP; global_stepN/ under DeepSpeed.
    finished = state["global_step"] >= state["max_steps"]
    if not finished and not [*folder.glob("optimizer*"), *folder.glob("global_step*")]:
        return NO_OPTIMIZER
    return None


def _defect_of_file(path: Path) -> str | None:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):
                return None
        except SafetensorError:
            return "is truncated"
    if path.suffix in (".bin", ".pt", ".pth"):  # torch.save's archives end in their directory
        return None if zipfile.is_zipfile(path) else "is truncated"
    if path.name.endswith(".index.json"):
        try:
            shards = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        except ValueError:
            return "is truncated"
        absent = sorted(shard for shard in shards if not path.with_name(shard).is_file())
        return f"names {', '.join(absent)}, which does not exist" if absent else None
    return None


def checkpoints(output_dir: Path) -> list[Path]:
    """Checkpoint folders of a run, newest first."""
    steps = {
        int(path.name.removeprefix("checkpoint-")): path
        for path in output_dir.glob("checkpoint-*")
        if path.is_dir() and path.name.removeprefix("checkpoint-").isdigit()
    }
    return [steps[step] for step in sorted(steps, reverse=True)]


def choose_checkpoint(training: Any) -> None:
    """Set ``resume_from_checkpoint`` to the newest whole checkpoint, before LLaMA-Factory chooses.

    Args:
        training: LLaMA-Factory's TrainingArguments, changed in place.

    Raises:
        ConfigError: the checkpoint that the user named cannot be resumed from, or
            ``resume_from_checkpoint: true`` without one that can.
    """
    resume = training.resume_from_checkpoint
    if resume is False or (resume is None and getattr(training, "overwrite_output_dir", False)):
        return
    defects: dict[Path, str] = {}
    newest = None
    for folder in checkpoints(Path(training.output_dir)):
        defect = defect_of(folder)
        if defect is None:
            newest = folder
            break
        defects[folder] = defect
    if isinstance(resume, str):
        defect = defect_of(Path(resume)) if Path(resume).is_dir() else "there is no such folder"
        if defect is not None:
            instead = f" The newest whole one is {newest}." if newest else ""
            raise ConfigError(
                f"resume_from_checkpoint: {resume!r} cannot be resumed from: {defect}.{instead}"
            )
        return
    listed = "; ".join(f"{folder.name} is incomplete: {why}" for folder, why in defects.items())
    if newest is None and (resume is True or NO_OPTIMIZER in defects.values()):
        raise ConfigError(
            f"output_dir: {training.output_dir!r} holds no checkpoint to resume from"
            f"{f' ({listed})' if listed else ''}. Choose another output_dir, or write "
            "resume_from_checkpoint: false to train from the start."
        )
    if training.process_index == 0 and defects:
        start = f"Resuming from {newest.name}" if newest else "Training from the start"
        logger.warning("dft-factory: %s. %s.", listed, start)
    if newest is not None:
        training.resume_from_checkpoint = str(newest)
    elif defects:
        training.overwrite_output_dir = True  # else LLaMA-Factory takes the newest folder


def check_output_dir(output_dir: str, *, adapter: bool) -> None:
    """Fail before the data is read, not at the first save.

    Args:
        adapter: the training leaves an adapter, not whole weights.

    Raises:
        ConfigError: ``output_dir`` cannot be made or written to, or whole weights would lie beside
            an adapter, which transformers and ``dft-factory eval`` would load instead of them.
    """
    place = Path(output_dir).absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        reason = "cannot be written to" if place.is_dir() else "is a file"
        raise ConfigError(
            f"output_dir: {output_dir!r}: {place} {reason}. Choose a folder that this user can "
            "write to."
        )
    if not adapter and (Path(output_dir) / ADAPTER_CONFIG).is_file():
        raise ConfigError(
            f"output_dir: {output_dir!r} holds the adapter of an earlier run "
            "(adapter_config.json), which would be loaded from there instead of the weights of "
            "this training. Choose another output_dir, or remove what the earlier run left."
        )


@contextlib.contextmanager
def one_message_if_writing_fails(output_dir: str) -> Iterator[None]:
    """Turn a full disk, in whichever library it surfaces, into one message.

    Raises:
        DftFactoryError: naming what failed, and the checkpoint that is whole.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch.save: "[enforce fail at inline_container.cc:...] PytorchStreamWriter failed writing"
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise
        whole = [folder for folder in checkpoints(Path(output_dir)) if defect_of(folder) is None]
        state = f"{whole[0]} is whole" if whole else "No checkpoint is whole yet"
        free = shutil.disk_usage(output_dir).free / 1e6
        raise DftFactoryError(
            f"output_dir: {output_dir!r} cannot be written to ({free:.1f} MB free): {error}. "
            f"{state}. Free some space, then run the same command again."
        ) from error


def load_weights(model: nn.Module, folder: str) -> None:
    """Load a checkpoint's full weights into ``model``, all of them.

    They go through ``from_pretrained``, which alone renames what ``save_pretrained`` renamed.

    Raises:
        UpstreamContractError: weights of the model are missing in the checkpoint.
    """
    # fp32 holds bf16 and fp16 exactly; load_state_dict casts to the live dtype.
    source, report = type(model).from_pretrained(  # type: ignore[attr-defined]
        folder, dtype=torch.float32, output_loading_info=True
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise UpstreamContractError(
            f"{folder}: {len(missing)} weights of {type(model).__name__} are missing, such as "
            f"{missing[0]}: training would silently go on from the base model's. Resume from "
            "another checkpoint, or write resume_from_checkpoint: false."
        )
    model.load_state_dict(source.state_dict())
