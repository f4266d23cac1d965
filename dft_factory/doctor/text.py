"""The report as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dft_eval.requirements import MissingRequirement
from dft_factory.doctor.report import Report, exit_status

CPU_ONLY = "none: CPU only, bf16 needs use_cpu: true"


def _columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> Iterable[str]:
    """Rows as lines, columns aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield f"{indent}{'  '.join(cells)}".rstrip()


def _gpus(report: Report) -> Iterable[str]:
    if report.gpus is None:
        yield "  unknown: torch could not be imported"
    elif not report.gpus:
        yield f"  {CPU_ONLY}"
    for index, gpu in enumerate(report.gpus or ()):
        bf16 = "bf16" if gpu.bf16 else "no bf16"
        yield f"  {index}: {gpu.name}, {gpu.memory_gib:.1f} GiB, {bf16}"
    if report.loss_head:
        yield f"  loss head: {report.loss_head}"


def _missing(requirement: MissingRequirement) -> Iterable[str]:
    yield f"    missing: {requirement.name}"
    if requirement.fix:
        yield f"    fix: {requirement.fix}"


def _benchmarks(report: Report) -> Iterable[str]:
    for row in report.benchmarks:
        verdict = "can run here" if not row.missing else "can run here in part"
        if any(requirement.blocks for requirement in row.missing):
            verdict = "cannot run here"
        yield f"  {row.name}: {verdict} ({row.summary})"
        for requirement in row.missing:
            yield from _missing(requirement)


def _toolchains(report: Report) -> Iterable[str]:
    rows = [(row.language, row.version or "missing") for row in report.toolchains]
    for line, row in zip(_columns(rows), report.toolchains, strict=True):
        yield line
        if row.missing is not None:
            yield from _missing(row.missing)


def _verdict(report: Report) -> str:
    if report.problems:
        return f"DFT cannot be selected in this environment (exit status {exit_status(report)})."
    if report.activation.state != "on":
        return "DFT is switched off in this shell. Nothing is broken."
    return "finetuning_type: dft can be selected in `llamafactory-cli train`."


def render_text(report: Report) -> str:
    """The whole report. Warnings and problems come last, where a terminal shows them."""
    lines = ["Versions"]
    lines += _columns(
        [(row.name, row.version or "not installed", row.note) for row in report.versions]
    )
    lines += ["", "GPU", *_gpus(report)]
    activation = report.activation
    lines += [
        "",
        f"Activation: {activation.state}",
        f"  torch.backends entry point: {activation.entry_point or 'missing'}",
        f"  its file: {activation.autoload_file or 'missing'}",
    ]
    lines += ["", "Patches of LLaMA-Factory, as a training run gets them"]
    lines += _columns([(row.target, row.state, row.detail) for row in report.patches])
    if report.benchmarks:
        lines += ["", "Benchmarks", *_benchmarks(report)]
    if report.toolchains:
        lines += ["", "Languages of model-written programs", *_toolchains(report)]
    if report.warnings:
        lines += ["", "Warnings", *(f"  {warning}" for warning in report.warnings)]
    if report.problems:
        lines += ["", "Problems"]
        for problem in report.problems:
            lines += [f"  {problem.message}", f"    fix: {problem.fix}"]
    lines += ["", _verdict(report)]
    return "\n".join(lines) + "\n"
