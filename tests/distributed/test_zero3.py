"""The WeThink recipe under ZeRO-3 on two CPU processes: the gradients of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cli import Run, relative_error, train
from tests.support.drawn import tiny_wethink

pytestmark = pytest.mark.timeout(3600)  # the extension is compiled in the first one's time

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return tiny_wethink(tmp_path_factory.mktemp("tiny"))


def recipe(name: str, bench: dict[str, str]) -> dict[str, Any]:
    """A recipe as it is, but for its places and its length."""
    config = yaml.safe_load((CONFIGS / "tiny" / f"{name}.yaml").read_text())
    del config["output_dir"]
    if "deepspeed" in config:
        config["deepspeed"] = str(CONFIGS.parent / config["deepspeed"])
    # The vision tower too: more kinds of parameters. No clipping, which one process does before
    # its gradients are recorded, and DeepSpeed after.
    unclipped = {"max_steps": 1, "freeze_vision_tower": False, "max_grad_norm": 1e9}
    return {**config, **bench, **unclipped}


@pytest.fixture(scope="module")
def runs(
    bench: dict[str, str],
    deepspeed_on_cpu: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[tuple[str, str], Run]:
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for objective in ("dft", "sft"):
        found["one", objective] = train(
            recipe(f"qwen2_5_vl_{objective}", bench), folder / f"one-{objective}"
        ).ok()
        found["zero3", objective] = train(
            recipe(f"qwen2_5_vl_zero3_{objective}", bench),
            folder / f"zero3-{objective}",
            ranks=2,
            environment=deepspeed_on_cpu,
            fresh=True,
        ).ok()
    return found


@pytest.mark.parametrize("objective", ["dft", "sft"])
def test_gradients_equal_those_of_one_process(
    runs: dict[tuple[str, str], Run], objective: str, record_property: Any
) -> None:
    """Whole gradients, put together before the step; what is left is the rounding of fp32 sums."""
    one, zero3 = runs["one", objective], runs["zero3", objective]
    error = relative_error(zero3.gradients, one.gradients)
    record_property(f"{objective} zero3 against one process", error)
    assert error <= 1e-6
    for name in ("loss", "nll", "mean_token_prob", "token_weight_mean"):
        assert zero3.log[0][name] == pytest.approx(one.log[0][name], rel=1e-5)


def test_objectives_are_told_apart(runs: dict[tuple[str, str], Run]) -> None:
    gradients = [runs["zero3", objective].gradients for objective in ("dft", "sft")]
    assert relative_error(*gradients) > 0.5
