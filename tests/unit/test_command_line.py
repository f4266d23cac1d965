"""``dft-factory --version`` and ``--help``."""

from __future__ import annotations

import sys

import dft_factory
from tests.support.cli import run_command

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
    return run_command([sys.executable, "-P", "-c", IMPORTS, option]).stdout


def test_version_and_help_import_nothing_heavy() -> None:
    assert output("--version") == f"dft-factory {dft_factory.__version__}\n"
    assert "doctor" in output("--help")
