"""What every ``dft-factory`` command line has in common."""

from __future__ import annotations

import subprocess
import sys

import dft_factory

IMPORTS = """
import sys
from dft_factory.cli import main
sys.argv = ["dft-factory", sys.argv[1]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "numpy", "llamafactory", "yaml", "jinja2"} & sys.modules.keys()
assert not heavy, heavy
"""


def output(option: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", IMPORTS, option], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_version_and_help_import_nothing_heavy() -> None:
    assert output("--version") == f"dft-factory {dft_factory.__version__}\n"
    assert "doctor" in output("--help")
