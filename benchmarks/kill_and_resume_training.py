"""Kill trainings with SIGKILL at random moments, run the same command again, compare the results.

    python benchmarks/kill_and_resume_training.py --out /tmp/killed-training --kills 3

Tiny checkpoints, text and pictures, full and LoRA, through the stock ``llamafactory-cli train``:
60 steps, a checkpoint every 5, a log every 7. Each kind runs once without interruption, then with
the kills, each a random moment after a random step, and then to its end. The final weights, the log
and ``token_probabilities.jsonl`` must be equal bit by bit.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from dft_factory.patch.checkpoint import checkpoints
from dft_factory.patch.record import FILE_NAME
from dft_factory.tiny import make_tiny
from tests.conftest import Bench
from tests.contract.test_resume import assert_same_outcome, recipe
from tests.support.cli import Run, clean_environment, executable
from tests.support.datasets import write_picture_set, write_text_set

STEPS = 60


def start(config: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    """``llamafactory-cli train`` into ``folder``, with its log beside it."""
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump({**config, "output_dir": str(folder)}))
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [executable("llamafactory-cli"), "train", str(recipe)],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def finish(config: dict[str, Any], folder: Path) -> Run:
    """Run to the end."""
    status = start(config, folder).wait()
    return Run(status, folder.with_suffix(".log").read_text(errors="replace"), folder).ok()


def last_step(record: Path) -> int:
    """The step of the last complete line; 0 without one."""
    lines = record.read_text(encoding="utf-8").split("\n")[:-1] if record.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def kill_once(config: dict[str, Any], folder: Path, step: int, delay: float) -> str:
    """SIGKILL ``delay`` seconds after the run has logged ``step`` or a later one."""
    process = start(config, folder)
    while process.poll() is None and last_step(folder / FILE_NAME) < step:
        time.sleep(0.005)
    time.sleep(delay)
    late = " (had ended before)" if process.poll() is not None else ""
    process.kill()
    process.wait()
    newest = next(iter(checkpoints(folder)), None)
    return f"killed at step {last_step(folder / FILE_NAME)}{late}; {newest and newest.name}"


def main() -> None:
    """Print one line per kill and per kind."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="replaced")
    parser.add_argument("--kills", type=int, default=3, help="of each of the four kinds")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    args.out.mkdir(parents=True)
    text, vl = (
        make_tiny("qwen2.5-coder", args.out / "text"),
        make_tiny("qwen2.5-vl", args.out / "vl"),
    )
    benches = (
        Bench("text", text, write_text_set(args.out / "t")),
        Bench("vl", vl, write_picture_set(args.out / "p")),
    )
    rng = random.Random(args.seed)
    for bench in benches:
        for method in ("full", "lora"):
            config = {**recipe(bench, method), "max_steps": STEPS, "logging_steps": 7}
            config |= {"save_steps": 5, "save_total_limit": 2}
            name = f"{bench.modality}-{method}"
            uninterrupted = finish(config, args.out / f"{name}-uninterrupted")
            folder = args.out / f"{name}-killed"
            # Ascending: steps before the newest checkpoint would be passed at once.
            for step in sorted(rng.sample(range(1, STEPS - 4), args.kills)):
                print(f"{name}: {kill_once(config, folder, step, rng.uniform(0, 0.1))}")
            assert_same_outcome(finish(config, folder), uninterrupted)
            print(f"{name}: weights, log and token probabilities equal the uninterrupted run's")


if __name__ == "__main__":
    main()
