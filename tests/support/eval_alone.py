"""``python -m tests.support.eval_alone FOLDER``: evaluates a server on loopback, then reports.

Needs what ``dft-factory[eval]`` brings: neither LLaMA-Factory nor torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.openai_server import FakeServer, serve
from tests.support.vlm_tables import mathverse_row, mathvision_row, wemath_problem, write_table

SCORES = {"mathverse": 1.0, "mathvision": 1.0, "wemath": 0.5, "nq": 1.0}
"""WeMath: both steps right, the whole wrong."""


def evaluate(folder: Path, environment: Mapping[str, str]) -> dict[str, float | None]:
    """Scores of a server that answers ``65`` to everything, by ``dft-factory`` beside this Python.

    Raises:
        subprocess.CalledProcessError: a command failed.
    """

    def dft_factory(*args: str) -> None:
        command = Path(sys.executable).parent / "dft-factory"
        subprocess.run([command, *args], check=True, cwd=folder, env=environment)

    data = folder / "data"
    write_table(data / "MathVerse_MINI.tsv", [mathverse_row(0, "Vision Only", "65")])
    write_table(data / "MathVision.tsv", [mathvision_row(0, "B", ["40", "65"])])
    write_table(data / "WeMath.tsv", wemath_problem(0, 0, ["B", "B", "A"]))
    questions = folder / "nq.jsonl"
    questions.write_text(json.dumps({"question": "how many?", "answer": ["65"]}) + "\n")
    vision = ["mathverse", "mathvision", "wemath", "--judge", "rules", "--data", str(data)]
    nq = ["nq", "--prompt-style", "chat", "--data", str(questions)]
    with serve(FakeServer(lambda prompt: "65", talks=False)) as server:
        model = ["--backend", "openai", "--base-url", server.url, "--model", "tiny"]
        for benchmarks in (vision, nq):
            dft_factory("eval", *benchmarks, *model, "--label", "base", "--out", "base")
    dft_factory("report", "base", "--out", "report")
    assert (folder / "report" / "report.html").is_file()
    results = json.loads((folder / "base" / "results.json").read_text())["results"]
    return {row["benchmark"]: row["score"] for row in results}


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    target.mkdir(parents=True)
    scores = evaluate(target, os.environ)
    assert scores == SCORES, scores
    sys.stderr.write(f"scores without LLaMA-Factory: {scores}\n")
