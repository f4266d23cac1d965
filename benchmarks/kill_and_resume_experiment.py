"""An experiment killed ten times at random moments against the same one undisturbed.

    python benchmarks/kill_and_resume_experiment.py --out /tmp/killed [--kills 10] [--seed 0]
    python benchmarks/kill_and_resume_experiment.py --out /tmp/killed --experiment demo

Tiny checkpoints, SFT and DFT, two training seeds, or a shipped experiment, through ``dft-factory
run --jobs 2``. Every kill is a SIGKILL of the whole process group. Prints which jobs each run
started, and whether the report, every results.json and every items file are equal in the end, byte
for byte.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--experiment", default=OWN, help="a shipped one, such as demo")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    calm = make_folder(args.out.resolve() / "undisturbed")
    started = time.monotonic()
    if start(calm, args.experiment, calm / "log").wait():
        sys.exit((calm / "log").read_text())
    seconds = time.monotonic() - started
    print(f"undisturbed: {seconds:.0f} s")
    folder = make_folder(args.out.resolve() / "killed")
    share = 2 * seconds / args.kills
    for kill in range(args.kills):
        log = folder / f"log{kill}"
        process = start(folder, args.experiment, log)
        try:
            process.wait(timeout=rng.uniform(0.5, 1) * share + 10)
            what = f"exit status {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            what = "killed"
        jobs = re.findall(r"dft-factory: (.+): started", log.read_text())
        print(f"run {kill}: {what}; started {', '.join(jobs) or 'nothing'}", flush=True)
    log = folder / "log"
    status = start(folder, args.experiment, log).wait()
    jobs = re.findall(r"dft-factory: (.+): started", log.read_text())
    print(f"last run: exit status {status}; started {', '.join(jobs) or 'nothing'}")
    first, second = contents(calm), contents(folder)
    different = sorted(name for name in first | second if first.get(name) != second.get(name))
    print(f"{len(first)} files compared, different: {', '.join(different) or 'none'}")
    sys.exit(bool(different) or status)


if __name__ == "__main__":
    main()
