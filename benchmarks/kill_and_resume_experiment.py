"""Kill an experiment at random moments of all its parts, compare it with an uninterrupted one.

    python benchmarks/kill_and_resume_experiment.py --out /tmp/killed [--kills 10] [--seed 0]
    python benchmarks/kill_and_resume_experiment.py --out /tmp/killed --experiment demo

Tiny checkpoints, SFT and DFT, two training seeds, or a shipped experiment, through ``dft-factory
run --jobs 2``. Kill K of N comes within twenty seconds after K/N of the jobs are done, so that the
kills cover all parts of the work; each is a SIGKILL of the process group. Prints the jobs that each
run started, and whether the report and all results.json and items files are equal byte for byte. An
existing uninterrupted run is not repeated.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.test_experiments import MAKE_RECORDS, RECIPE
from tests.support.cli import clean_environment, executable

EXPERIMENT = """
out: runs
make:
  tiny: dft-factory tiny qwen2.5-coder --out $out
  records: python make_records.py $out
model: {path: $tiny, base_model: tiny}
train:
  recipe: recipe.yaml
  data: {prepare: nq, source: $records/records.jsonl}
  variants: [sft, dft]
  seeds: [0, 1]
probe: 4
evaluate:
  - benchmarks: [nq]
    data: $records/records.jsonl
    prompt_style: chat
    max_new_tokens: 4
"""
OWN = "own.yaml"
COMPARED = ("report.md", "report.html", "**/results.json", "**/*.items.jsonl", "plan.json")


def start(folder: Path, experiment: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as stream:
        return subprocess.Popen(
            [executable("dft-factory"), "run", experiment, "--jobs", "2"],
            cwd=folder,
            env=clean_environment(),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / OWN).write_text(EXPERIMENT)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "make_records.py").write_text(MAKE_RECORDS)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    (plan,) = folder.glob("runs/**/plan.json")
    runs = plan.parent
    files = sorted({file for pattern in COMPARED for file in runs.glob(pattern)})
    text = {str(file.relative_to(runs)): file.read_bytes() for file in files}
    return {name: data.replace(str(folder).encode(), b"FOLDER") for name, data in text.items()}


def jobs(log: Path, state: str) -> list[str]:
    """The jobs that are ``started`` or ``done`` according to ``log``, in order."""
    return re.findall(rf"dft-factory: (.+): {state}", log.read_text())


def kill_late(process: subprocess.Popen[bytes], log: Path, jobs_done: int, seconds: float) -> str:
    """Kill the run some seconds after that many jobs are done; returns how it ended."""
    while process.poll() is None and len(jobs(log, "done")) < jobs_done:
        time.sleep(0.2)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return "killed"
    return f"exit status {process.returncode}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--experiment", default=OWN, help="a shipped one, such as demo")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    uninterrupted = args.out.resolve() / "uninterrupted"
    if not list(uninterrupted.glob("runs/**/report.md")):
        started = time.monotonic()
        if start(make_folder(uninterrupted), args.experiment, uninterrupted / "log").wait():
            sys.exit((uninterrupted / "log").read_text())
        print(f"uninterrupted: {time.monotonic() - started:.0f} s")
    all_jobs = len(jobs(uninterrupted / "log", "done"))
    folder = make_folder(args.out.resolve() / "killed")
    done = 0
    for kill in range(args.kills):
        log = folder / f"log{kill}"
        process = start(folder, args.experiment, log)
        target = kill * all_jobs // args.kills - done
        outcome = kill_late(process, log, target, rng.uniform(0, 20))
        done += len(jobs(log, "done"))
        names = ", ".join(jobs(log, "started")) or "nothing"
        print(f"run {kill}: {outcome}, {done} of {all_jobs} jobs done; started {names}", flush=True)
    log = folder / "log"
    status = start(folder, args.experiment, log).wait()
    print(f"last run: exit status {status}; started {', '.join(jobs(log, 'started')) or 'nothing'}")
    expected, actual = contents(uninterrupted), contents(folder)
    different = sorted(name for name in expected | actual if expected.get(name) != actual.get(name))
    print(f"{len(expected)} files compared, different: {', '.join(different) or 'none'}")
    sys.exit(bool(different) or status)


if __name__ == "__main__":
    main()
