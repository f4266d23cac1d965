"""Scores logged to the tracking run that a training reported to.

A training notes its runs in ``dft_training.json`` (``tracking``). Each score is a metric
``<benchmark>/<metric>``, with its standard error beside it as ``<benchmark>/<metric>_stderr``, at
the step of the weights.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.results import GREEDY, ResultFile
from dft_eval.training_file import TRAINING_FILE, trained_steps, training_folder, training_record

Run = Mapping[str, Any]


def _tensorboard(run: Run, folder: Path, scores: Mapping[str, float], step: int) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    values = [Summary.Value(tag=name, simple_value=score) for name, score in scores.items()]
    writer = EventFileWriter(str(folder / run["logging_dir"]), filename_suffix=".scores")
    writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
    writer.close()


def _mlflow(run: Run, folder: Path, scores: Mapping[str, float], step: int) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=run["tracking_uri"])
    for name, score in scores.items():
        # MLflow takes neither "@" nor "+".
        plain = re.sub(r"[^\w./ -]", "_", name.replace("@", "_at_").replace("+", "_plus"))
        client.log_metric(run["run_id"], plain, score, step=step)


def _wandb(run: Run, folder: Path, scores: Mapping[str, float], step: int) -> None:
    import wandb

    resumed = wandb.init(
        id=run["run_id"], project=run["project"], entity=run["entity"] or None, resume="allow"
    )
    # transformers plots everything over this key; the client's own step may not go back.
    resumed.log({**scores, "train/global_step": step})
    resumed.finish()


def _trackio(run: Run, folder: Path, scores: Mapping[str, float], step: int) -> None:
    import trackio

    trackio.init(project=run["project"], name=run["name"], resume="must")
    trackio.log({**scores, "train/global_step": step})
    trackio.finish()


TRACKERS: dict[str, Callable[[Run, Path, Mapping[str, float], int], None]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
    "trackio": _trackio,
}


def tracking_runs(model: str) -> list[Run]:
    """The runs that the training of ``model`` reported to.

    Raises:
        UsageError: none is recorded, or only trackers that take no scores from here.
    """
    runs = training_record(model).get("tracking", [])
    known = [run for run in runs if run["tracker"] in TRACKERS]
    if known:
        return known
    recorded = ", ".join(run["tracker"] for run in runs) or "none"
    raise UsageError(
        f"--track: {model} names no tracking run in {TRAINING_FILE} (recorded: {recorded}). Train "
        f"with report_to: {' | '.join(TRACKERS)}, or leave --track out."
    )


def metrics(results: ResultFile) -> dict[str, float]:
    """Name to value of every scored benchmark; fractions."""
    values: dict[str, float] = {}
    for row in results.results:
        name = f"{row.benchmark}/{row.metric}"
        if row.decoding_name not in ("", GREEDY):
            name = f"{name} ({row.decoding_name})"
        if name in values:  # the other prompt style
            name = f"{name} ({row.prompt_style})"
        if row.score is not None:
            values[name] = row.score
        if row.stderr is not None:
            values[f"{name}_stderr"] = row.stderr
    return values


def track(model: str, results: ResultFile) -> list[str]:
    """Log all scores to the runs of :func:`tracking_runs`; the trackers' names.

    Raises:
        UsageError: as :func:`tracking_runs`.
        PrerequisiteError: a tracker's package is missing.
    """
    folder = training_folder(model)
    runs = tracking_runs(model)
    assert folder is not None
    step = trained_steps(model) or 0
    for run in runs:
        tracker = run["tracker"]
        try:
            TRACKERS[tracker](run, folder, metrics(results), step)
        except ImportError as error:
            raise PrerequisiteError(
                f"--track: the Python package {tracker} is missing ({error}): "
                f"uv pip install {tracker}."
            ) from error
    return [run["tracker"] for run in runs]
