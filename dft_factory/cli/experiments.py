"""``dft-factory run`` and ``dft-factory experiments``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dft_factory.cli.app import app

experiments_app = typer.Typer(
    help="The shipped experiments: the demo, the studies, the paper's tables.", no_args_is_help=True
)
app.add_typer(experiments_app, name="experiments")


@app.command("run")
def run_command(
    experiment: Annotated[
        str, typer.Argument(help="YAML file, or a name that `dft-factory experiments list` shows.")
    ],
    jobs: Annotated[int, typer.Option(help="Jobs at once.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the jobs that would run, and stop.")
    ] = False,
    executor: Annotated[
        str,
        typer.Option(
            help="local, slurm, kubernetes, ...: a Snakemake executor plugin (for slurm: "
            "pip install snakemake-executor-plugin-slurm)."
        ),
    ] = "local",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a field of the experiment: train.seeds=[0,1], resources.train.gpus=4.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Snakemake profile: resources, partition, account of your cluster."),
    ] = None,
) -> None:
    """Prepare, train every variant and seed, evaluate, report; only what is not done yet."""
    from dft_factory.experiments import catalog, run
    from dft_factory.experiments.schema import load

    name, file = catalog.find(experiment)
    loaded = load(file, name, overrides or [])
    options = run.Options(jobs=jobs, executor=executor, profile=profile)
    if dry_run:
        typer.echo(run.dry_run(loaded))
        return
    for page in run.run(loaded, options):
        typer.echo(str(page))


@experiments_app.command("list")
def list_command() -> None:
    """Names and first lines of the shipped experiments."""
    from dft_factory.experiments import catalog
    from dft_factory.experiments.schema import load

    names = catalog.names()
    width = max(map(len, names), default=0)
    for name in names:
        description = load(catalog.find(name)[1], name).experiment.description
        typer.echo(f"{name:{width}}  {description.strip().splitlines()[0] if description else ''}")


@experiments_app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(help="As `dft-factory experiments list` shows it.")],
) -> None:
    """Print an experiment's file."""
    from dft_factory.experiments import catalog

    typer.echo(catalog.find(name)[1].read_text(encoding="utf-8"), nl=False)


@experiments_app.command("copy")
def copy_command(
    name: Annotated[str, typer.Argument(help="As `dft-factory experiments list` shows it.")],
    out: Annotated[
        Path | None, typer.Option(help="File to write (default: NAME.yaml here).")
    ] = None,
) -> None:
    """Copy an experiment's file, to change it; its recipes are still found by their names."""
    from dft_factory.errors import ConfigError
    from dft_factory.experiments import catalog

    source = catalog.find(name)[1]
    target = out or Path(source.name)
    if target.exists():
        raise ConfigError(f"{target} exists. Name another file: --out FILE.")
    target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    typer.echo(str(target))
