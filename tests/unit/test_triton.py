"""The GPU kernels on this machine, whatever it is: Triton's interpreter in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.cli import clean_environment, run_command

ROOT = Path(__file__).parents[2]


def test_the_kernels_under_the_interpreter() -> None:
    """The kernels against torch, and the loss head's own tests with the kernels inside."""
    # The interpreter has copies of its own of what a kernel reads.
    options = ("-q", "-p", "no:cacheprovider", "-k", "not as_large_as_the_logits")
    modules = ("tests/interpreted", "tests/unit/test_linear.py")
    command = [sys.executable, "-m", "pytest", *options, *modules]
    environment = clean_environment(TRITON_INTERPRET="1")
    assert " passed" in run_command(command, cwd=ROOT, env=environment).stdout
