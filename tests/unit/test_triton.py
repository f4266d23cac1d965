"""The GPU kernels on this machine, whatever it is: Triton's interpreter in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.cli import clean_environment

ROOT = Path(__file__).parents[2]


def test_the_kernels_under_the_interpreter() -> None:
    """The kernels against torch, and the loss head's own tests with the kernels inside."""
    words = ("-q", "-p", "no:cacheprovider", "-k", "not allocated")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "tests/interpreted", "tests/unit/test_linear.py"],
        cwd=ROOT,
        env=clean_environment(TRITON_INTERPRET="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
