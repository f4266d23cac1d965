"""Kill an evaluation with SIGKILL several times, resume it each time, and compare the outcome."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kill:
    """One kill: completions on disk, and whether the run had ended before."""

    kept: int
    too_late: bool


def completions(folder: Path) -> dict[str, str]:
    """All cached completions, without their dates, by key and id."""
    lines: dict[str, str] = {}
    for path in folder.glob("completions.cache.jsonl"):
        for text in path.read_text(encoding="utf-8").split("\n")[:-1]:
            row = json.loads(text)
            del row["created"]
            name, line = f"{row['key']} {row['id']}", json.dumps(row)
            assert lines.get(name, line) == line, f"{name} was made twice, differently"
            lines[name] = line
    return lines


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that two runs must have in common."""
    items = {path.name: path.read_text() for path in folder.glob("*.items.jsonl")}
    results = json.loads((folder / "results.json").read_text())
    return {"results": results, "items": items, "completions": completions(folder)}


def kill_and_resume(
    command: Sequence[str],
    out: Path,
    kills: int,
    *,
    environment: dict[str, str],
    now: Callable[[int], bool],
    after_kill: Callable[[set[str]], None],
) -> list[Kill]:
    """Run ``command`` undisturbed and with kills; AssertionError where they differ.

    Args:
        command: without its last word, the folder ``undisturbed`` or ``killed`` in ``out``.
        now: asked often whether it is time for the n-th kill (from 0).
        after_kill: told, after every kill, which completions are on disk.
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

    def run(folder: str) -> None:
        process = start(folder)
        complaint = process.communicate()[1]
        assert process.returncode == 0, complaint.decode()

    run("undisturbed")
    rows: list[Kill] = []
    for number in range(kills):
        before = completions(out / "killed")
        process = start("killed")
        while process.poll() is None and not now(number):
            time.sleep(0.005)
        too_late = process.poll() is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        _drop_half_a_line(out / "killed")
        kept = completions(out / "killed")
        assert before.items() <= kept.items(), "completions on disk were lost or changed"
        after_kill(set(kept))
        rows.append(Kill(len(kept), too_late))
    run("killed")
    assert outcome(out / "killed") == outcome(out / "undisturbed")
    return rows


def _drop_half_a_line(folder: Path) -> None:
    """Only for this comparison: the evaluation itself leaves out a line cut off by a kill."""
    for path in folder.glob("completions.cache.jsonl"):
        text = path.read_text(encoding="utf-8", errors="replace")
        if text and not text.endswith("\n"):
            path.write_text(text[: text.rfind("\n") + 1], encoding="utf-8")
