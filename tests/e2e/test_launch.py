"""A training on two "nodes" of this machine, each started as a scheduler would start it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import Bench
from tests.support.cli import TIMEOUT_SECONDS, Run, clean_environment, free_port, train


@pytest.mark.cli
def test_two_nodes_train_as_one_process(text_bench: Bench, tmp_path: Path) -> None:
    """Losses of steps 2 and 3 show the gradients of the steps before, over both nodes."""
    steps = {"max_steps": 3, "learning_rate": 1e-2, "optim": "sgd"}
    one = train(text_bench.config(**steps), tmp_path / "one").ok()

    recipe = tmp_path / "two.yaml"
    config = text_bench.config(**steps, per_device_train_batch_size=2)
    recipe.write_text(yaml.safe_dump({**config, "output_dir": str(tmp_path / "two")}))
    words = ["-m", "dft_factory.experiments.launch", "2", "llamafactory-cli", "train", str(recipe)]
    port = free_port()
    logs = [tmp_path / f"node{rank}.log" for rank in range(2)]
    nodes = []
    for rank, log in enumerate(logs):
        variables = clean_environment(
            PET_NNODES="2",
            PET_NODE_RANK=str(rank),
            PET_MASTER_ADDR="127.0.0.1",
            PET_MASTER_PORT=str(port),
            PET_NPROC_PER_NODE="1",
        )
        with log.open("w") as stream:
            nodes.append(
                subprocess.Popen(
                    [sys.executable, *words],
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        statuses = [node.wait(TIMEOUT_SECONDS) for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    output = "".join(log.read_text() for log in logs)
    assert statuses == [0, 0], output[-6000:]
    two = Run(0, output, tmp_path / "two")
    assert "num nodes: 2, node rank: 1" in logs[1].read_text()

    def losses(run: Run) -> list[tuple[float, float]]:
        return [(row["loss"], row["nll"]) for row in run.log if "grad_norm" in row]

    assert len(losses(one)) == 3
    for actual, expected in zip(losses(two), losses(one), strict=True):
        assert actual == pytest.approx(expected, rel=1e-5)
    assert losses(one)[0] != losses(one)[-1]
