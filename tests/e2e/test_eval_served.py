"""``dft-factory eval --serve-command`` with a real server: ``transformers serve`` on the CPU."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import Bench
from tests.e2e.test_eval_command import dft_factory
from tests.support.cli import executable, start_until

pytestmark = pytest.mark.cli


def processes_with(text: str) -> dict[int, str]:
    """Running processes with ``text`` in their command line."""
    matching = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if text in words:
            matching[int(folder.name)] = words
    return matching


def test_the_whole_life_of_a_real_server(text_bench: Bench, tmp_path: Path) -> None:
    """Killed with SIGKILL its server goes too; the next call starts another and ends it."""
    task, out, cache = tmp_path / "task.yaml", tmp_path / "out", tmp_path / "hub"
    cache.mkdir()  # it lists the hub's cache as its models, and fails without one
    (tmp_path / "rows.jsonl").write_text('{"q": "1 + 1", "a": 2}\n{"q": "2 + 3", "a": 5}\n')
    task.write_text("{data: rows.jsonl, prompt: '{q}', metric: numeric, answer: a}")
    serve = f"env HF_HUB_CACHE={cache} {executable('transformers')} serve {{model}} --port {{port}}"
    words = ["eval", str(task), "--model", str(text_bench.model), "--out", str(out)]
    words += ["--max-new-tokens", "8", "--backend", "openai"]
    words += ["--serve-command", f"{serve} --device cpu"]
    killed = start_until("ready after", [executable("dft-factory"), *words])
    server = f"serve {text_bench.model} --port"
    assert processes_with(server)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    deadline = time.monotonic() + 60
    while (left := processes_with(server)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == {}
    done = dft_factory(*words)
    assert done.returncode == 0, done.stderr
    assert processes_with(server) == {}
    written = json.loads((out / "results.json").read_text())
    assert len(written["model_sha256"]) == 64
    (row,) = written["results"]
    assert (row["n_total"], row["n_scored"], row["n_truncated"]) == (2, 2, 2)
    assert row["decoding"]["serve_command"] == words[-1]
    assert "Finished server process" in (out / "server.log").read_text()
