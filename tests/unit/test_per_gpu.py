"""``--gpus N|auto`` by the real command; CUDA_VISIBLE_DEVICES names GPUs, be they there or not."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dft_eval.errors import UsageError
from dft_eval.gpus import visible_ids
from dft_eval.model_files import find_model, hashes_for_children, model_sha256
from dft_eval.per_gpu import check_gpus, select_gpus
from tests.conftest import Bench
from tests.support.cli import clean_environment, executable, obey_ctrl_c
from tests.unit.test_shards import assert_same, write_task

MIG = """\
GPU 0: NVIDIA H200 (UUID: GPU-5c8e8b5a-0001)
  MIG 1g.18gb     Device  0: (UUID: MIG-1f2e3d4c-0001)
  MIG 1g.18gb     Device  1: (UUID: MIG-1f2e3d4c-0002)
GPU 1: NVIDIA H200 (UUID: GPU-5c8e8b5a-0002)
"""


def test_visible_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_ids({}) == []
    (tmp_path / "smi.txt").write_text(MIG)
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nexec /bin/cat {tmp_path}/smi.txt\n")
    program.chmod(0o755)
    assert visible_ids({}) == ["MIG-1f2e3d4c-0001", "MIG-1f2e3d4c-0002", "1"]
    for named, ids in (
        ("3, 1", ["3", "1"]),
        ("GPU-8932f937,MIG-1f2e", ["GPU-8932f937", "MIG-1f2e"]),
        ("2,-1,3", ["2"]),
        ("", []),
        ("-1", []),
    ):
        assert visible_ids({"CUDA_VISIBLE_DEVICES": named}) == ids


@pytest.mark.parametrize(
    ("count", "named", "says"),
    [
        (None, "", r"--gpus auto: no GPU is visible \(CUDA_VISIBLE_DEVICES=\); leave --gpus out"),
        (2, "-1", r"--gpus 2: no GPU is visible"),
        (3, "4,GPU-7", r"--gpus 3: 2 visible \(4, GPU-7\)\. Give 2 or less"),
    ],
)
def test_more_gpus_than_are_visible(count: int | None, named: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        select_gpus(count, {"CUDA_VISIBLE_DEVICES": named})
    assert select_gpus(2, {"CUDA_VISIBLE_DEVICES": "5,3,1"}) == ["5", "3"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (("0", "hf", None, None), "--gpus '0': give a number of 1 or more, or auto"),
        (("all", "hf", None, None), "--gpus 'all': give a number"),
        (("2", "hf", "1/2", None), "--gpus 2 divides the items itself: leave --shard 1/2 out"),
        (
            ("auto", "vllm", None, None),
            "--gpus auto is for --backend hf, not vllm.*--data-parallel",
        ),
        (("2", "hf", None, "auto"), "a whole model on each GPU, --device-map auto one model"),
    ],
)
def test_conflicting_options(values: tuple[str, str, str | None, str | None], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_gpus(*values)


def start(words: list[str], gpus: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [executable("dft-factory"), *words],
        env=clean_environment(CUDA_VISIBLE_DEVICES=gpus, OMP_NUM_THREADS=str(len(gpus.split(",")))),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=obey_ctrl_c,
    )


def run(words: list[str], gpus: str = "") -> tuple[int, str]:
    """Exit status, and everything that it printed."""
    process = start(words, gpus)
    out, error = process.communicate()
    return process.returncode, out + error


def pids(process: subprocess.Popen[str], count: int) -> list[int]:
    """Of the processes that it says it started."""
    numbers: list[int] = []
    assert process.stderr is not None
    for line in process.stderr:
        numbers += map(int, re.findall(r"^GPU \S+, shard \d+/\d+: process (\d+)", line))
        if len(numbers) == count:
            break
    return numbers


def variables(pid: int) -> dict[str, str]:
    rows = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(row.split("=", 1) for row in rows if "=" in row)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition: Callable[[], object], what: str) -> None:
    for _ in range(60_000):
        if condition():
            return
        time.sleep(0.005)
    pytest.fail(f"not within five minutes: {what}")


@pytest.mark.parametrize("decoding", [(), ("--temperature=1", "--samples=2", "--seed=3")])
def test_same_as_one_process(text_bench: Bench, tmp_path: Path, decoding: tuple[str, ...]) -> None:
    words = [str(write_task(tmp_path)), "--model", str(text_bench.model), "--label", "base"]
    words += ["--max-new-tokens", "6", "--batch-size", "3", *decoding]
    status, text = run(["eval", *words, "--out", str(tmp_path / "whole")])
    assert status == 0, text
    status, text = run(
        ["eval", *words, "--out", str(tmp_path / "parts"), "--gpus", "auto"], "GPU-8932f937,3"
    )
    assert status == 0, text
    assert "finds none of the GPUs GPU-8932f937, 3: the 2 processes run on the CPU" in text
    assert "GPU 3, shard 2/2: ended (exit status 0)" in text
    assert "base  task (chat)" in text
    assert_same(tmp_path / "parts", tmp_path / "whole")


def test_a_model_that_the_parent_has_hashed_is_not_read_again(tmp_path: Path) -> None:
    """Other bytes under the same size and time, which only reading would tell apart."""
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"first")
    expected = hashlib.sha256(b"model.safetensors\0first").hexdigest()
    assert model_sha256(find_model(str(tmp_path))) == expected
    time_ns = weights.stat().st_mtime_ns

    def in_child(content: bytes, mtime_ns: int, **environment: str) -> str:
        weights.write_bytes(content)
        os.utime(weights, ns=(mtime_ns, mtime_ns))
        code = "import sys; from dft_eval.model_files import find_model, model_sha256 as sha256; "
        words = [sys.executable, "-c", f"{code}print(sha256(find_model(sys.argv[1])))", tmp_path]
        env = clean_environment(**environment)
        return subprocess.run(words, env=env, capture_output=True, text=True).stdout.strip()

    known = hashes_for_children()
    assert in_child(b"other", time_ns, **known) == expected
    other = hashlib.sha256(b"model.safetensors\0other").hexdigest()
    assert in_child(b"other", time_ns) == other
    assert in_child(b"other", time_ns + 1, **known) == other


def test_a_failed_process_is_named_and_can_resume(text_bench: Bench, tmp_path: Path) -> None:
    """Two models; the process of the second GPU is killed when it has completed something."""
    words = ["generate", str(write_task(tmp_path, 16)), "--max-new-tokens", "32"]
    words += ["--batch-size", "1", "--model", f"a={text_bench.model}"]
    words += ["--model", f"b={text_bench.model}"]
    per_gpu = [*words, "--gpus", "2", "--out", str(tmp_path / "parts")]
    process = start(per_gpu, "4,5,6,7")
    first, second = pids(process, 2)
    assert [variables(pid)["CUDA_VISIBLE_DEVICES"] for pid in (first, second)] == ["4", "5"]
    assert [variables(pid)["OMP_NUM_THREADS"] for pid in (first, second)] == ["2", "2"]
    sha256 = model_sha256(find_model(str(text_bench.model)))
    for pid in (first, second):
        assert list(json.loads(variables(pid)["DFT_FACTORY_MODEL_HASHES"]).values()) == [sha256]
    cache = tmp_path / "parts/a/shards/2-of-2/completions.cache.jsonl"
    wait_until(cache.exists, "a completion")
    os.kill(second, signal.SIGKILL)
    out, error = process.communicate()
    assert process.returncode == 1, out + error
    log = tmp_path / "parts/shard-2-of-2.log"
    assert "GPU 5, shard 2/2 failed: SIGKILL" in error
    assert f"The end of {log}:\n  $ CUDA_VISIBLE_DEVICES=5 " in error
    assert "1 of 2 shards are done. The same command goes on" in error
    assert "GPU 4, shard 1/2: ended (exit status 0)" in error
    completed = cache.read_text().splitlines()
    status, text = run(per_gpu, "4,5")
    assert status == 0, text
    assert cache.read_text().splitlines()[: len(completed)] == completed
    assert f"reusing {len(completed)} completions" in log.read_text()
    assert f"dft-factory score {tmp_path / 'parts/b'}" in text
    status, text = run([*words, "--out", str(tmp_path / "whole")])
    assert status == 0, text
    for label in ("a", "b"):
        assert_same(tmp_path / "parts" / label, tmp_path / "whole" / label)
    status, text = run([*per_gpu, "--gpus", "3"], "4,5,6")
    assert (status, "parts/a holds parts of 2, and this call makes parts of 3" in text) == (2, True)
    status, text = run([*words, "--gpus", "2", "--out", str(tmp_path / "whole")], "4,5")
    assert (status, "whole/a holds what one process generated" in text) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_over(text_bench: Bench, tmp_path: Path, number: signal.Signals) -> None:
    words = ["generate", str(write_task(tmp_path, 40)), "--model", str(text_bench.model)]
    words += ["--max-new-tokens", "400", "--out", str(tmp_path / "out"), "--gpus", "2"]
    process = start(words, "0,1")
    children = pids(process, 2)
    assert all(map(alive, children))
    process.send_signal(number)
    process.communicate()
    wait_until(lambda: not any(map(alive, children)), "every process gone")
    # They did not just come to their end.
    assert not list((tmp_path / "out").rglob("generation.json"))
