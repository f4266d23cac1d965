"""The experiments and recipes that are shipped, and how names of files are found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import dft_factory
from dft_factory.errors import ConfigError, did_you_mean


def configs() -> Path:
    """The shipped ``configs/``: inside the wheel, or at the top of a checkout."""
    package = Path(dft_factory.__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """Names of the shipped experiments, such as ``demo`` or ``paper/code``."""
    root = configs() / "experiments"
    return sorted(
        path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml")
    )


def find(experiment: str) -> tuple[str, Path]:
    """Name and file of an experiment: a path to a YAML file, or the name of a shipped one.

    Raises:
        ConfigError: neither, naming the choices and the nearest match.
    """
    path = Path(experiment)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path.stem, path
        raise ConfigError(f"{path}: no such file.")
    if experiment in names():
        return experiment, configs() / "experiments" / f"{experiment}.yaml"
    raise ConfigError(
        f"experiment {experiment!r} is unknown. Give a YAML file, or choose from: "
        f"{', '.join(names())}.{did_you_mean(experiment, names())}"
    )


_RECIPE = re.compile(r"^stage:", re.MULTILINE)
_SHIPPED_PATH = re.compile(r"\bconfigs/([\w./-]+\.\w+)")
_OBJECTIVE = re.compile(r"(?<![a-z0-9])(sft|dft)(?![a-z0-9])")


def recipe_names() -> list[str]:
    """Names of the shipped LLaMA-Factory recipes, such as ``ultrafeedback/smollm2_dft``."""
    root = configs()
    return sorted(
        path.relative_to(root).with_suffix("").as_posix()
        for path in root.glob("*/*.yaml")
        if _RECIPE.search(path.read_text(encoding="utf-8"))
    )


def find_recipe(name: str) -> Path:
    """File of a shipped recipe.

    Raises:
        ConfigError: unknown, with the nearest match.
    """
    names = recipe_names()
    if name.removesuffix(".yaml") in names:
        return configs() / f"{name.removesuffix('.yaml')}.yaml"
    raise ConfigError(
        f"recipe {name!r} is unknown. `dft-factory recipes list` shows all {len(names)}."
        f"{did_you_mean(name, names)}"
    )


def summary(recipe: Path) -> str:
    """First sentence of a recipe's header."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    end = next(index for index, line in enumerate(lines) if not line.strip("# "))
    return " ".join(line.strip("# ") for line in lines[:end]).partition(". ")[0].rstrip(".")


def with_companions(recipe: Path) -> list[Path]:
    """A shipped recipe, the other half of its pair, and the shipped files that either names."""
    root = configs()
    other = {"sft": "dft", "dft": "sft"}
    name = _OBJECTIVE.sub(lambda match: other[match[1]], recipe.name, count=1)
    paths: list[Path] = []
    waiting = [recipe, recipe.with_name(name)]
    while waiting:
        path = waiting.pop(0)
        if path in paths or not path.is_file():
            continue
        paths.append(path)
        if path.suffix == ".yaml":
            waiting += [root / place for place in _named(path)]
    return paths


def _named(path: Path) -> Iterator[str]:
    return (match[1] for match in _SHIPPED_PATH.finditer(path.read_text(encoding="utf-8")))


def resolve(place: str, here: Path) -> str:
    """A path as the user means it: from the working directory, beside ``here``, or shipped.

    Anything that is no file or folder of these is given back as it is: a hub id, or a path that a
    later step makes.
    """
    path = Path(place)
    if path.is_absolute() or path.exists():
        return place
    for root in (here, configs()):
        if (root / path).exists():
            return str(root / path)
    return place
