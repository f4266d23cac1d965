"""How many programs to judge at once: by what this process may use, not by what exists."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dft_eval.sandbox.limits import Limits

Item = TypeVar("Item")
Verdict = TypeVar("Verdict")
_MEMORY_BYTES = Limits().memory_bytes


def judge_workers(at_most: int | None = None, *, root: Path = Path("/")) -> int:
    """Minimum of affinity, CPU quota, free memory / memory of one program, and ``at_most``.

    Args:
        at_most: ``--judge-workers``.
        root: Parent of ``proc`` and ``sys``; tests use another one.
    """
    bounds = [float(len(os.sched_getaffinity(0))), *_cpu_quotas(root)]
    bounds += [free / _MEMORY_BYTES for free in _free_memory(root)]
    bounds += [] if at_most is None else [float(at_most)]
    return max(1, int(min(bounds)))


def judge_each(
    judge: Callable[[Item], Verdict],
    items: Sequence[Item],
    workers: int | None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Verdict]:
    """``judge`` of every item, in order; at most ``workers`` of them at once.

    Args:
        progress: called with (done, all).
    """
    verdicts: list[Verdict] = []
    with ThreadPoolExecutor(judge_workers(workers)) as pool:
        for verdict in pool.map(judge, items):
            verdicts.append(verdict)
            progress(len(verdicts), len(items))
    return verdicts


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _levels(controller: str, root: Path) -> Iterator[Path]:
    """Our cgroups of both versions, from our own up to the mount's root.

    Without a cgroup namespace a container sees the host's path here and its own cgroup at the
    mount's root; a level that does not exist reads as empty.
    """
    mount = root / "sys" / "fs" / "cgroup"
    for line in _read(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            bases = [mount, mount / "unified"]
        elif controller in controllers.split(","):
            bases = [mount / controllers, mount / controller]
        else:
            continue
        for base in bases:
            own = base / path.lstrip("/")
            yield from (level for level in (own, *own.parents) if level.is_relative_to(base))


def _cpu_quotas(root: Path) -> Iterator[float]:
    for level in _levels("cpu", root):
        quota = _read(level / "cpu.max").split() or [
            _read(level / "cpu.cfs_quota_us").strip(),
            _read(level / "cpu.cfs_period_us").strip(),
        ]
        if all(word.isdecimal() for word in quota):  # not "max" or -1
            yield int(quota[0]) / int(quota[1])


def _free_memory(root: Path) -> Iterator[int]:
    fields = _fields(root / "proc" / "meminfo")
    if "MemAvailable:" in fields:
        yield fields["MemAvailable:"] * 1024
    for level in _levels("memory", root):
        for limit_file, usage_file, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, usage = (_read(level / name).strip() for name in (limit_file, usage_file))
            if limit.isdecimal() and usage.isdecimal():
                reclaimable = _fields(level / "memory.stat").get(cache, 0)
                yield int(limit) - int(usage) + reclaimable


def _fields(path: Path) -> dict[str, int]:
    rows = (line.split() for line in _read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdecimal()}
