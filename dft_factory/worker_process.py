"""LLaMA-Factory in a process of its own: one JSON job in, one JSON answer out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from dft_factory import startup
from dft_factory.errors import ConfigError, UpstreamContractError

MARK = "dft-factory answer: "
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "FORCE_TORCHRUN")


def single_process() -> dict[str, str]:
    """This process's environment without what a launcher sets for ranks."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in _RANKS and not key.startswith("ACCELERATE_")
    }
    return environment | {"PYTHONIOENCODING": "utf-8"}


def first_gpu() -> str:
    """``CUDA_VISIBLE_DEVICES`` with the first visible GPU alone."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def ask(
    module: str,
    job: Any,
    environment: Mapping[str, str],
    *,
    failure: str,
    fix: str,
    timeout: float | None = None,
) -> Any:
    """The answer of ``module``, whose main function is :func:`serve`.

    Args:
        failure: what it means if there is no answer; ``fix``: what to do then.
        timeout: in seconds.

    Raises:
        ConfigError: that of ``module``.
        UpstreamContractError: there is no answer.
        subprocess.TimeoutExpired: it takes longer than ``timeout``.
    """
    process = subprocess.run(
        [sys.executable, "-P", "-m", module],
        input=json.dumps(job),
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
    )
    for line in process.stdout.splitlines():
        if line.startswith(MARK):
            answer = json.loads(line.removeprefix(MARK))
            if "refused" in answer:
                raise ConfigError(answer["refused"])
            return answer["result"]
    stderr = process.stderr.strip().splitlines()
    raise UpstreamContractError(
        f"{failure} (exit status {process.returncode}: {stderr[-1] if stderr else 'no message'}). "
        f"{fix}"
    )


def serve(compute: Callable[[Any], Any]) -> None:
    """Answer the job on stdin with what ``compute`` returns, and end the process."""
    job = json.load(sys.stdin)
    startup.install()  # whether or not activation is switched off in this shell
    # Libraries print to stdout too, so they get stderr instead.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stdout:
        os.dup2(2, 1)
        try:
            answer = {"result": compute(job)}
        except ConfigError as error:
            answer = {"refused": str(error)}
        stdout.write(f"{MARK}{json.dumps(answer)}\n")
    os._exit(0)  # skips the threads and atexit hooks of the libraries
