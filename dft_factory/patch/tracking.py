"""Which tracking runs (``report_to``) a training reports to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


def _relative(path: str, folder: str) -> str:
    """Below ``folder`` relative to it, so that a moved folder keeps its run; else absolute."""
    absolute = Path(path).resolve()
    base = Path(folder).resolve()
    return str(absolute.relative_to(base)) if absolute.is_relative_to(base) else str(absolute)


def _tensorboard(callback: Any, folder: str) -> dict[str, Any] | None:
    writer = callback.tb_writer
    return writer and {"logging_dir": _relative(str(writer.log_dir), folder)}


def _wandb(callback: Any, folder: str) -> dict[str, Any] | None:
    run = getattr(sys.modules.get("wandb"), "run", None)
    return run and {"run_id": run.id, "project": run.project, "entity": run.entity}


def _mlflow(callback: Any, folder: str) -> dict[str, Any] | None:
    mlflow: Any = sys.modules.get("mlflow")
    run = mlflow.active_run() if mlflow else None
    if run is None:
        return None
    uri = mlflow.get_tracking_uri()
    if "://" not in uri:  # a folder
        uri = os.path.abspath(uri)
    return {"run_id": run.info.run_id, "tracking_uri": uri}


def _trackio(callback: Any, folder: str) -> dict[str, Any] | None:
    context: Any = sys.modules.get("trackio.context_vars")
    run = context.current_run.get() if context else None
    return run and {"name": run.name, "project": run.project}


def _swanlab(callback: Any, folder: str) -> dict[str, Any] | None:
    swanlab: Any = sys.modules.get("swanlab")
    run = swanlab.get_run() if swanlab else None
    return run and {"run_id": run.public.run_id, "project": run.public.project_name}


_READERS: dict[str, tuple[str, Callable[[Any, str], dict[str, Any] | None]]] = {
    "TensorBoardCallback": ("tensorboard", _tensorboard),
    "WandbCallback": ("wandb", _wandb),
    "MLflowCallback": ("mlflow", _mlflow),
    "TrackioCallback": ("trackio", _trackio),
    "SwanLabCallback": ("swanlab", _swanlab),
}


def tracking_runs(callbacks: Iterable[Any], folder: str) -> list[dict[str, Any]]:
    """The runs of the callbacks that report somewhere, once they have begun.

    Args:
        folder: ``output_dir``.
    """
    runs = []
    for callback in callbacks:
        tracker, read = _READERS.get(type(callback).__name__, ("", lambda *_: None))
        if run := read(callback, folder):
            runs.append({"tracker": tracker, **run})
    return runs


class NoteRuns(TrainerCallback):  # type: ignore[misc]
    """Calls ``note`` once the callbacks before it have begun their runs, on rank 0."""

    def __init__(self, note: Callable[[], None]) -> None:
        self._note = note

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The reporting callbacks come first in the trainer's list."""
        if state.is_world_process_zero:
            self._note()
