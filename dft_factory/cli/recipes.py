"""``dft-factory recipes``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dft_factory.cli.app import app

recipes_app = typer.Typer(
    help="The shipped LLaMA-Factory recipes, in SFT / DFT pairs.", no_args_is_help=True
)
app.add_typer(recipes_app, name="recipes")
Name = Annotated[str, typer.Argument(help="As `dft-factory recipes list` shows it.")]


@recipes_app.command("list")
def list_command() -> None:
    """Names of the shipped recipes, and what each trains."""
    from dft_factory.experiments import catalog

    names = catalog.recipe_names()
    width = max(map(len, names), default=0)
    for name in names:
        typer.echo(f"{name:{width}}  {catalog.summary(catalog.find_recipe(name))}")


@recipes_app.command("show")
def show_command(name: Name) -> None:
    """Print a recipe; its header says what it needs and how to run it."""
    from dft_factory.experiments import catalog

    typer.echo(catalog.find_recipe(name).read_text(encoding="utf-8"), nl=False)


@recipes_app.command("copy")
def copy_command(
    name: Name,
    out: Annotated[
        Path, typer.Option(help="Folder in which configs/ is written (default: here).")
    ] = Path(),
) -> None:
    """Copy a recipe, the other half of its pair and the files they name to configs/.

    The paths are those of a checkout, so the commands in the recipes' headers work.
    """
    from dft_factory.errors import ConfigError
    from dft_factory.experiments import catalog

    root = catalog.configs()
    copies = {
        out / "configs" / path.relative_to(root): path.read_bytes()
        for path in catalog.with_companions(catalog.find_recipe(name))
    }
    changed = [
        str(target)
        for target, content in copies.items()
        if target.exists() and target.read_bytes() != content
    ]
    if changed:
        raise ConfigError(
            f"{', '.join(changed)}: exists and differs from the shipped file. Nothing was copied. "
            "Name another folder: --out FOLDER."
        )
    for target, content in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        typer.echo(str(target))
