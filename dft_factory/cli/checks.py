"""Before a training: ``dft-factory doctor``, ``validate`` and ``probe``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from dft_factory.cli.app import app


@app.command("doctor")
def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")] = False,
) -> None:
    """What is installed, what works here, and how to fix the rest."""
    import json

    from dft_factory.doctor import examine, exit_status, render_text, to_json

    report = examine(lambda message: typer.echo(f"doctor: {message}", err=True))
    typer.echo(json.dumps(to_json(report), indent=2) if as_json else render_text(report))
    raise typer.Exit(exit_status(report))


@app.command("validate")
def validate_command(
    configs: Annotated[list[Path], typer.Argument(help="Recipes, experiments, task files.")],
) -> None:
    """Every error of every recipe together, before a GPU is rented."""
    from dft_factory.validate import exit_status, render_checks, render_text, validate_files

    findings = validate_files(configs)
    typer.echo(render_text(findings) + render_checks(configs, findings), nl=False)
    raise typer.Exit(exit_status(findings))


@app.command("probe")
def probe_command(
    config: Annotated[Path, typer.Argument(help="Training YAML whose data is measured.")],
    out: Annotated[Path, typer.Option(help="Folder for probe.json, .md, .html and .png.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="As after `llamafactory-cli train CONFIG`."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="PATH or LABEL=PATH; may be repeated (default: the YAML's model)."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Examples, sampled.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
) -> None:
    """Token probabilities of a training set before training, and the objective they speak for."""
    from dft_eval.progress import Progress
    from dft_factory.probe.advice import SETTINGS
    from dft_factory.probe.run import probe

    with contextlib.ExitStack() as bar:
        current: list[Progress] = []

        def progress(label: str, done: int, total: int) -> None:
            if done == 1:
                bar.close()  # one bar at a time
                current[:] = [bar.enter_context(Progress(f"{label}: batches"))]
            current[0](done, total)

        report, paths = probe(
            config,
            out,
            models=model or [],
            overrides=overrides or [],
            limit=limit,
            seed=seed,
            progress=progress,
        )
    for model_report in report.models:
        row = model_report.probabilities.numbers
        typer.echo(
            f"{model_report.probabilities.label}  mean {row.mean:.3f}  median {row.median:.3f}  "
            f"below 0.1 {100 * row.share_below:.1f} %  above 0.9 {100 * row.share_above:.1f} %  "
            f"NLL {row.nll:.3f}  polarisation {model_report.probabilities.polarisation:.2f}"
        )
    typer.echo(f"advice: {SETTINGS[report.advice.choice]}")
    typer.echo(f"reason: {report.advice.reason}")
    typer.echo(f"uncertainty: {report.advice.uncertainty}")
    typer.echo(f"collapse: {report.collapse.headline}. {report.collapse.reason}")
    typer.echo(str(paths.html))
