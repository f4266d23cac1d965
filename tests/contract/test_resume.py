"""Training that is killed goes on, by the same command, to the same weights and the same records.

Nothing here depends on the clock: RECORD_KILL kills a run when it opens a named file. Random
moments are in ``benchmarks/kill_and_resume_training.py``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dft_factory.patch.record import FILE_NAME
from tests.conftest import Bench
from tests.support.cli import Run, train

pytestmark = pytest.mark.cli

STATE = "trainer_state.json"
TIMES = ("train_runtime", "train_samples_per_second", "train_steps_per_second")


def recipe(bench: Bench, method: str, **changes: Any) -> dict[str, Any]:
    """Eight steps over two epochs, shuffled, checkpoints every two steps, logs every three."""
    lora = {"lora_dropout": 0.1, "lora_rank": 4} if method == "lora" else {}
    return bench.config(
        finetuning_type=f"dft_{method}",
        max_steps=8,
        per_device_train_batch_size=2,
        disable_shuffling=False,
        lr_scheduler_type="cosine",
        save_strategy="steps",
        save_steps=2,
        logging_steps=3,
        **lora,
        **changes,
    )


def weights(run: Run) -> dict[str, torch.Tensor]:
    name = "adapter_model" if (run.folder / "adapter_model.safetensors").exists() else "model"
    return load_file(run.folder / f"{name}.safetensors")


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / FILE_NAME).read_text().splitlines()]


def assert_same_outcome(run: Run, undisturbed: Run) -> None:
    assert lines(run) == lines(undisturbed)
    ours, theirs = run.log, undisturbed.log
    assert [row for row in ours if "nll" in row] == [row for row in theirs if "nll" in row]
    assert weights(run).keys() == weights(undisturbed).keys()
    for name, tensor in weights(undisturbed).items():
        assert torch.equal(weights(run)[name], tensor), name


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("modality", ["text", "vl"])
def test_a_killed_run_ends_as_an_undisturbed_one(
    modality: str, method: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Killed between checkpoints, then within a save; then resumed to the end."""
    bench: Bench = request.getfixturevalue(f"{modality}_bench")
    config = recipe(bench, method)
    undisturbed = train(config, tmp_path / "undisturbed").ok()
    assert [row["step"] for row in lines(undisturbed)] == [2, 3, 4, 6, 8]

    run = tmp_path / "killed"
    # The third open of the record is that of its second line, at step 3.
    killed = train(config, run, environment={"RECORD_KILL": f"{FILE_NAME}:3"})
    assert killed.status != 0
    assert (run / "checkpoint-2" / STATE).exists()
    killed = train(config, run, environment={"RECORD_KILL": f"checkpoint-6/{STATE}:1"})
    assert killed.status != 0
    assert (run / "checkpoint-6").exists()
    assert not (run / "checkpoint-6" / STATE).exists()
    resumed = train(config, run).ok()
    assert "checkpoint-6 is incomplete" in resumed.output
    assert_same_outcome(resumed, undisturbed)

    shutil.rmtree(run)
    shutil.copytree(undisturbed.folder / "checkpoint-4", run / "checkpoint-4")
    shutil.copy(undisturbed.folder / FILE_NAME, run)
    named = {**config, "resume_from_checkpoint": str(run / "checkpoint-4")}
    assert_same_outcome(train(named, run).ok(), undisturbed)
