"""Training reports our metrics to a tracker, and scores follow to the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dft_eval.errors import UsageError
from dft_eval.results import BenchmarkResult, ResultFile
from dft_eval.tracking import metrics, track, tracking_runs
from dft_eval.training_file import TRAINING_FILE
from tests.conftest import Bench
from tests.support.cli import train

METRICS = {"train/loss", "train/nll", "train/mean_token_prob", "train/token_weight_mean"}
EVALUATION = {"eval/loss", "eval/nll", "eval/mean_token_prob"}


def results(model: str, score: float | None = 0.25) -> ResultFile:
    row: dict[str, Any] = {"n_total": 4, "n_scored": 4, "items": "x", "harness": "h"}
    return ResultFile(
        model=model,
        model_sha256=None,
        label="dft",
        results=[
            BenchmarkResult(
                benchmark="humaneval+",
                metric="pass@1",
                score=score,
                stderr=None if score is None else 0.05,
                prompt_style="chat",
                **row,
            )
        ],
    )


def tracked(bench: Bench, folder: Path, tracker: str, **environment: str) -> Path:
    """The folder of a training of three steps that reports to ``tracker``."""
    config = bench.config(
        max_steps=3,
        report_to=tracker,
        eval_dataset="tiny_text",
        eval_strategy="steps",
        eval_steps=3,
        per_device_eval_batch_size=4,
    )
    return train(config, folder / "run", environment=environment).ok().folder


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


@pytest.mark.cli
def test_tensorboard_has_our_metrics_and_then_the_scores(text_bench: Bench, tmp_path: Path) -> None:
    folder = tracked(text_bench, tmp_path, "tensorboard")
    (run,) = tracking_runs(str(folder))
    logged = events(folder / run["logging_dir"])
    assert logged.keys() >= METRICS | EVALUATION
    rows = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    expected = [(row["step"], row["nll"]) for row in rows if "nll" in row]
    assert logged["train/nll"] == [(step, pytest.approx(value)) for step, value in expected]
    moved = folder.rename(tmp_path / "moved")
    assert track(str(moved), results(str(moved))) == ["tensorboard"]
    scores = events(moved / run["logging_dir"])
    assert scores["humaneval+/pass@1"] == [(3, 0.25)]
    assert scores["humaneval+/pass@1_stderr"] == [(3, pytest.approx(0.05))]


def test_a_model_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--track: .*\(recorded: none\).*tensorboard"):
        tracking_runs(str(tmp_path))
    record = {"system_prompt": None, "tracking": [{"tracker": "swanlab", "run_id": "x"}]}
    (tmp_path / TRAINING_FILE).write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"recorded: swanlab"):
        tracking_runs(str(tmp_path))


def test_an_unscored_benchmark_is_no_metric() -> None:
    assert metrics(results("m", None)) == {}
    twice = results("m")
    other = twice.results[0].model_copy(update={"prompt_style": "completion", "score": 0.5})
    twice.results.append(other)
    named = metrics(twice)
    assert named["humaneval+/pass@1"] == 0.25
    assert named["humaneval+/pass@1 (completion)"] == 0.5
    sampled = {"strategy": "sampling", "temperature": 1.0}
    twice.results[0] = twice.results[0].model_copy(update={"decoding": sampled})
    assert metrics(twice)["humaneval+/pass@1 (temperature 1)"] == 0.25
