"""Kill an evaluation with SIGKILL at random moments, resume it each time, compare the results.

    python benchmarks/kill_and_resume.py --out /tmp/killed -- \\
        humaneval --model runs/demo/smollm2 --limit 40 --max-new-tokens 64 --batch-size 8

The arguments after ``--`` are those of ``dft-factory eval`` without ``--out``. The command runs
once without interruption, then with the kills, spread over the time of a run, and then to its end.
A kill after the end of a run is repeated at an earlier time. Results, items and completions must be
equal, and no completion that was on disk at a kill may be generated again. With ``--score`` the
completions are generated first, and ``dft-factory score`` is killed. A kill ends the command and
its workers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRIES = 3
"""Runs per kill, at most."""


@dataclass(frozen=True)
class Kill:
    """One kill: seconds after the start, completions on disk, whether the run had ended before."""

    seconds: float
    n_completions: int
    too_late: bool


def completions(folder: Path) -> dict[str, str]:
    """All cached completions, without their dates, by key and id."""
    lines: dict[str, str] = {}
    for path in folder.glob("completions.cache.jsonl"):
        for text in path.read_text(encoding="utf-8").split("\n")[:-1]:
            row = json.loads(text)
            del row["created"]
            name, line = f"{row['key']} {row['id']}", json.dumps(row)
            assert lines.get(name, line) == line, f"{name} was generated twice, differently"
            lines[name] = line
    return lines


def outcome(folder: Path) -> dict[str, Any]:
    """What must be equal for two runs."""
    items = {path.name: path.read_text() for path in folder.glob("*.items.jsonl")}
    results = json.loads((folder / "results.json").read_text())
    return {"results": results, "items": items, "completions": completions(folder)}


def kill_and_resume(
    command: Sequence[str],
    out: Path,
    kills: int,
    seed: int,
    *,
    environment: dict[str, str] | None = None,
    is_time: Callable[[int], bool] | None = None,
    after_kill: Callable[[set[str]], None] = lambda names: None,
) -> list[Kill]:
    """Run ``command`` without and with kills.

    Args:
        command: without its last argument, the folder ``uninterrupted`` or ``killed`` in ``out``.
        is_time: for the n-th kill (from 0), called often; None: kills at random moments.
        after_kill: gets the names of the completions on disk after each kill.

    Raises:
        AssertionError: the results differ.
    """

    def start(folder: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, str(out / folder)],
            env=environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    started = time.monotonic()
    uninterrupted = start("uninterrupted")
    stderr = uninterrupted.communicate()[1]
    assert uninterrupted.returncode == 0, stderr.decode()
    duration = time.monotonic() - started
    rng = random.Random(seed)
    rows: list[Kill] = []
    while len(rows) < TRIES * kills:
        number = sum(is_time is not None or not row.too_late for row in rows)
        if number == kills:
            break
        seconds = rng.uniform(0.05, 0.95) * duration
        before = completions(out / "killed")
        started = time.monotonic()
        process = start("killed")
        while process.poll() is None:
            if is_time(number) if is_time else time.monotonic() - started >= seconds:
                break
            time.sleep(0.005)
        too_late = process.poll() is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        _drop_partial_line(out / "killed")
        cached = completions(out / "killed")
        assert before.items() <= cached.items(), "completions on disk were lost or changed"
        after_kill(set(cached))
        rows.append(Kill(time.monotonic() - started, len(cached), too_late))
        if too_late:
            duration = min(duration, rows[-1].seconds)
    last = start("killed")
    stderr = last.communicate()[1]
    assert last.returncode == 0, stderr.decode()
    assert outcome(out / "killed") == outcome(out / "uninterrupted")
    return rows


def _drop_partial_line(folder: Path) -> None:
    """Only for this comparison: the evaluation itself ignores a partial line."""
    for path in folder.glob("completions.cache.jsonl"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if text and not text.endswith("\n"):
            path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")


def main() -> None:
    """Print one line per kill and a verdict."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="replaced")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--score", action="store_true", help="kill only the scoring")
    parser.add_argument("call", nargs="+", help="-- BENCHMARK... --model M ...")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    program = "import sys; from dft_factory.cli import main; sys.argv[0] = 'dft-factory'; main()"
    command = [sys.executable, "-c", program]
    if args.score:
        generate = [*command, "generate", *args.call, "--out", str(args.out / "uninterrupted")]
        subprocess.run(generate, check=True)
        shutil.copytree(args.out / "uninterrupted", args.out / "killed")
        command += ["score"]
    else:
        command += ["eval", *args.call, "--out"]
    for kill in kill_and_resume(command, args.out, args.kills, args.seed):
        late = " (had ended before)" if kill.too_late else ""
        print(f"killed after {kill.seconds:6.1f} s, {kill.n_completions} completions on disk{late}")
    print("results, items and completions equal those of the uninterrupted run")


if __name__ == "__main__":
    main()
