"""Heavy packages that light modules must not import."""

from __future__ import annotations

import sys

import pytest

from tests.support.cli import clean_environment, run_command

CLI = {"typer", "pydantic", "rich", "matplotlib"}


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        # The command line imports it to know the names; torch alone would cost seconds.
        ("dft_factory.data.prepare", {"torch", "datasets", "pyarrow", "transformers"}),
        (
            "dft_factory.doctor, dft_factory.validate",
            {"torch", "llamafactory", "transformers", "pydantic"},
        ),
        ("dft_factory.losses", {"llamafactory", "transformers", *CLI}),
    ],
)
def test_nothing_heavier_is_imported(modules: str, absent: set[str]) -> None:
    code = f"import sys, {modules}; print(*sorted({absent} & set(sys.modules)))"
    environment = clean_environment(TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert run_command([sys.executable, "-c", code], env=environment).stdout.split() == []
