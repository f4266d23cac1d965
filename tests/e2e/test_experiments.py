"""``dft-factory run`` by the real command: killed, resumed, changed, with a failing job."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Bench
from tests.support.cli import clean_environment, executable

RECIPE = """
model_name_or_path: none
stage: sft
do_train: true
finetuning_type: sft
template: qwen
cutoff_len: 256
max_steps: 4
per_device_train_batch_size: 2
learning_rate: 1.0e-3
use_cpu: true
save_steps: 1
logging_steps: 1
report_to: none
output_dir: none
"""
EXPERIMENT = """
out: runs
make:
  records: python make_records.py $out
model: {model}
train:
  recipe: recipe.yaml
  data: {{prepare: nq, source: $records/records.jsonl}}
  variants:
    sft: {{objective: sft}}
    dft: {{objective: dft}}
evaluate:
  - benchmarks: [nq]
    data: $records/records.jsonl
    prompt_style: chat
    max_new_tokens: 2
"""
MAKE_RECORDS = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True)
rows = [{"question": f"What is {n} + 1?", "answer": [str(n + 1)]} for n in range(4)]
(out / "records.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
"""


CHANGE = ("--set", "train.variants.dft.dft_weight=floor:0.1")


class Bed:
    """A folder with an experiment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [executable("dft-factory"), "run", "own.yaml", "--jobs", "2", *args],
            cwd=self.folder,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str) -> tuple[int, str]:
        """Exit status and output."""
        process = self.start(*args)
        try:
            out, error = process.communicate(timeout=800)
        finally:
            process.kill()
        return process.returncode, out + error

    def processes(self) -> list[str]:
        """Command lines that name a file of this folder, or run in it."""
        commands = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and Path(os.readlink(entry / "cwd")) == self.folder:
                    commands.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return commands


def started(output: str) -> set[str]:
    return set(re.findall(r"dft-factory: (.+): started", output))


def wait_until(condition: Callable[[], object], what: str) -> None:
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.25)
    pytest.fail(f"not within ten minutes: {what}")


@pytest.fixture(scope="module")
def bed(text_bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bed:
    folder = tmp_path_factory.mktemp("experiment").resolve()
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "own.yaml").write_text(EXPERIMENT.format(model=text_bench.model))
    (folder / "make_records.py").write_text(MAKE_RECORDS)
    return Bed(folder)


@pytest.fixture(scope="module")
def finished(bed: Bed) -> tuple[Bed, str, str]:
    """Run, killed by SIGKILL in the middle of training, and run again: both outputs."""
    process = bed.start()
    model = bed.folder / "runs/sft/model"
    try:
        wait_until(lambda: list(model.glob("checkpoint-*")), "a checkpoint")
    finally:
        os.kill(process.pid, signal.SIGKILL)
    _, killed = process.communicate()
    wait_until(lambda: not bed.processes(), "every process of the killed run gone")
    status, output = bed.run()
    assert status == 0, output
    return bed, killed, output


@pytest.mark.cli
def test_a_killed_run_continues(finished: tuple[Bed, str, str]) -> None:
    bed, killed, output = finished
    assert started(killed) >= {"prepare records", "prepare data"}
    # Finished jobs are not repeated, and the training resumes from its checkpoint.
    assert not started(output) & {"prepare records", "prepare data"}
    assert "train sft" in started(output)
    steps = json.loads((bed.folder / "runs/sft/model/trainer_state.json").read_text())
    assert [row["step"] for row in steps["log_history"] if "loss" in row] == [1, 2, 3, 4]
    assert "Resuming training from" in (bed.folder / "runs/jobs/sft.train.log").read_text()
    results = [json.loads(file.read_text()) for file in bed.folder.glob("runs/*/results.json")]
    n_scored = {result["label"]: result["results"][0]["n_scored"] for result in results}
    assert n_scored == {"base": 4, "sft": 4, "dft": 4}
    report = (bed.folder / "runs/report.md").read_text()
    assert all(label in report for label in ("base", "sft", "dft"))
    card = (bed.folder / "runs/dft/model/README.md").read_text()
    assert "finetuning_type: dft" in card
    assert "| nq | exact_match | 0.0 % |" in card


@pytest.mark.cli
def test_a_second_call_runs_only_what_a_change_affects(finished: tuple[Bed, str, str]) -> None:
    bed, *_ = finished
    status, output = bed.run()
    assert (status, started(output)) == (0, set()), output
    status, output = bed.run("--dry-run", *CHANGE)
    assert status == 0
    assert "5 jobs to run, 8 done already" in output
    weights = bed.folder / "runs/sft/model/model.safetensors"
    before = weights.stat().st_mtime_ns
    status, output = bed.run(*CHANGE)
    assert status == 0, output
    assert started(output) == {"train dft", "generate dft", "score dft", "card dft", "report own"}
    assert weights.stat().st_mtime_ns == before
    log = [json.loads(row) for row in (bed.folder / "runs/dft/model/trainer_log.jsonl").open()]
    assert [row["current_steps"] for row in log if "loss" in row] == [1, 2, 3, 4]


@pytest.mark.cli
def test_deleted_results_are_scored_again(finished: tuple[Bed, str, str]) -> None:
    bed, *_ = finished
    bed.run(*CHANGE)
    (bed.folder / "runs/sft/results.json").unlink()
    status, output = bed.run(*CHANGE)
    assert status == 0
    assert started(output) == {"score sft", "card sft", "report own"}


@pytest.mark.cli
def test_a_failed_job_stops_its_dependants_and_is_reported(finished: tuple[Bed, str, str]) -> None:
    bed, *_ = finished
    broken = "train.variants.broken={objective: dft, val_size: 100}"
    status, output = bed.run(*CHANGE, "--set", broken)
    assert status == 1
    assert "train broken: its log is runs/jobs/broken.train.log" in output
    skipped = "Not run, since they need what failed: generate broken, score broken, card broken"
    assert skipped in output
    report = (bed.folder / "runs/report.md").read_text()
    assert "train broken failed" in report
    assert all(f"| {label} " in report for label in ("base", "sft", "dft"))


@pytest.mark.cli
def test_all_mistakes_are_named_before_any_job(bed: Bed) -> None:
    status, output = bed.run(
        *("--set", "out=runs3"),
        *("--set", "train.set={learning_rate: fast, dft_weigth: token}"),
        *("--set", "evaluate.0.limt=3"),
    )
    assert status == 2
    assert "No such option" in output
    assert "--limt" in output
    assert "learning_rate" in output
    assert "dft_weigth" in output
    assert started(output) == set()


@pytest.mark.cli
def test_a_second_concurrent_run_is_refused(bed: Bed) -> None:
    import fcntl

    (bed.folder / "runs4").mkdir()
    with (bed.folder / "runs4/.run.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        status, output = bed.run("--set", "out=runs4")
    assert status == 1
    assert "another `dft-factory run` works on this experiment" in output
