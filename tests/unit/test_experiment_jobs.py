"""Jobs of an experiment: which count as done, how many run at once, which GPUs they take."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dft_eval.results import read_results
from dft_factory.experiments.expand import make_plan
from dft_factory.experiments.job import hold_gpus
from dft_factory.experiments.plan import Job, Plan
from dft_factory.experiments.run import Options, execute, only_run
from dft_factory.experiments.schema import Resources, Stage, load
from tests.conftest import Bench
from tests.unit.test_experiments import RECIPE


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
def test_job_state_by_stamp_and_results(stamp: str, made: bool, done: bool, tmp_path: Path) -> None:
    model = tmp_path / "sft" / "model"
    if made:
        model.mkdir(parents=True)
    job = Job("train", "sft", makes=(str(model),), settings="new")
    file = tmp_path / job.stamp
    file.parent.mkdir(parents=True)
    file.write_text(stamp)
    plan = Plan("x", str(tmp_path), str(tmp_path), {job.name: job}, {}, {}, {})
    assert (plan.pending() == []) == done


def test_jobs_share_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_jobs_run_at_most(jobs: int, resources: dict[Stage, Resources], tmp_path: Path) -> None:
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


def test_shards_run_as_jobs_and_are_scored_together(
    text_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Snakemake and the real commands; the base alone, since training is another test's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    rows = [{"question": f"What is {n} + 1?", "answer": [str(n + 1)]} for n in range(5)]
    (tmp_path / "nq.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    evaluation = {"benchmarks": ["nq"], "data": "nq.jsonl", "prompt_style": "chat", "shards": 2}
    values = {
        "model": str(text_bench.model),
        "train": {"recipe": "recipe.yaml", "variants": ["dft"]},
        "evaluate": [{**evaluation, "max_new_tokens": 2}],
    }
    (tmp_path / "own.yaml").write_text(json.dumps(values))
    plan = make_plan(load(tmp_path / "own.yaml", "own"))
    jobs = {name: job for name, job in plan.jobs.items() if job.what.startswith("base")}
    plan = replace(plan, jobs=jobs, reports={})
    shards = [f"generate base/shards/{number}-of-2" for number in (1, 2)]
    assert list(plan.jobs) == [*shards, "score base"]
    with only_run(Path(plan.root)) as lock:
        execute(plan, Options(jobs=2), lock)
    assert plan.pending() == []
    (result,) = read_results(Path("runs/own/base")).results
    assert (result.n_total, result.n_scored) == (5, 5)
    lines = {
        path.parent.name: len(path.read_text().splitlines())
        for path in Path("runs/own/base/shards").glob("*/nq.chat.completions.jsonl")
    }
    assert sorted(lines.values()) == [2, 3]
    assert set(lines) == {"1-of-2", "2-of-2"}
    Path("runs/own/base/shards/2-of-2/generation.json").unlink()
    assert [job.name for job in plan.pending()] == [shards[1], "score base"]
