"""A verdict does not depend on how many processors a machine claims or on who else uses them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dft_eval import sandbox
from dft_eval.generation.run import Completion
from dft_eval.humaneval_plus import adapter
from dft_eval.humaneval_plus.data import EvalPlusProblem
from dft_eval.multipl_e import benchmark as multipl_e
from dft_eval.sandbox import Limits, cpus
from dft_eval.sandbox.cpus import judge_workers

GIB = 1024**3
BURN = """
import time
end = time.process_time() + {seconds}
while time.process_time() < end:
    pass
"""


@pytest.fixture
def one_core() -> Iterator[None]:
    """This thread, the threads and the processes that it starts, on one core."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    yield
    os.sched_setaffinity(0, usable)


def test_correct_programs_pass_on_one_core(one_core: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a worker a claimed CPU each program gets 1/24 of the core and the wall time runs out."""
    monkeypatch.setattr(os, "cpu_count", lambda: 24)
    burn = BURN.format(seconds=0.7).replace("\n", "\n    ")
    texts = {"task_id": "t", "prompt": "def f():\n", "entry_point": "f"}
    texts["canonical_solution"] = "    return 1\n"
    problem = EvalPlusProblem(**texts, base_input=[[]], plus_input=[], atol=0.0)
    text = f"{burn}return 1\n"
    answer = Completion(id="t", prompt="", completion=text, finish_reason="stop", n_tokens=1)
    options: dict[str, Any] = {"samples": 1, "plus": False, "sandboxed": True}
    problems, answers = [problem] * 24, [answer] * 24
    rows = adapter.score(problems, answers, "completion", **options, progress=lambda *_: None)
    assert [base.score for base, _ in rows] == [1.0] * 24, rows


POOLS: list[Callable[..., object]] = [
    partial(adapter.score, [], [], "completion", samples=1, plus=True),
    partial(multipl_e.judge, [], [], "completion", "official"),
]


@pytest.mark.parametrize("judge_all", POOLS)
def test_pools_have_the_size_of_the_usable_cores(
    judge_all: Any, one_core: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, max_workers: int) -> None:
            sizes.append(max_workers)
            super().__init__(max_workers)

    monkeypatch.setattr(os, "cpu_count", lambda: 24)
    monkeypatch.setattr(cpus, "ThreadPoolExecutor", Pool)
    judge_all(sandboxed=True, progress=lambda *_: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    judge_all(sandboxed=True, workers=1, progress=lambda *_: None)
    assert sizes == [1, 1]


def test_programs_that_starve_beside_others_run_again_alone(one_core: None) -> None:
    """More at once than the core can do in the wall time, as where a quota cannot be seen."""
    limits = Limits(cpu_seconds=15, wall_seconds=4)
    check = partial(sandbox.check_program, test="", limits=limits)
    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(check, [BURN.format(seconds=1)] * 12))
    assert [result.verdict() for result in done] == [(1.0, "passed")] * 12


def test_wall_time_of_waiting_and_computing_programs() -> None:
    done = sandbox.check_program("import time\ntime.sleep(60)", "", limits=Limits(wall_seconds=1))
    assert (done.score, done.killed_for, done.starved) == (None, "wall time", True)
    assert "not judged: 1 s of wall time were up with 0." in done.reason
    program = (
        "import os, time\nfor _ in range(3):\n    if not os.fork():\n        break\n"
        f"else:\n    time.sleep(60)\n{BURN.format(seconds=3)}"
    )
    done = sandbox.check_program(program, "", limits=Limits(cpu_seconds=1, wall_seconds=8))
    assert (done.killed_for, done.verdict()) == ("wall time", (0.0, "killed for its wall time"))


# --- Counting ------------------------------------------------------------------------------------


def machine(root: Path, cgroup: str, files: dict[str, str], available_kib: int = 2**30) -> Path:
    """A machine whose ``proc`` and ``sys`` say this, with memory for 1,024 programs."""
    texts = {"proc/self/cgroup": cgroup, "proc/meminfo": f"MemAvailable: {available_kib} kB\n"}
    for name, text in {**texts, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))


MEMORY = {"memory.max": str(8 * GIB), "memory.current": str(5 * GIB)}
MEMORY["memory.stat"] = f"anon 1\ninactive_file {2 * GIB}\n"
V1_MEMORY = {"memory.limit_in_bytes": str(4 * GIB), "memory.usage_in_bytes": str(GIB)}
V1_CPU = {"cpu.cfs_quota_us": "300000\n", "cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("cgroup", "files", "workers"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        # A pod's slice bounds its containers; without a cgroup namespace the path is the host's.
        ("0::/pod/c\n", {"pod/cpu.max": "500000 100000", "pod/c/cpu.max": "max 100000"}, 5),
        ("0::/kubepods/x\n", {"cpu.max": "400000 100000\n"}, 4),
        ("3:cpu,cpuacct:/d\n", {f"cpu,cpuacct/d/{k}": v for k, v in V1_CPU.items()}, 3),
        ("3:cpu:/elsewhere\n", {f"cpu/{k}": v for k, v in V1_CPU.items()}, 3),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("0::/\n", MEMORY, 5),
        ("0::/\n", {"memory.max": "max", "memory.current": str(5 * GIB)}, 64),
        ("9:memory:/\n", {f"memory/{k}": v for k, v in V1_MEMORY.items()}, 3),
    ],
)
def test_workers_by_quota_and_memory(
    cgroup: str, files: dict[str, str], workers: int, many_cores: None, tmp_path: Path
) -> None:
    assert judge_workers(root=machine(tmp_path, cgroup, files)) == workers


def test_workers_by_affinity_free_memory_and_option(
    one_core: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = machine(tmp_path / "free", "0::/\n", {})
    assert judge_workers(root=free) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert judge_workers(3, root=free) == 3
    assert judge_workers(100, root=free) == 64
    full = machine(tmp_path / "full", "0::/\n", {}, available_kib=6 * 1024**2)
    assert judge_workers(root=full) == 6
    assert judge_workers(root=machine(tmp_path / "none", "0::/\n", {}, available_kib=1)) == 1
