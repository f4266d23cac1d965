"""Fixtures shared by all tests: tiny checkpoints and data sets, made once a session."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest

from tests.support.cli import base_config
from tests.support.datasets import write_picture_set, write_text_set

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker a core

# Examples on a busy machine take longer than hypothesis' 200 ms.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

collect_ignore = [
    folder
    for folder, variable in {
        "interpreted": "TRITON_INTERPRET",
        "containers": "DFT_TEST_CONTAINERS",
        "trackers": "DFT_TEST_TRACKERS",
    }.items()
    if os.environ.get(variable) != "1"
]


@dataclass(frozen=True)
class Bench:
    """A tiny model with its data set: the recipe that trains it by one step."""

    modality: str
    model: Path
    data: Path

    def config(self, **changes: Any) -> dict[str, Any]:
        names = {"text": ("tiny_text", "qwen"), "vl": ("tiny_vl", "qwen2_vl")}
        config = base_config(self.model, self.data, *names[self.modality])
        if self.modality == "vl":
            config.update(freeze_vision_tower=False, freeze_multi_modal_projector=False)
        return {key: value for key, value in {**config, **changes}.items() if value is not None}


@pytest.fixture(scope="session")
def text_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    from dft_factory.tiny import make_tiny

    folder = tmp_path_factory.mktemp("text")
    return Bench(
        "text",
        make_tiny("qwen2.5-coder", folder / "model"),
        write_text_set(folder / "data"),
    )


@pytest.fixture(scope="session")
def vl_bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    from dft_factory.tiny import make_tiny

    folder = tmp_path_factory.mktemp("vl")
    return Bench(
        "vl", make_tiny("qwen2.5-vl", folder / "model"), write_picture_set(folder / "data")
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--with-toolchains",
        action="store_true",
        help="fail if any test could not run for want of data or a toolchain",
    )


NOT_RUN = "not run: "


def not_run(reason: str) -> NoReturn:
    """Skip the calling test or fixture, which the summary lists with this reason.

    With ``--with-toolchains``, as in CI, the whole run then fails.
    """
    pytest.skip(f"{NOT_RUN}{reason}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List by name the tests that could not run here."""
    rows = [r for r in terminalreporter.stats.get("skipped", []) if NOT_RUN in str(r.longrepr)]
    if rows:
        terminalreporter.section("tests not run on this machine")
        for row in rows:
            reason = str(row.longrepr).split(NOT_RUN, 1)[-1].rstrip("')")
            terminalreporter.line(f"{row.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if not session.config.getoption("--with-toolchains"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of other people's published items; tests without it are listed as not run."""
    named = os.environ.get("DFT_TEST_DATA")
    if not named:
        not_run("DFT_TEST_DATA is not set")
    path = Path(named)
    assert path.is_dir(), f"DFT_TEST_DATA: {path} is no folder"
    return path
