"""Run the stock ``llamafactory-cli`` and other commands in a subprocess, the way a user does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support import warm

TIMEOUT_SECONDS = 600


def executable(name: str) -> str:
    """A command of the environment that runs the tests."""
    path = Path(sys.executable).parent / name
    assert path.exists(), f"{path} is missing: run bash scripts/setup.sh"
    return str(path)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def clean_environment(**extra: str) -> dict[str, str]:
    """This process' environment, one thread a process, nothing that would change a run."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("USE_", "FORCE_TORCHRUN", "NPROC", "RECORD_"))
    }
    environment.update(
        OMP_NUM_THREADS="1",
        TOKENIZERS_PARALLELISM="false",
        HF_HUB_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )
    environment.update(extra)
    return environment


def run_command(
    command: Sequence[object], *, status: int | None = 0, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command without stdin; fails on another exit status than ``status`` (None: any).

    Args:
        options: for :func:`subprocess.run`; ``env`` is :func:`clean_environment` by default.
    """
    defaults = {"env": clean_environment(), "timeout": TIMEOUT_SECONDS}
    result = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        **{**defaults, **options},
    )
    assert status in (None, result.returncode), (
        f"{command}: exit status {result.returncode}\n"
        f"{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    )
    return result


def printed_json(output: str) -> Any:
    """What a process printed as JSON after ``RESULT``."""
    return json.loads(output.rpartition("RESULT ")[2].splitlines()[0])


def run_python(code: str, *args: str, **environment: str) -> Any:
    """What a fresh interpreter of this environment prints as JSON after ``RESULT``."""
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    return printed_json(run_command(command, env=clean_environment(**environment)).stdout)


Futures = dict[str, "Future[Any]"]
"""The processes of a test module by name."""


@contextmanager
def two_at_a_time() -> Iterator[ThreadPoolExecutor]:
    """A pool for the processes of a module; what has not begun at the end is cancelled."""
    with ThreadPoolExecutor(2) as pool:
        yield pool
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Run:
    """One finished run of the command line."""

    status: int
    output: str
    folder: Path

    @property
    def log(self) -> list[dict[str, Any]]:
        state = json.loads((self.folder / "trainer_state.json").read_text())
        return list(state["log_history"])

    @property
    def gradients(self) -> dict[str, Any]:
        import torch

        return dict(torch.load(self.folder.with_suffix(".gradients.pt"), weights_only=True))

    def ok(self) -> Run:
        assert self.status == 0, self.output[-6000:]
        return self


def obey_ctrl_c() -> None:
    """As ``preexec_fn``: SIGINT ends the command, also where the tests run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_until(text: str, command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """Start a command; returns when it has written a line with ``text`` to stderr."""
    process = subprocess.Popen(
        command,
        env=clean_environment(**environment),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=obey_ctrl_c,
    )
    assert process.stderr is not None
    assert any(text in line for line in process.stderr)
    return process


def parseable(**changes: Any) -> dict[str, Any]:
    """A recipe that parses without a model or a data set at hand."""
    return {
        "model_name_or_path": "some/model",
        "stage": "sft",
        "do_train": True,
        "dataset": "some_set",
        "template": "qwen",
        "output_dir": "some_folder",
        "use_cpu": True,
        "report_to": "none",
        **changes,
    }


def base_config(model: Path, data: Path, dataset: str, template: str) -> dict[str, Any]:
    """A recipe of one step on four examples in fp32 on CPU."""
    return {
        "model_name_or_path": str(model),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "dft",
        "dataset": dataset,
        "dataset_dir": str(data),
        "template": template,
        "cutoff_len": 512,
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "max_grad_norm": 0.0,
        "disable_shuffling": True,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "preprocessing_num_workers": 1,
        "overwrite_cache": True,
        "seed": 0,
    }


def train(
    config: dict[str, Any],
    folder: Path,
    *,
    ranks: int = 1,
    command: tuple[str, ...] = ("llamafactory-cli", "train"),
    environment: dict[str, str] | None = None,
    fresh: bool = False,
) -> Run:
    """``llamafactory-cli train config.yaml`` with ``output_dir: folder``; records gradients.

    Args:
        fresh: in a new process instead of a fork of the warm server. Needed where a module reads
            ``environment`` at import.
    """
    recipe = folder.with_suffix(".yaml")
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(yaml.safe_dump({"output_dir": str(folder), **config}))
    extra = {
        "RECORD_GRADIENTS": str(folder.with_suffix(".gradients.pt")),
        "PYTHONPATH": warm.python_path(),
    }
    if ranks > 1:
        extra.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    if not fresh:
        assert command[0] == "llamafactory-cli", command
        everything = clean_environment(**{**extra, **(environment or {})})
        words = [*command[1:], str(recipe)]
        return Run(*warm.run(words, everything, ranks=ranks, timeout=TIMEOUT_SECONDS), folder)
    if ranks > 1:
        extra.update(FORCE_TORCHRUN="1", NPROC_PER_NODE=str(ranks))
    result = subprocess.run(
        [executable(command[0]), *command[1:], str(recipe)],
        env=clean_environment(**{**extra, **(environment or {})}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    return Run(result.returncode, result.stdout, folder)


def relative_error(actual: dict[str, Any], expected: dict[str, Any]) -> float:
    """Norm of the difference over the norm of ``expected``, over all parameters at once."""
    assert actual.keys() == expected.keys(), sorted(actual.keys() ^ expected.keys())
    difference = sum(
        float((actual[name].double() - expected[name].double()).pow(2).sum()) for name in expected
    )
    size = sum(float(expected[name].double().pow(2).sum()) for name in expected)
    assert size > 0
    return float((difference / size) ** 0.5)
