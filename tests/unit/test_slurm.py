"""Names of SLURM jobs; what needs a cluster is in tests/cluster."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dft_factory.errors import MissingDependencyError
from dft_factory.experiments.slurm import job_name_prefix, wait_for_jobs


def test_the_prefix_belongs_to_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever path it is named; two experiments never share one."""
    root = tmp_path / "runs" / "a"
    root.mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.chdir(tmp_path)
    prefix = job_name_prefix(root)
    assert job_name_prefix(Path("runs/a")) == job_name_prefix(Path("link")) == prefix
    assert job_name_prefix(tmp_path / "runs" / "b") != prefix
    # What the plugin allows.
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,50}", prefix)


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"squeue is not on PATH.*login node"):
        wait_for_jobs(tmp_path)
