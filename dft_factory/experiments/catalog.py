"""The experiments and recipes that are shipped, and how names of files are found."""

from __future__ import annotations

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
