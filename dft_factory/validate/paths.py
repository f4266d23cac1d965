"""Check what a recipe names on disk: data sets, models, a DeepSpeed file.

LLaMA-Factory resolves relative paths against its working directory, usually the project root. Here:
the current folder first, then the nearest folder above the recipe that looks like a project.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dft_factory.errors import did_you_mean
from dft_factory.validate.files import Config
from dft_factory.validate.findings import Finding, Verdict

_PROJECT_MARKS = (".git", "pyproject.toml", "configs")
_REMOTE_KEYS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")


def check_paths(config: Config) -> Iterator[Finding]:
    """Findings about paths and names of the recipe that are missing or unusable."""
    checks = [_check_models]
    if config.kind == "train":
        checks += [_check_deepspeed, _check_datasets]
    for check in checks:
        for severity, key, message in check(config):
            yield Finding(config.file, severity, key, message)


def is_remote(dataset_dir: str) -> bool:
    """Whether LLaMA-Factory looks for its data sets on a hub."""
    return dataset_dir.startswith(("ONLINE", "REMOTE:"))


def resolve(config: Config, name: str) -> Path:
    """The path that LLaMA-Factory would open; relative to the current folder if none exists."""
    path = Path(name)
    if path.is_absolute():
        return path
    for folder in config.file.resolve().parents:
        if any((folder / mark).exists() for mark in _PROJECT_MARKS):
            candidate = folder / path
            return candidate if candidate.exists() and not path.exists() else path
    return path


def _names(value: Any) -> list[str]:
    """Names in comma-separated text or a list."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _check_models(config: Config) -> Iterator[Verdict]:
    keys = ("model_name_or_path", "adapter_name_or_path", "ref_model", "resume_from_checkpoint")
    for key in keys:
        for name in _names(config.values.get(key)):
            if _looks_local(config, name) and not resolve(config, name).exists():
                message = f"{name!r} is not here yet. Train, download or create it first."
                yield "warning", key, message


def _looks_local(config: Config, name: str) -> bool:
    """Whether it is a path, not a hub id (``name`` or ``owner/name``)."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return True
    first, slash, _ = name.partition("/")
    return bool(slash) and resolve(config, first).is_dir()


def _check_deepspeed(config: Config) -> Iterator[Verdict]:
    path = config.values.get("deepspeed")
    if not isinstance(path, str) or resolve(config, path).is_file():
        return
    if Path(path).is_absolute():
        yield "warning", "deepspeed", f"{path!r} is not on this machine."
        return
    message = (
        f"there is no file {path!r}. Write its path relative to the folder where llamafactory-cli "
        "is started."
    )
    yield "error", "deepspeed", message


def _check_datasets(config: Config) -> Iterator[Verdict]:
    folder = config.values.get("dataset_dir", "data")
    names = [
        (key, name)
        for key in ("dataset", "eval_dataset")
        for name in _names(config.values.get(key))
    ]
    if not names or not isinstance(folder, str) or is_remote(folder):
        return
    info = resolve(config, folder) / "dataset_info.json"
    label = Path(folder) / info.name
    if not info.exists():
        fix = _prepare(list(dict.fromkeys(name for _, name in names)), folder)
        yield "warning", "dataset_dir", f"there is no {label}: not here yet. {fix}"
        return
    try:
        entries = json.loads(info.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield "error", "dataset_dir", f"{label} is not JSON: {error}."
        return
    if not isinstance(entries, dict):
        yield "error", "dataset_dir", f"{label} is not a JSON object."
        return
    for key, name in names:
        if name not in entries:
            message = (
                f"{name!r} is not in {label}, which has {', '.join(entries) or 'nothing'}."
                f"{did_you_mean(name, entries)}"
            )
            yield "error", key, message
        elif isinstance(entries[name], dict):
            yield from _check_entry(config, key, name, entries[name], info.parent)


def _check_entry(
    config: Config, key: str, name: str, entry: dict[str, Any], folder: Path
) -> Iterator[Verdict]:
    stage = config.values.get("stage", "sft")
    if entry.get("ranking") is True and stage in ("pt", "sft"):
        message = (
            f"{name!r} is a ranking data set (ranking: true in dataset_info.json), which stage: "
            f"{stage} cannot train on."
        )
        yield "error", key, message
    file_name = entry.get("file_name")
    if any(remote in entry for remote in _REMOTE_KEYS) or not isinstance(file_name, str):
        return
    if not (folder / file_name).exists():
        parent = config.values.get("dataset_dir", "data")
        message = (
            f"{name!r}: {Path(parent) / file_name} is not here yet. {_prepare([name], parent)}"
        )
        yield "warning", key, message


def _prepare(names: list[str], folder: str) -> str:
    """The command that creates the data set, if it is one of ours."""
    from dft_factory.data.prepare import CONVERTERS

    for name in names:
        if name in CONVERTERS:
            command = f"dft-factory data prepare {name} --source PATH_OR_HUB_ID --out {folder}"
            return f"Create it: `{command}`."
    return "Put it there before training."
