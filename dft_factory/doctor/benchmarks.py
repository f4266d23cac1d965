"""Benchmarks and sandboxes: what can run on this machine."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from typing import Protocol

from dft_eval.requirements import MissingRequirement
from dft_factory.doctor.report import BenchmarkRow, Version


class _Benchmark(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    def missing(self) -> Iterable[MissingRequirement]: ...


def sandbox_rows() -> tuple[Version, ...]:
    """One row a sandbox: its version, and whether it works here."""
    try:
        from dft_eval.sandbox import BACKENDS, prove
    except ImportError:
        return ()
    rows: list[Version] = []
    for name, backend in BACKENDS.items():
        try:
            prove(backend)
            version = backend.describe().removeprefix(name).strip()
            rows.append(Version(name, version, "sandbox: works here"))
        except Exception as error:  # any failure means that it does not work here
            rows.append(Version(name, None, f"sandbox: {str(error).splitlines()[0]}"))
    return tuple(rows)


def benchmark_rows() -> tuple[tuple[BenchmarkRow, ...], tuple[str, ...]]:
    """One row a benchmark, and warnings. No rows if dft_eval is not installed."""
    try:
        if importlib.util.find_spec("dft_eval.benchmarks") is None:
            return (), ()
        table: Mapping[str, _Benchmark] = importlib.import_module("dft_eval.benchmarks").BENCHMARKS
    except Exception as error:
        return (), (f"cannot read the benchmarks: {type(error).__name__}: {error}",)
    return tuple(_benchmark_row(benchmark) for benchmark in table.values()), ()


def _benchmark_row(benchmark: _Benchmark) -> BenchmarkRow:
    try:
        missing = list(benchmark.missing())
    except Exception as error:  # it cannot run either
        missing = [MissingRequirement(f"{type(error).__name__}: {error}", "")]
    return BenchmarkRow(benchmark.name, benchmark.summary, tuple(missing))
