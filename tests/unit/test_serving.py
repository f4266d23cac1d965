"""Servers that an evaluation starts: a scripted one with faults, in separate processes."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dft_eval.benchmark import Request
from dft_eval.benchmarks import evaluate
from dft_eval.errors import PrerequisiteError, UsageError
from dft_eval.generation.run import Decoding
from dft_eval.serving.engines import ServeOptions
from dft_eval.serving.server import ServerEndedError
from tests.conftest import Bench
from tests.support import tasks
from tests.support.cli import executable, start_until

ROOT = Path(__file__).parents[2]
SCRIPTED = f"{shlex.quote(sys.executable)} -m tests.support.scripted_server --port {{port}}"


@pytest.fixture(autouse=True)
def _imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'eval'}")


def write_task(folder: Path, n: int = 6) -> str:
    rows = [{"question": f"number {i}", "answer": i} for i in range(n)]
    return str(tasks.write_task(folder, rows))


def request_of(model: Path | str, folder: Path, faults: str = "", **serve: Any) -> Request:
    """A request to the scripted server, whose processes are listed in ``folder/pids``."""
    command = f"{SCRIPTED} --pids {folder / 'pids'} --names {{model}} {faults}"
    return Request(
        model=str(model),
        out=folder / "out",
        label="base",
        backend="openai",
        serve=ServeOptions(**{"command": command, "timeout": 60.0, **serve}),
        decoding=Decoding(batch_size=2, max_new_tokens=20),
    )


def alive(folder: Path) -> list[int]:
    """The server's processes that are still running."""
    pids = [int(word) for word in (folder / "pids").read_text().split()]
    assert len(pids) >= 2
    running = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in ("Z", "X"):
            running.append(pid)
    return running


def served_prompts(out: Path) -> list[str]:
    return re.findall(r"^asked (.*)$", (out / "server.log").read_text(), re.MULTILINE)


def test_start_and_stop(text_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the proxy and the user's keys; a second evaluation requests nothing."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    task, request = write_task(tmp_path), request_of(text_bench.model, tmp_path)
    results = evaluate([task], request)
    assert results.results[0].score == 1.0
    assert results.model_sha256 is not None
    assert results.results[0].decoding["serve_command"] == request.serve.command
    assert "server_fingerprint" not in results.results[0].decoding
    assert alive(tmp_path) == []
    log = (request.out / "server.log").read_text()
    assert "keys: []" in log
    assert "sk-secret" not in log
    assert sorted(served_prompts(request.out)) == [f"number {i}" for i in range(6)]
    assert evaluate([task], request).results == results.results
    assert served_prompts(request.out) == []
    assert alive(tmp_path) == []


@pytest.mark.parametrize(
    ("faults", "serve", "message"),
    [
        ("--fails crash", {}, r"ended with exit status 1 before .*ValueError: this model cannot"),
        ("--fails memory", {}, r"ran out of memory: .*--tensor-parallel.*further up: torch\.Out"),
        ("--fails killed", {}, r"was killed \(SIGKILL\) before it was ready\.\nThe kernel"),
        ("--start-seconds 99", {"timeout": 3.0}, r"did not answer within 3 s .*--serve-timeout"),
        ("", {"command": "no-such-program {model} {port}"}, r"no-such-program: No such file"),
    ],
)
def test_a_server_that_does_not_start(
    faults: str, serve: dict[str, Any], message: str, text_bench: Bench, tmp_path: Path
) -> None:
    """The message has the reason, the command and the end of the log; no process is left."""
    (tmp_path / "pids").write_text("4194303 4194304")
    request = request_of(text_bench.model, tmp_path, faults, **serve)
    with pytest.raises(PrerequisiteError, match=f"(?s){message}") as error:
        evaluate([write_task(tmp_path)], request)
    assert f"The end of {request.out / 'server.log'}:\n" in str(error.value)
    assert "Command: " in str(error.value)
    assert alive(tmp_path) == []
    assert not (request.out / "results.json").exists()


def test_a_slow_start(
    text_bench: Bench, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dft_eval.serving.server._NEWS_SECONDS", 1.0)
    request = request_of(text_bench.model, tmp_path, "--start-seconds 4")
    assert evaluate([write_task(tmp_path)], request).results[0].score == 1.0
    assert re.search(r"not ready after \d+ s: keys: \[\]", capsys.readouterr().err)


def test_a_server_with_another_model(text_bench: Bench, tmp_path: Path) -> None:
    command = f"{SCRIPTED} --pids {tmp_path / 'pids'} --names gpt-x --seen {{model}}"
    request = request_of(text_bench.model, tmp_path, command=command)
    with pytest.raises(UsageError, match=r"does not have it\. It has gpt-x\. .*--alias"):
        evaluate([write_task(tmp_path)], request)
    assert alive(tmp_path) == []


def test_a_server_that_ends_in_the_middle(text_bench: Bench, tmp_path: Path) -> None:
    """The message has its log; completions are kept, and the next call generates the rest."""
    task = write_task(tmp_path, 12)
    request = request_of(text_bench.model, tmp_path, "--ends-at 6")
    with pytest.raises(ServerEndedError, match=r"(?s)exit status 7 in the middle.*engine core die"):
        evaluate([task], request)
    assert alive(tmp_path) == []
    completed = len((request.out / "completions.cache.jsonl").read_text().splitlines())
    assert 0 < completed < 12
    with pytest.raises(ServerEndedError):
        evaluate([task], request)
    later = len((request.out / "completions.cache.jsonl").read_text().splitlines())
    assert completed < later < 12


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_server_is_left_over(number: signal.Signals, text_bench: Bench, tmp_path: Path) -> None:
    """Nor its worker, which ignores SIGTERM and has its own session."""
    request = request_of(text_bench.model, tmp_path, "--answer-seconds 600")
    command = [
        executable("dft-factory"),
        "generate",
        write_task(tmp_path),
        "--out",
        str(request.out),
    ]
    command += ["--model", request.model, "--backend", "openai"]
    command += ["--serve-command", str(request.serve.command)]
    process = start_until("ready after", command, PYTHONPATH=os.environ["PYTHONPATH"])
    assert len(alive(tmp_path)) == 2
    process.send_signal(number)
    process.wait(60)
    deadline = time.monotonic() + 60
    while alive(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert alive(tmp_path) == []
