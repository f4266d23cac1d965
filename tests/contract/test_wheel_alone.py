"""A user without a checkout: the wheel, an empty directory, the shipped recipes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from dft_factory.tiny import make_tiny
from tests.contract.test_activation import build_wheel, make_wheel_environment
from tests.support.cli import clean_environment

SHORT = {
    "model_name_or_path": "model",
    "template": "qwen",
    "max_steps": "2",
    "max_samples": "16",
    "eval_strategy": "'no'",
    "eval_on_start": "false",
    "val_size": "0",
}


@pytest.mark.cli
def test_the_wheel_prepares_and_trains_the_demo_in_an_empty_directory(tmp_path: Path) -> None:
    python = make_wheel_environment(tmp_path / "venv", build_wheel(tmp_path)).python
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            list(map(str, command)),
            cwd=empty,
            env=clean_environment(PYTHONPATH=""),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    dft_factory = python.with_name("dft-factory")
    where = "import dft_factory; print(dft_factory.__file__)"
    assert run(python, "-c", where).startswith(str(tmp_path / "venv"))
    assert "demo/smollm2_dft " in run(dft_factory, "recipes", "list")
    run(dft_factory, "recipes", "copy", "demo/smollm2_dft")
    recipe = empty / "configs/demo/smollm2_dft.yaml"
    (prepare,) = [
        line.strip("# ")
        for line in recipe.read_text().splitlines()
        if line.startswith("#   dft-factory data prepare")
    ]
    run(dft_factory, *prepare.split()[1:])
    make_tiny("qwen2.5-coder", empty / "model")
    changes = [f"{key}={value}" for key, value in SHORT.items()]
    run(python, "-m", "llamafactory.cli", "train", recipe.relative_to(empty), *changes)
    log = json.loads((empty / "runs/demo/dft/model/trainer_state.json").read_text())["log_history"]
    assert [row["step"] for row in log if "loss" in row] == [1, 2]
    assert log[0]["nll"] > 10 * log[0]["loss"] > 0

    jobs = run(dft_factory, "run", "demo", "--dry-run")
    for variant in ("sft", "dft"):
        assert f"runs/demo/{variant}" in jobs, jobs
