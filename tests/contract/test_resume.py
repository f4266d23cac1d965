"""A killed training resumes with the same command to the same weights and records.

RECORD_KILL kills a run when it opens a named file, so nothing depends on the clock. Random moments
are in ``benchmarks/kill_and_resume_training.py``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from dft_eval.sandbox.host import find_bubblewrap
from dft_factory.errors import ConfigError
from dft_factory.patch.record import FILE_NAME
from tests.conftest import Bench
from tests.support.cli import Run, run_command, train

pytestmark = pytest.mark.cli

STATE = "trainer_state.json"
TIMES = ("train_runtime", "train_samples_per_second", "train_steps_per_second")


def recipe(bench: Bench, method: str, **changes: Any) -> dict[str, Any]:
    """Eight steps over two epochs, shuffled, checkpoints every two steps, logs every three."""
    lora = {"lora_dropout": 0.1, "lora_rank": 4} if method == "lora" else {}
    steps = {"max_steps": 8, "save_strategy": "steps", "save_steps": 2, "logging_steps": 3}
    batches = {"per_device_train_batch_size": 2, "disable_shuffling": False}
    schedule = {"lr_scheduler_type": "cosine", "finetuning_type": f"dft_{method}"}
    return bench.config(**{**steps, **batches, **schedule, **lora, **changes})


def weights(run: Run) -> dict[str, torch.Tensor]:
    name = "adapter_model" if (run.folder / "adapter_model.safetensors").exists() else "model"
    return load_file(run.folder / f"{name}.safetensors")


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / FILE_NAME).read_text().splitlines()]


def assert_same_outcome(run: Run, uninterrupted: Run) -> None:
    assert lines(run) == lines(uninterrupted)
    ours, theirs = run.log, uninterrupted.log
    assert [row for row in ours if "nll" in row] == [row for row in theirs if "nll" in row]
    assert weights(run).keys() == weights(uninterrupted).keys()
    for name, tensor in weights(uninterrupted).items():
        assert torch.equal(weights(run)[name], tensor), name


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("modality", ["text", "vl"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    modality: str, method: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Killed between checkpoints, then during a save; then resumed to the end."""
    bench: Bench = request.getfixturevalue(f"{modality}_bench")
    config = recipe(bench, method)
    uninterrupted = train(config, tmp_path / "uninterrupted").ok()
    assert [row["step"] for row in lines(uninterrupted)] == [2, 3, 4, 6, 8]

    run = tmp_path / "killed"
    # The record is opened for the third time at its second line, at step 3.
    killed = train(config, run, environment={"RECORD_KILL": f"{FILE_NAME}:3"})
    assert killed.status != 0
    assert (run / "checkpoint-2" / STATE).exists()
    killed = train(config, run, environment={"RECORD_KILL": f"checkpoint-6/{STATE}:1"})
    assert killed.status != 0
    assert (run / "checkpoint-6").exists()
    assert not (run / "checkpoint-6" / STATE).exists()
    resumed = train(config, run).ok()
    assert "checkpoint-6 is incomplete" in resumed.output
    assert_same_outcome(resumed, uninterrupted)

    shutil.rmtree(run)
    shutil.copytree(uninterrupted.folder / "checkpoint-4", run / "checkpoint-4")
    shutil.copy(uninterrupted.folder / FILE_NAME, run)
    by_name = {**config, "resume_from_checkpoint": str(run / "checkpoint-4")}
    assert_same_outcome(train(by_name, run).ok(), uninterrupted)


def damage(checkpoint: Path, name: str) -> None:
    path = checkpoint / name
    path.write_bytes(path.read_bytes()[:-10])


@pytest.fixture(scope="module")
def finished(text_bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Checkpoints 2, 4, 6 and 8."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    return train(recipe(text_bench, "full"), folder).ok()


def resume_from(bench: Bench, run: Path, **changes: Any) -> Any:
    """``resume_from_checkpoint`` after parsing."""
    from llamafactory.hparams import get_train_args

    config = recipe(bench, "full", output_dir=str(run), **changes)
    return get_train_args(config)[2].resume_from_checkpoint


def test_checkpoint_files_are_checked(text_bench: Bench, finished: Run, tmp_path: Path) -> None:
    """Each file is truncated in turn: the run resumes from the earlier checkpoint."""
    index = "model.safetensors.index.json"
    names = (index, "trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt")
    for name in (*names, "rng_state.pth"):
        run = tmp_path / name
        shutil.copytree(finished.folder / "checkpoint-4", run / "checkpoint-4")
        shutil.copytree(finished.folder / "checkpoint-6", run / "checkpoint-6")
        shards = {"weight_map": {"model.norm.weight": "model.safetensors"}}
        (run / "checkpoint-6" / index).write_text(json.dumps(shards))
        assert resume_from(text_bench, run) == str(run / "checkpoint-6")
        damage(run / "checkpoint-6", name)
        assert resume_from(text_bench, run) == str(run / "checkpoint-4")
        assert resume_from(text_bench, run, resume_from_checkpoint=True) == str(
            run / "checkpoint-4"
        )
        with pytest.raises(ConfigError, match=rf"its {name} .* whole one is .*checkpoint-4"):
            resume_from(text_bench, run, resume_from_checkpoint=str(run / "checkpoint-6"))


def test_no_checkpoint_means_a_new_start(text_bench: Bench, finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.folder / "checkpoint-4", tmp_path / "run" / "checkpoint-4")
    damage(tmp_path / "run" / "checkpoint-4", STATE)
    assert resume_from(text_bench, tmp_path / "run") is None
    with pytest.raises(ConfigError, match="holds no checkpoint to resume from"):
        resume_from(text_bench, tmp_path / "run", resume_from_checkpoint=True)


def test_no_optimizer_state_is_refused(text_bench: Bench, finished: Run, tmp_path: Path) -> None:
    """Adam and the schedule would silently start over; a finished run needs neither."""
    for step in (4, 8):
        shutil.copytree(finished.folder / f"checkpoint-{step}", tmp_path / f"{step}/checkpoint-1")
        (tmp_path / f"{step}/checkpoint-1/optimizer.pt").unlink()
    with pytest.raises(ConfigError, match="save_only_model: true"):
        resume_from(text_bench, tmp_path / "4")
    assert resume_from(text_bench, tmp_path / "8") is not None


def test_an_output_dir_that_is_not_writable_is_refused(text_bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"output_dir: .*file is a file"):
        resume_from(text_bench, tmp_path / "file" / "run")


def test_missing_weights_are_not_taken_from_the_base_model(
    text_bench: Bench, finished: Run, tmp_path: Path
) -> None:
    shutil.copytree(finished.folder / "checkpoint-4", tmp_path / "run" / "checkpoint-4")
    path = tmp_path / "run" / "checkpoint-4" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    run = train(recipe(text_bench, "full"), tmp_path / "run")
    assert run.status != 0
    assert "1 weights of Qwen2ForCausalLM are missing, such as model.norm.weight" in run.output


def test_a_full_disk_loses_no_checkpoint(text_bench: Bench, finished: Run, tmp_path: Path) -> None:
    """On a file system with room for one checkpoint, and then on one with more."""
    run, disk = tmp_path / "run", tmp_path / "disk"
    disk.mkdir()
    config = recipe(text_bench, "full", output_dir=str(disk / "run"), save_total_limit=1)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(config))
    size = sum(path.stat().st_size for path in (finished.folder / "checkpoint-4").iterdir())
    words = f"llamafactory-cli train {tmp_path}/recipe.yaml; cp -r {disk}/run {run}"
    sandbox = [find_bubblewrap().path, "--dev-bind", "/", "/"]
    small = [*sandbox, "--size", str(size * 3 // 2), "--tmpfs", str(disk), "bash", "-c", words]
    stderr = run_command(small, status=None).stderr
    assert "Traceback" not in stderr, stderr[-3000:]
    assert "cannot be written to (0.0 MB free)" in stderr
    assert "checkpoint-2 is whole. Free some space, then run the same command" in stderr
    assert_same_outcome(train(recipe(text_bench, "full"), run).ok(), finished)


def test_a_bad_record_is_one_message(text_bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"instruction": "a", "output": "b"}\n{"instruction": "c')
    (tmp_path / "dataset_info.json").write_text(json.dumps({"bad": {"file_name": "bad.jsonl"}}))
    config = text_bench.config(dataset="bad", dataset_dir=str(tmp_path))
    run = train(config, tmp_path / "run")
    assert run.status != 0
    assert "Traceback" not in run.output
    assert "dataset: bad: a record cannot be read: JSON parse error" in run.output
    assert "bad.jsonl" in run.output
