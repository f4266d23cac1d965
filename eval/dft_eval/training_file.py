"""What a training with dft-factory leaves in its output folder. Standard library only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dft_eval.errors import UsageError

TRAINING_FILE = "dft_training.json"


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


def trained_steps(model: str) -> int:
    """Optimizer steps behind the weights in the folder ``model``; 0 where that is not recorded."""
    path = Path(model) / "trainer_state.json"
    if not path.is_file():
        return 0
    return int(json.loads(path.read_text(encoding="utf-8")).get("global_step", 0))
