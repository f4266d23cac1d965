"""Benchmarks, sandboxes and compilers: what can run on this machine."""

from __future__ import annotations

from dft_eval.requirements import MissingRequirement
from dft_factory.doctor.report import BenchmarkRow, ToolchainRow, Version


def sandbox_rows() -> tuple[Version, ...]:
    """One row per sandbox: its version, and whether it works here."""
    from dft_eval.sandbox import BACKENDS, prove

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
    """One row per benchmark, and warnings. Never raises."""
    try:
        from dft_eval.benchmarks import BENCHMARKS
    except Exception as error:
        return (), (f"cannot read the benchmarks: {type(error).__name__}: {error}",)
    rows: list[BenchmarkRow] = []
    for benchmark in BENCHMARKS.values():
        try:
            missing = benchmark.missing()
        except Exception as error:  # it cannot run either
            missing = [MissingRequirement(f"{type(error).__name__}: {error}", "")]
        rows.append(BenchmarkRow(benchmark.name, benchmark.summary, tuple(missing)))
    return tuple(rows), ()


def toolchain_rows() -> tuple[tuple[ToolchainRow, ...], tuple[str, ...]]:
    """One row per MultiPL-E language, and warnings. Never raises."""
    try:
        from dft_eval.languages import LANGUAGES, missing_toolchain, version

        rows: list[ToolchainRow] = []
        for language in LANGUAGES.values():
            missing = missing_toolchain(language)
            tool_version = None if missing else version(language)
            rows.append(ToolchainRow(language.title, tool_version, missing))
    except Exception as error:  # such as no Python that the sandbox could use
        return (), (f"cannot check the compilers: {type(error).__name__}: {error}",)
    return tuple(rows), ()
