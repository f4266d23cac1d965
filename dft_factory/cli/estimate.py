"""``dft-factory estimate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dft_factory.cli.app import app


@app.command("estimate")
def estimate_command(
    config: Annotated[Path, typer.Argument(help="Training YAML.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="As after `llamafactory-cli train CONFIG`."),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(help="GPUs (default: the number in a recipe's header, or 1).")
    ] = None,
    accelerate: Annotated[
        Path | None, typer.Option(help="As in `accelerate launch --config_file FILE` (FSDP2).")
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(help="Pictures an example (default: 1 where the model takes pictures)."),
    ] = None,
    tokens_per_second: Annotated[
        float | None,
        typer.Option(help="Rate of all GPUs together: adds the hours of the whole training."),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Train three steps here: a measured peak, and the hours."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, on stdout.")] = False,
) -> None:
    """Memory on each GPU before one is rented: needs config.json and tokenizer, no weights."""
    import json

    from dft_factory.estimate.run import estimate, render

    result = estimate(
        config,
        overrides=overrides or [],
        gpus=gpus,
        accelerate=accelerate,
        pictures=pictures,
        tokens_per_second=tokens_per_second,
        measure=measure,
    )
    typer.echo(json.dumps(result.to_json(), indent=2) if as_json else render(result))
