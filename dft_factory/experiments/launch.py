"""``python -m dft_factory.experiments.launch NODES COMMAND...``: a training on one or more nodes.

LLaMA-Factory starts torchrun itself, from NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT. Here they
come from the scheduler: SLURM, where srun starts one task a node, or one that starts the command on
each node itself, such as Kubeflow's operators.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dft_factory.errors import ConfigError, DftFactoryError

MODULE = "dft_factory.experiments.launch"

SCHEDULER_VARIABLES = (
    ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"),
    ("PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"),
    ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"),
)
"""Nodes, rank of this node, address and port of the first. LLaMA-Factory's own names, then
torchrun's (Kubeflow sets them), then those of older PyTorchJob operators, which count pods."""

DEFAULT_PORT = 29500
_FIRST_PORT, _PORTS = 15_000, 15_000  # below the ports that Linux gives to outgoing connections


@dataclass(frozen=True)
class Launch:
    """A command and the variables that it needs beside those of this process."""

    words: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def plan_launch(
    words: Sequence[str], nodes: int, environment: Mapping[str, str], python: str = sys.executable
) -> Launch:
    """What starts ``words``, a ``llamafactory-cli train`` command, on ``nodes`` nodes.

    Raises:
        ConfigError: no scheduler says which nodes, or it says another number of them.
    """
    if nodes == 1:
        return Launch(tuple(words))
    broken = [word for word in words if len(word.split()) != 1]
    if broken:
        raise ConfigError(
            f"{broken[0]!r} cannot be passed to several nodes: LLaMA-Factory splits torchrun's "
            "arguments at spaces. Use a path without spaces."
        )
    if "SLURM_JOB_ID" in environment:
        return Launch((*_srun(nodes), python, "-m", MODULE, "--task", str(nodes), *words))
    return Launch(tuple(words), _scheduler_environment(nodes, environment))


def task_environment(
    nodes: int, environment: Mapping[str, str], master_addr: str
) -> dict[str, str]:
    """LLaMA-Factory's variables for this task of srun.

    Raises:
        ConfigError: srun started another number of tasks.
    """
    if environment.get("SLURM_NTASKS") != str(nodes):
        raise ConfigError(
            f"--task is for srun with {nodes} tasks, one a node; SLURM_NTASKS is "
            f"{environment.get('SLURM_NTASKS', 'not set')}."
        )
    port = _FIRST_PORT + int(environment["SLURM_JOB_ID"]) % _PORTS
    return _variables(nodes, environment["SLURM_PROCID"], master_addr, str(port))


def _srun(nodes: int) -> tuple[str, ...]:
    """One task a node with everything that the job has there; one that fails ends all."""
    return (
        "srun",
        f"--nodes={nodes}",
        f"--ntasks={nodes}",
        "--ntasks-per-node=1",
        "--kill-on-bad-exit=1",
        "--overlap",  # the step that runs this command holds the job's processors
        "--cpu-bind=none",  # a task may use all processors of its step
    )


def _variables(nodes: int, rank: str, address: str, port: str) -> dict[str, str]:
    return {
        "FORCE_TORCHRUN": "1",
        "NNODES": str(nodes),
        "NODE_RANK": rank,
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
    }


def _scheduler_environment(nodes: int, environment: Mapping[str, str]) -> dict[str, str]:
    for count, rank, address, port in SCHEDULER_VARIABLES:
        if rank not in environment or address not in environment:
            continue
        if environment.get(count) != str(nodes):
            raise ConfigError(
                f"{count} is {environment.get(count, 'not set')}, and the training is for {nodes} "
                f"nodes. Start it on {nodes} nodes, or set resources.train.nodes."
            )
        if not environment[rank].isdigit() or int(environment[rank]) >= nodes:
            raise ConfigError(f"{rank} is {environment[rank]!r}; it counts from 0 to {nodes - 1}.")
        variables = _variables(
            nodes, environment[rank], environment[address], environment.get(port, str(DEFAULT_PORT))
        )
        processes = environment.get("PET_NPROC_PER_NODE", "")  # also: auto, gpu
        return {**variables, "NPROC_PER_NODE": processes} if processes.isdigit() else variables
    raise ConfigError(
        f"A training on {nodes} nodes needs a scheduler: a SLURM job (`dft-factory run EXPERIMENT "
        "--executor slurm`), or NNODES, NODE_RANK and MASTER_ADDR on each node. For one node: "
        "`--set resources.train.nodes=1`."
    )


def _master_address(nodelist: str) -> str:
    """Address of the first node of a SLURM node list, as this node reaches it."""
    first = _scontrol("show", "hostnames", nodelist).split()[0]
    try:
        socket.getaddrinfo(first, None)
    except socket.gaierror:
        # The name is SLURM's alone.
        fields = dict(
            word.split("=", 1) for word in _scontrol("show", "node", first).split() if "=" in word
        )
        return fields["NodeAddr"]
    return first


def _scontrol(*words: str) -> str:
    return subprocess.run(
        ["scontrol", *words], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    ).stdout


def _processes_per_node() -> str:
    """As LLaMA-Factory counts them; it counts none on a node without an accelerator."""
    from llamafactory.extras.misc import get_device_count

    return str(get_device_count() or 1)


def main() -> None:
    """Replace this process by the command."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description="Start a training.")
    parser.add_argument("--task", action="store_true", help="this is a task of srun, one a node")
    parser.add_argument("nodes", type=int)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if args.nodes < 1 or not args.command:
        parser.error("give the number of nodes, 1 or more, and a command")
    try:
        if args.task:
            address = _master_address(os.environ["SLURM_STEP_NODELIST"])
            launch = Launch(tuple(args.command), task_environment(args.nodes, os.environ, address))
        else:
            launch = plan_launch(args.command, args.nodes, os.environ)
    except DftFactoryError as error:
        sys.stderr.write(f"dft-factory: {error}\n")
        sys.exit(2)
    environment = {**os.environ, **launch.environment}
    # torchrun is called by its bare name: it must be that of this environment.
    path = environment.get("PATH", os.defpath)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"
    if "NNODES" in launch.environment and "NPROC_PER_NODE" not in environment:
        environment["NPROC_PER_NODE"] = _processes_per_node()
    sys.stdout.flush()
    os.execvpe(launch.words[0], launch.words, environment)


if __name__ == "__main__":
    main()
