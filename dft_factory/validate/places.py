"""What a recipe names on disk: data sets, models, a DeepSpeed file.

LLaMA-Factory resolves relative paths against its working directory, usually the project root. Here:
the current folder first, then the nearest folder above the recipe that looks like a project.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dft_factory.validate.files import Config
from dft_factory.validate.findings import Finding, near

_PROJECT_MARKS = (".git", "pyproject.toml", "configs")
_REMOTE_KEYS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")


def check_places(config: Config) -> Iterator[Finding]:
    """Findings about the paths and names of the recipe that are missing or unusable."""
    yield from _check_models(config)
    if config.kind == "train":
        yield from _check_deepspeed(config)
        yield from _check_datasets(config)


def is_remote(dataset_dir: str) -> bool:
    """Whether LLaMA-Factory looks for its data sets on a hub."""
    return dataset_dir.startswith(("ONLINE", "REMOTE:"))


def resolve(config: Config, place: str) -> Path:
    """The path that LLaMA-Factory would open; relative to the current folder if none exists."""
    path = Path(place)
    if path.is_absolute():
        return path
    for folder in config.file.resolve().parents:
        if any((folder / mark).exists() for mark in _PROJECT_MARKS):
            candidate = folder / path
            return candidate if candidate.exists() and not path.exists() else path
    return path


def _warning(config: Config, key: str, message: str) -> Finding:
    return Finding(config.file, "warning", key, message)


def _error(config: Config, key: str, message: str) -> Finding:
    return Finding(config.file, "error", key, message)


def _names(value: Any) -> list[str]:
    """Names in comma-separated text or a list."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _check_models(config: Config) -> Iterator[Finding]:
    keys = ("model_name_or_path", "adapter_name_or_path", "ref_model", "resume_from_checkpoint")
    for key in keys:
        for name in _names(config.values.get(key)):
            if _looks_local(config, name) and not resolve(config, name).exists():
                yield _warning(
                    config, key, f"{name!r} is not here yet. Train, download or create it first."
                )


def _looks_local(config: Config, name: str) -> bool:
    """Whether it is a path, not a hub id (``name`` or ``owner/name``)."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return True
    first, slash, _ = name.partition("/")
    return bool(slash) and resolve(config, first).is_dir()


def _check_deepspeed(config: Config) -> Iterator[Finding]:
    place = config.values.get("deepspeed")
    if isinstance(place, str) and not resolve(config, place).is_file():
        if Path(place).is_absolute():
            yield _warning(config, "deepspeed", f"{place!r} is not on this machine.")
        else:
            yield _error(
                config,
                "deepspeed",
                f"there is no file {place!r}. Write its path relative to the folder where "
                "llamafactory-cli is started.",
            )


def _check_datasets(config: Config) -> Iterator[Finding]:
    folder = config.values.get("dataset_dir", "data")
    names = [
        (key, name)
        for key in ("dataset", "eval_dataset")
        for name in _names(config.values.get(key))
    ]
    if not names or not isinstance(folder, str) or is_remote(folder):
        return
    info = resolve(config, folder) / "dataset_info.json"
    if not info.exists():
        missing = list(dict.fromkeys(name for _, name in names))
        yield _warning(
            config,
            "dataset_dir",
            f"there is no {Path(folder) / info.name}: not here yet. {_prepare(missing, folder)}",
        )
        return
    try:
        known = json.loads(info.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        yield _error(config, "dataset_dir", f"{Path(folder) / info.name} is not JSON: {problem}.")
        return
    if not isinstance(known, dict):
        yield _error(config, "dataset_dir", f"{Path(folder) / info.name} is not a JSON object.")
        return
    for key, name in names:
        if name not in known:
            yield _error(
                config,
                key,
                f"{name!r} is not in {Path(folder) / info.name}, which has "
                f"{', '.join(known) or 'nothing'}.{near(name, known)}",
            )
        elif isinstance(known[name], dict):
            yield from _check_entry(config, key, name, known[name], info.parent)


def _check_entry(
    config: Config, key: str, name: str, entry: dict[str, Any], folder: Path
) -> Iterator[Finding]:
    ranking = entry.get("ranking", False)
    stage = config.values.get("stage", "sft")
    if ranking is True and stage in ("pt", "sft"):
        yield _error(
            config,
            key,
            f"{name!r} is a ranking data set (ranking: true in dataset_info.json), which stage: "
            f"{stage} cannot train on.",
        )
    file_name = entry.get("file_name")
    if any(remote in entry for remote in _REMOTE_KEYS) or not isinstance(file_name, str):
        return
    if not (folder / file_name).exists():
        parent = config.values.get("dataset_dir", "data")
        yield _warning(
            config,
            key,
            f"{name!r}: {Path(parent) / file_name} is not here yet. {_prepare([name], parent)}",
        )


def _prepare(names: list[str], folder: str) -> str:
    """The command that creates the data set, if it is one of ours."""
    from dft_factory.data.prepare import CONVERTERS

    ours = [name for name in names if name in CONVERTERS]
    if not ours:
        return "Put it there before training."
    return (
        f"Create it: `dft-factory data prepare {ours[0]} --source PATH_OR_HUB_ID --out {folder}`."
    )
