"""Names of SLURM jobs; what needs a cluster is in tests/cluster."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from dft_factory.errors import DftFactoryError, MissingDependencyError
from dft_factory.experiments import slurm
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


def write_squeue(folder: Path, failures: int) -> None:
    """A ``squeue`` that fails so often, as it does while the controller restarts."""
    script = folder / "squeue"
    script.write_text(
        "#!/bin/sh\n"
        f"echo . >>{folder}/calls\n"
        f"[ $(wc -l <{folder}/calls) -gt {failures} ] && exit 0\n"
        "echo 'squeue: error: Unexpected missing socket error' >&2; exit 1\n"
    )
    script.chmod(0o755)


def test_a_controller_that_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0)
    write_squeue(tmp_path, failures=3)
    wait_for_jobs(tmp_path)
    assert capsys.readouterr().err.count("squeue failed: squeue: error: Unexpected missing") == 1
    monkeypatch.setattr(slurm, "ATTEMPTS", 2)
    write_squeue(tmp_path, failures=99)
    with pytest.raises(DftFactoryError, match=r"Unexpected missing socket error. Try `sinfo`"):
        wait_for_jobs(tmp_path)
