"""What a training with dft-factory leaves in its output folder. Standard library only."""

from __future__ import annotations

import filecmp
import json
import re
from pathlib import Path
from typing import Any

from dft_eval.errors import UsageError

TRAINING_FILE = "dft_training.json"
TRAINER_STATE = "trainer_state.json"
"""Of transformers' Trainer: the last file of a checkpoint that it writes."""


def training_folder(model: str) -> Path | None:
    """The folder of :data:`TRAINING_FILE`; None where there is none.

    Args:
        model: as ``--model`` names it: a model or adapter folder, or a checkpoint in it.
    """
    folders = (Path(model), Path(model).parent)
    return next((folder for folder in folders if (folder / TRAINING_FILE).is_file()), None)


def training_record(model: str) -> dict[str, Any]:
    """How ``model`` was trained; empty where that is not recorded.

    Raises:
        UsageError: the record cannot be read.
    """
    folder = training_folder(model)
    if folder is None:
        return {}
    path = folder / TRAINING_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}). Remove it.") from error
    if not isinstance(record, dict) or "system_prompt" not in record:
        raise UsageError(f"{path} is no training record (no system_prompt). Remove it.")
    return record


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is named as transformers names a checkpoint, ``checkpoint-STEP``."""
    return re.fullmatch(r"checkpoint-\d+", folder.name) is not None


def trained_steps(model: str) -> int | None:
    """Optimizer steps behind the weights in the folder ``model``.

    The final weights may be those of an earlier, better checkpoint (``load_best_model_at_end``).
    None where that is not known, since the checkpoint is gone, or without ``trainer_state.json``.

    Raises:
        UsageError: ``trainer_state.json`` cannot be read.
    """
    folder = Path(model)
    path = folder / TRAINER_STATE
    if not path.is_file():
        return None
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        step, best = int(state["global_step"]), state.get("best_model_checkpoint")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is no trainer state ({error!r}). Remove it.") from error
    if not best or is_checkpoint(folder.resolve()) or Path(best).name == f"checkpoint-{step}":
        return step
    earlier = folder / Path(best).name  # the run may have been moved
    if not earlier.is_dir():
        return None
    return int(earlier.name.rpartition("-")[2]) if _same_weights(folder, earlier) else step


def _same_weights(first: Path, second: Path) -> bool:
    names = [{path.name for path in folder.glob("*model*.[sb]*")} for folder in (first, second)]
    return names[0] == names[1] and all(
        filecmp.cmp(first / name, second / name, shallow=False) for name in names[0]
    )
