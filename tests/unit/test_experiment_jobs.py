"""Jobs of an experiment: which count as done, how many run at once, which GPUs they take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dft_factory.experiments.job import hold_gpus
from dft_factory.experiments.plan import Job, Plan
from dft_factory.experiments.run import Options, execute, only_run
from dft_factory.experiments.schema import Resources, Stage


@pytest.mark.parametrize(
    ("stamp", "made", "done"),
    [
        (json.dumps({"settings": "new"}) + "\n", True, True),
        # A SLURM job finished after `dft-factory run` was killed: Snakemake keeps no record of its
        # settings, and would take its stamp for that of any settings.
        (json.dumps({"settings": "old"}) + "\n", True, False),
        (json.dumps({"settings": "new"}) + "\n", False, False),
        ("", True, False),
        ("[]", True, False),
    ],
)
def test_a_job_is_done_by_its_settings_and_its_results(
    stamp: str, made: bool, done: bool, tmp_path: Path
) -> None:
    model = tmp_path / "sft" / "model"
    if made:
        model.mkdir(parents=True)
    job = Job("train", "sft", makes=(str(model),), settings="new")
    file = tmp_path / job.stamp
    file.parent.mkdir(parents=True)
    file.write_text(stamp)
    plan = Plan("x", str(tmp_path), str(tmp_path), {job.name: job}, {}, {}, {})
    assert (plan.pending() == []) == done


def test_a_job_takes_gpus_that_no_other_job_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with hold_gpus(["0", "1", "3"], 2) as first:
        with hold_gpus(["0", "1", "3"], 1) as second:
            assert (first, second) == ("0,1", "3")
        with hold_gpus(["0", "1", "3"], 1) as third:
            assert third == "3"
    with hold_gpus(["0", "1", "3"], 3) as everything:
        assert everything == "0,1,3"


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("resources", [{}, {"prepare": Resources(threads=1)}])
def test_no_more_jobs_at_once_than_allowed(
    jobs: int, resources: dict[Stage, Resources], tmp_path: Path
) -> None:
    """After jobs that were ready alone, too: Snakemake below 9.17 miscounted these."""
    events = tmp_path / "events"
    write = f"echo start >> {events}; sleep 1; echo end >> {events}"

    def job(name: str, *after: str) -> Job:
        return Job("prepare", name, after, (("sh", "-c", write),), settings=name)

    chain = [job("a"), job("b", "prepare a"), job("c", "prepare b")]
    rest = [job(name, "prepare c") for name in ("d", "e", "f")]
    plan = Plan(
        "x",
        str(tmp_path / "runs"),
        str(tmp_path),
        {each.name: each for each in chain + rest},
        {},
        {},
        resources,
    )
    with only_run(Path(plan.root)) as lock:
        execute(plan, Options(jobs=jobs), lock)
    running = [0]
    for event in events.read_text().split():
        running.append(running[-1] + (1 if event == "start" else -1))
    assert len(running) == 13
    assert max(running) == jobs
    assert plan.pending() == []
