"""``dft-factory --version`` and ``--help``."""

from __future__ import annotations

import sys
from pathlib import Path

import dft_factory
from tests.support.cli import run_command

IMPORTS = """
import sys
from pathlib import Path
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


RECIPE = ("recipes", "copy", "mathematics/qwen2_5_math_7b_dft", "--out")


def refusal(command: list[str]) -> str:
    done = run_command(command, status=1)
    assert done.stderr.startswith("dft-factory: ")
    assert done.stderr.count("\n") == 1, done.stderr  # no traceback
    return done.stderr


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "dft_factory.cli", *RECIPE, str(tmp_path / "file")]
    message = refusal(command)
    assert str(tmp_path / "file") in message
    assert "Not a directory. A file stands where a folder is needed" in message


def test_no_space_for_what_is_written(tmp_path: Path) -> None:
    """A limit of no bytes a file: as a disk that is full, whoever runs the test."""
    program = [sys.executable, "-B", "-m", "dft_factory.cli", *RECIPE, str(tmp_path)]
    message = refusal(["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *program])
    assert "File too large. Free some, or use another folder." in message
