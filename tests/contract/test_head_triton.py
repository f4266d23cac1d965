"""The loss head where Triton cannot launch its kernels: plain torch, the same loss, one warning.

Everything from the kernel's launch to the missing compiler is real; only
``tests.support.triton_on_cpu`` pretends that there is a GPU.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dft_factory.doctor.probe import MARK
from tests.conftest import Bench
from tests.support import triton_on_cpu
from tests.support.cli import clean_environment, run_command, train

ROOT = Path(__file__).parents[2]
WARNING = "Triton cannot run here"


@pytest.fixture
def no_compiler(tmp_path: Path) -> dict[str, str]:
    """An environment without a compiler on PATH and without a cached build of Triton's driver."""
    libcuda = tmp_path / "libcuda"  # Triton looks for it first; the compiler gets it as -L
    libcuda.mkdir()
    return {
        "PATH": str(Path(sys.executable).parent),
        "TRITON_CACHE_DIR": str(tmp_path / "cache"),
        "TRITON_LIBCUDA_PATH": str(libcuda),
    }


def launch(environment: dict[str, str]) -> tuple[str, str]:
    """Reason and log of the first use of the kernels in a process of its own."""
    code = (
        "import logging, torch; logging.basicConfig()\n"
        "from tests.support import triton_on_cpu\n"
        "from dft_factory.losses.softmax import plain_torch_reason\n"
        "for _ in range(2): reason = plain_torch_reason(torch.device('cpu'), torch.bfloat16)\n"
        "print(reason)"
    )
    process = run_command(
        [sys.executable, "-c", code], cwd=ROOT, env=clean_environment(**environment)
    )
    return process.stdout.strip(), process.stderr


def test_no_compiler_warns_once_per_machine(no_compiler: dict[str, str]) -> None:
    reason, log = launch(no_compiler)
    assert reason.startswith("RuntimeError: Failed to find C compiler.")
    assert log.count(WARNING) == 1
    assert reason in log
    reason, log = launch({**no_compiler, "LOCAL_RANK": "1"})
    assert "C compiler" in reason
    assert WARNING not in log


def test_a_compiler_that_fails(no_compiler: dict[str, str], tmp_path: Path) -> None:
    """As where Python's headers are missing: the compiler runs and exits with 1."""
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    reason, log = launch({**no_compiler, "CC": str(compiler)})
    assert reason.startswith("CalledProcessError: ")
    assert log.count(WARNING) == 1


def test_switched_off(no_compiler: dict[str, str]) -> None:
    assert launch({**no_compiler, "DFT_FACTORY_TRITON": "0"}) == ("DFT_FACTORY_TRITON=0", "")


@pytest.mark.parametrize(
    ("environment", "loss_head"),
    [
        ({}, "plain torch (the device is cpu)"),
        ({"DFT_FACTORY_TRITON": "0"}, "plain torch (DFT_FACTORY_TRITON=0)"),
        ({"TRITON_INTERPRET": "1"}, "Triton kernels (a trial launch succeeded)"),
        ({"DFT_FACTORY_TRITON": "no"}, "DFT_FACTORY_TRITON: 'no' is unknown. Choose from: 0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_doctor_names_the_path(environment: dict[str, str], loss_head: str) -> None:
    variables = clean_environment(**environment, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    process = run_command([sys.executable, "-P", "-m", "dft_factory.doctor.probe"], env=variables)
    report = json.loads(process.stdout.rpartition(MARK)[2])
    assert report["loss_head"].startswith(loss_head)
    assert report["gpus"] == []


@pytest.mark.cli
def test_without_a_compiler(text_bench: Bench, tmp_path: Path, no_compiler: dict[str, str]) -> None:
    """``llamafactory-cli train`` crashed at step 1 with "Failed to find C compiler"."""
    config = text_bench.config(max_steps=2)
    usual = train(config, tmp_path / "usual").ok()
    run = train(
        config,
        tmp_path / "run",
        command=("python", "-P", triton_on_cpu.__file__, "train"),
        environment=no_compiler,
        fresh=True,
    ).ok()
    assert run.output.count(WARNING) == 1
    assert "Failed to find C compiler" in run.output
    assert run.output.index(WARNING) < run.output.index("Running training")
    losses = [[row["loss"] for row in r.log if "grad_norm" in row] for r in (run, usual)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2
