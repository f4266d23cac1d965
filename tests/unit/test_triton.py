"""The GPU kernels on this machine, whatever it is: Triton's interpreter in a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.cli import clean_environment, run_command

ROOT = Path(__file__).parents[2]


def test_the_kernels_under_the_interpreter() -> None:
    """The kernels against torch, and the loss head's own tests with the kernels inside."""
    options = ("-q", "-p", "no:cacheprovider", "-k", "not allocated")
    command = [sys.executable, "-m", "pytest", *options, "tests/interpreted"]
    environment = clean_environment(TRITON_INTERPRET="1")
    command.append("tests/unit/test_linear.py")
    assert " passed" in run_command(command, cwd=ROOT, env=environment).stdout
