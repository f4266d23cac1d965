"""``dft-factory run --executor slurm`` on a real SLURM: two nodes that share this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dft_factory.experiments.slurm import job_name_prefix, queued_jobs
from tests.conftest import Bench
from tests.support.cli import clean_environment, executable, obey_ctrl_c

SLURM_LOCAL = Path(__file__).parents[2] / "scripts" / "slurm_local.sh"
TIMEOUT_SECONDS = 1500
pytestmark = pytest.mark.timeout(2 * TIMEOUT_SECONDS)


def slurm_local(action: str, folder: Path) -> str:
    return subprocess.run(
        ["bash", str(SLURM_LOCAL), action, str(folder)],
        # SLURM counts them, the machine need not have them.
        env={**os.environ, "NODE_GPUS": "2"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two nodes with two processors and two pretended GPUs each: room for two trainings at once."""
    folder = tmp_path_factory.mktemp("slurm")
    path = slurm_local("start", folder).removeprefix("export PATH=").partition(":")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{path}{os.pathsep}{os.environ['PATH']}")
        yield
        print(sacct("JobID,Comment%40,State,Start,End,NodeList,AllocTRES%60", parsable=False))
    slurm_local("stop", folder)


def sacct(fields: str, parsable: bool = True) -> str:
    words = ["sacct", "-X", "--format", fields, *(["-n", "-P"] if parsable else [])]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@dataclass(frozen=True)
class SlurmJob:
    """What accounting knows of a job."""

    name: str
    comment: str
    state: str
    start: str
    end: str
    nodes: str


@dataclass(frozen=True)
class Experiment:
    """An experiment file and the folder that it fills."""

    file: Path

    @property
    def root(self) -> Path:
        return self.file.parent / "out"

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        words = ["run", str(self.file), "--executor", "slurm", "--jobs", "2"]
        with log.open("wb") as stream:
            return subprocess.Popen(
                [executable("dft-factory"), *words, "--profile", str(self.file.parent)],
                cwd=self.file.parent,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=obey_ctrl_c,
            )

    def finish(self, log: Path) -> None:
        process = self.start(log)
        try:
            assert process.wait(TIMEOUT_SECONDS) == 0, log.read_text()[-6000:]
        finally:
            process.kill()

    def slurm_jobs(self) -> list[SlurmJob]:
        rows = sacct("JobName,Comment,State,Start,End,NNodes").splitlines()
        jobs = [SlurmJob(*row.split("|")) for row in rows]
        return [job for job in jobs if job.name.startswith(job_name_prefix(self.root))]

    def results(self, run: str) -> dict[str, Any]:
        return dict(json.loads((self.root / run / "results.json").read_text()))


def make_experiment(folder: Path, bench: Bench) -> Experiment:
    """SFT and DFT, each on two nodes, scored on four questions of our own in two shards."""
    folder.mkdir()
    recipe = bench.config(
        max_steps=8,
        per_device_train_batch_size=1,
        save_strategy="steps",
        save_steps=4,
        finetuning_type="sft",
        output_dir="set by the experiment",
    )
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    rows = [{"question": f"who is number {i}", "answer": [f"name {i}"]} for i in range(4)]
    (folder / "nq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = {"threads": 1, "memory_gb": 1.5}
    experiment = {
        "out": "out",
        "model": str(bench.model),
        "base": False,  # both trainings start at once
        "train": {"recipe": "recipe.yaml", "variants": ["sft", "dft"]},
        "evaluate": [{"benchmarks": ["nq"], "data": "nq.jsonl", "max_new_tokens": 8, "shards": 2}],
        "resources": {
            "train": {**small, "nodes": 2, "gpus": 1, "hours": 1},
            **dict.fromkeys(("generate", "score", "report"), small),
        },
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(experiment))
    profile = {"slurm-init-seconds-before-status-checks": 2, "slurm-keep-successful-logs": True}
    (folder / "config.yaml").write_text(yaml.safe_dump(profile))
    return Experiment(folder / "tiny.yaml")


@pytest.fixture(scope="module")
def undisturbed(
    cluster: None, text_bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> Experiment:
    folder = tmp_path_factory.mktemp("undisturbed")
    experiment = make_experiment(folder / "tiny", text_bench)
    experiment.finish(folder / "run.log")
    return experiment


def overlap(one: SlurmJob, two: SlurmJob) -> bool:
    return one.start < two.end and two.start < one.end


def test_two_trainings_at_once_each_on_two_nodes(undisturbed: Experiment) -> None:
    jobs = undisturbed.slurm_jobs()
    assert {job.state for job in jobs} == {"COMPLETED"}
    one, two = (job for job in jobs if job.comment.startswith("rule_train"))
    assert (one.nodes, two.nodes) == ("2", "2")
    assert overlap(one, two)
    assert {job.nodes for job in jobs if job not in (one, two)} == {"1"}
    for name in ("sft", "dft"):
        log = (undisturbed.root / f"jobs/{name}.train.log").read_text()
        assert {f"num nodes: 2, node rank: {rank}" in log for rank in (0, 1)} == {True}
        # Eight steps of two examples, one a node.
        state = json.loads((undisturbed.root / name / "model/trainer_state.json").read_text())
        assert state["epoch"] == 2
    assert (undisturbed.root / "report.html").is_file()


def test_each_shard_is_a_job(undisturbed: Experiment) -> None:
    """Two of the four questions each; the score has all of them."""
    comments = [job.comment for job in undisturbed.slurm_jobs()]
    assert sum(comment.startswith("rule_generate") for comment in comments) == 4
    assert sum(comment.startswith("rule_score") for comment in comments) == 2
    for name in ("sft", "dft"):
        for shard in ("1-of-2", "2-of-2"):
            path = undisturbed.root / name / "shards" / shard / "nq.chat.completions.jsonl"
            assert len(path.read_text().splitlines()) == 2
        (result,) = undisturbed.results(name)["results"]
        assert (result["n_total"], result["n_scored"]) == (4, 4)


def test_killed_while_both_train(
    undisturbed: Experiment, text_bench: Bench, tmp_path: Path
) -> None:
    """The next call waits for them, does not train again, and ends in the same weights."""
    experiment = make_experiment(tmp_path / "tiny", text_bench)

    def training() -> bool:
        words = ["squeue", "--me", "--noheader", "--format=%j %k %T"]
        rows = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
        ours = [row for row in rows if row.startswith(job_name_prefix(experiment.root))]
        return len(ours) == 2 and all("rule_train" in r and r.endswith(" RUNNING") for r in ours)

    first = experiment.start(tmp_path / "first.log")
    try:
        wait_until(training)
    finally:
        first.kill()
        first.wait()
    assert len(queued_jobs(experiment.root)) == 2
    experiment.finish(tmp_path / "second.log")
    assert "waiting for SLURM jobs of an earlier run" in (tmp_path / "second.log").read_text()
    jobs = experiment.slurm_jobs()
    assert {job.state for job in jobs} == {"COMPLETED"}
    # Two calls submitted them, and each job once.
    assert len({job.name for job in jobs}) == 2
    assert set(Counter(job.comment for job in jobs).values()) == {1}
    for run in ("sft", "dft"):
        expected = undisturbed.results(run)
        for key in ("model_sha256", "results"):
            assert experiment.results(run)[key] == expected[key], (run, key)
    assert (experiment.root / "report.html").is_file()


def test_ctrl_c_cancels(cluster: None, text_bench: Bench, tmp_path: Path) -> None:
    """The terminal sends it to dft-factory and Snakemake alike."""
    experiment = make_experiment(tmp_path / "tiny", text_bench)
    process = experiment.start(tmp_path / "run.log")
    try:
        # Snakemake's files name the jobs' ids as soon as it knows them.
        incomplete = experiment.root / ".snakemake" / "incomplete"
        wait_until(lambda: len(queued_jobs(experiment.root)) == len([*incomplete.glob("*")]) == 2)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(TIMEOUT_SECONDS) != 0
    finally:
        process.kill()
    wait_until(lambda: not queued_jobs(experiment.root))
    states = {job.state.split()[0] for job in experiment.slurm_jobs()}
    assert states == {"CANCELLED"}


def test_jobs_of_other_experiments_are_not_waited_for(cluster: None, tmp_path: Path) -> None:
    names = [f"{job_name_prefix(tmp_path / 'other')}_1", f"{job_name_prefix(tmp_path)}_1", "dft"]
    jobs = [
        subprocess.run(
            [
                "sbatch",
                "--parsable",
                "--hold",
                "--output=/dev/null",
                "--job-name",
                name,
                "--wrap=:",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for name in names
    ]
    try:
        assert queued_jobs(tmp_path) == [jobs[1]]
    finally:
        subprocess.run(["scancel", *jobs], check=True)
