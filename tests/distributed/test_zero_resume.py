"""Resuming under ZeRO-2 and ZeRO-3 on two CPU processes: as if undisturbed, bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Bench
from tests.support.cli import Run, train

# The extension is compiled in the first one's time.
pytestmark = [pytest.mark.cli, pytest.mark.timeout(3600)]

ZERO3 = Path(__file__).parents[2] / "configs" / "deepspeed" / "zero3.json"


def recipe(bench: Bench, method: str, stage: int, folder: Path) -> dict[str, Any]:
    """Four steps at a rate that moves every weight, a checkpoint every two."""
    settings = json.loads(ZERO3.read_text())
    zero = settings["zero_optimization"]
    settings["zero_optimization"] = {
        **{key: value for key, value in zero.items() if stage == 3 or "stage3" not in key},
        "stage": stage,
    }
    deepspeed = folder / "deepspeed.json"
    deepspeed.write_text(json.dumps(settings))
    return bench.config(
        finetuning_type=f"dft_{method}",
        max_steps=4,
        learning_rate=1e-2,
        per_device_train_batch_size=2,
        save_strategy="steps",
        save_steps=2,
        deepspeed=str(deepspeed),
        use_cpu=None,  # with it accelerate starts no DeepSpeed
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = folder.glob("*model*.safetensors")
    return load_file(path)


def assert_equal(ours: Path, theirs: Path) -> None:
    found, expected = weights(ours), weights(theirs)
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def metrics(run: Run) -> list[tuple[float, float]]:
    return [(row["loss"], row["nll"]) for row in run.log if "grad_norm" in row]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("modality", ["text", "vl"])
@pytest.mark.parametrize("stage", [2, 3])
def test_a_resumed_run_goes_on_as_if_undisturbed(
    stage: int,
    modality: str,
    method: str,
    deepspeed_on_cpu: dict[str, str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    bench: Bench = request.getfixturevalue(f"{modality}_bench")
    config = recipe(bench, method, stage, tmp_path)

    def run(folder: Path, **changes: Any) -> Run:
        changed = {**config, **changes}
        return train(changed, folder, ranks=2, environment=deepspeed_on_cpu).ok()

    undisturbed = run(tmp_path / "undisturbed")
    assert len(metrics(undisturbed)) == 4
    for name in ("auto", "named", "loaded"):
        half = tmp_path / name / "checkpoint-2"
        shutil.copytree(undisturbed.folder / "checkpoint-2", half)
        if name == "loaded":  # no step: what is saved at the end is what was loaded
            assert "checkpoint-2" in run(tmp_path / name, max_steps=2).output
            assert_equal(tmp_path / name, half)
            continue
        changes = {"resume_from_checkpoint": str(half)} if name == "named" else {}
        resumed = run(tmp_path / name, **changes)
        assert metrics(resumed) == metrics(undisturbed)
        assert_equal(resumed.folder, undisturbed.folder)

    # Loading nothing would be seen: training has moved each of the weights that it trains.
    if method == "full":
        base, half_way = weights(bench.model), weights(tmp_path / "loaded" / "checkpoint-2")
        assert base.keys() == half_way.keys()
        assert [name for name in base if torch.equal(base[name], half_way[name])] == []
