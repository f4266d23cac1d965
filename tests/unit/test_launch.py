"""The launcher of trainings on several nodes, for each scheduler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from dft_factory.errors import ConfigError
from dft_factory.experiments.launch import plan_launch, task_environment
from tests.support.cli import run_command

TRAIN = ("llamafactory-cli", "train", "runs/a/train.yaml")
FIRST = {"MASTER_ADDR": "first", "MASTER_PORT": "23456"}
NODES = {"NNODES": "2", "NODE_RANK": "1", **FIRST}
SECOND_OF_TWO = {"FORCE_TORCHRUN": "1", **NODES}


def test_one_node_changes_nothing() -> None:
    """Not inside a SLURM job or a pod either, and not for a path with a space."""
    command = ("llamafactory-cli", "train", "my runs/train.yaml")
    launch = plan_launch(command, 1, {"SLURM_JOB_ID": "7", "RANK": "0", "MASTER_ADDR": "x"})
    assert (launch.words, launch.environment) == (command, {})


def test_slurm_starts_one_task_per_node() -> None:
    launch = plan_launch(TRAIN, 3, {"SLURM_JOB_ID": "7"}, python="/env/bin/python")
    assert launch.words[0] == "srun"
    split = launch.words.index("/env/bin/python")
    options = {"--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--kill-on-bad-exit=1"}
    assert set(launch.words[1:split]) == {*options, "--overlap", "--cpu-bind=none"}
    module = ("-m", "dft_factory.experiments.launch")
    assert launch.words[split + 1 :] == (*module, "--task", "3", *TRAIN)
    assert launch.environment == {}
    # A MASTER_ADDR that somebody exported would be the same on every node.
    leftover = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    assert plan_launch(TRAIN, 2, {**leftover, "SLURM_JOB_ID": "7"}).words[0] == "srun"


def test_ports_of_slurm_jobs() -> None:
    """Consecutive jobs get different ports, below the ephemeral ones."""
    slurm = {"SLURM_JOB_ID": "40001", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}
    # 15000 + 40001 % 15000
    expected = {**SECOND_OF_TWO, "MASTER_PORT": "25001"}
    assert task_environment(2, slurm, "first") == expected
    ports = {0: 15_000, 1: 15_001, 14_999: 29_999, 15_000: 15_000, 4_000_000_000: 25_000}
    for job, port in ports.items():
        slurm = {"SLURM_JOB_ID": str(job), "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
        assert task_environment(2, slurm, "a")["MASTER_PORT"] == str(port)


@pytest.mark.parametrize("tasks", [{}, {"SLURM_NTASKS": "1"}])
def test_a_task_without_its_peers_is_refused(tasks: Mapping[str, str]) -> None:
    """It would wait for them until the job's time limit."""
    with pytest.raises(ConfigError, match="SLURM_NTASKS"):
        task_environment(2, {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", **tasks}, "first")


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param(NODES, id="LLaMA-Factory"),
        # Newer PyTorchJob operators count processes in WORLD_SIZE, not pods.
        pytest.param(
            {f"PET_{key}": value for key, value in NODES.items()}
            | {"WORLD_SIZE": "16", "RANK": "1", "MASTER_ADDR": "first"},
            id="Kubeflow",
        ),
        pytest.param({"WORLD_SIZE": "2", "RANK": "1", **FIRST}, id="older PyTorchJob"),
    ],
)
def test_variables_of_other_schedulers(variables: dict[str, str]) -> None:
    launch = plan_launch(TRAIN, 2, variables)
    assert (launch.words, launch.environment) == (TRAIN, SECOND_OF_TWO)


@pytest.mark.parametrize(("stated", "expected"), [("4", "4"), ("auto", None)])
def test_processes_of_a_pod(stated: str, expected: str | None) -> None:
    variables = {"PET_NNODES": "2", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "first"}
    launch = plan_launch(TRAIN, 2, {**variables, "PET_NPROC_PER_NODE": stated})
    assert launch.environment.get("NPROC_PER_NODE") == expected


def test_the_port_has_a_default() -> None:
    launch = plan_launch(TRAIN, 2, {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "first"})
    assert launch.environment["MASTER_PORT"] == "29500"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "needs a scheduler.*--executor slurm.*resources.train.nodes=1"),
        ({"MASTER_ADDR": "first"}, "needs a scheduler"),
        ({"NODE_RANK": "0", "MASTER_ADDR": "first"}, "NNODES is not set.*2 nodes"),
        ({"NNODES": "4", "NODE_RANK": "0", "MASTER_ADDR": "first"}, "NNODES is 4.*2 nodes"),
        ({"PET_NNODES": "1:2", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "first"}, "is 1:2"),
        ({"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "first"}, "NODE_RANK is '2'.*0 to 1"),
        ({"NNODES": "2", "NODE_RANK": "", "MASTER_ADDR": "first"}, "NODE_RANK is ''"),
    ],
)
def test_what_cannot_start_is_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_launch(TRAIN, 2, variables)


def test_a_path_with_a_space_is_refused() -> None:
    """LLaMA-Factory 0.9.5 joins torchrun's words by spaces and splits them again."""
    with pytest.raises(ConfigError, match=r"'my runs/train\.yaml'"):
        plan_launch(("llamafactory-cli", "train", "my runs/train.yaml"), 2, {"SLURM_JOB_ID": "7"})


def run_module(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    module = [sys.executable, "-m", "dft_factory.experiments.launch"]
    return run_command([*module, *command], status=None, **options)


def test_the_module_runs_the_command_or_prints_one_line() -> None:
    """Same exit status, and the commands of this environment first, whatever PATH says."""
    program = "import os, sys; print(os.environ['PATH'].split(os.pathsep)[0]); sys.exit(7)"
    result = run_module("1", sys.executable, "-c", program, env={"PATH": "/bin"})
    assert result.returncode == 7, result.stderr
    assert result.stdout.strip() == sys.executable.rpartition("/")[0]
    result = run_module("2", "llamafactory-cli", "train", "a.yaml", env={"PATH": "/bin"})
    assert result.returncode == 2
    assert result.stderr.startswith("dft-factory: A training on 2 nodes needs a scheduler")
    assert result.stderr.count("\n") == 1
