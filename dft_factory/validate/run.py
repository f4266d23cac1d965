"""Run all checks on all files."""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dft_factory.errors import MissingDependencyError, UpstreamContractError
from dft_factory.patch.table import INSTALL_LLAMAFACTORY, OTHER_TRAINERS
from dft_factory.validate.files import Config, read
from dft_factory.validate.findings import Finding
from dft_factory.validate.pairs import check_pairs
from dft_factory.validate.paths import check_paths, is_remote, resolve
from dft_factory.worker_process import ask, first_gpu, single_process

WORKER_SECONDS = 600
PREREQUISITES = ("model_name_or_path", "dataset_dir", "deepspeed", "output_dir")
"""Keys whose warnings ask for something that an experiment makes itself, or has made before."""


def validate_files(paths: Sequence[Path]) -> list[Finding]:
    """All findings, file by file in the order of ``paths``.

    Takes 10 to 20 s for any number of files, most of it to import LLaMA-Factory.

    Raises:
        MissingDependencyError: LLaMA-Factory is not installed.
        UpstreamContractError: LLaMA-Factory cannot be imported.
    """
    from dft_factory.validate.experiments import expand
    from dft_factory.validate.tasks import check_task, is_task

    paths = list(dict.fromkeys(paths))
    findings: dict[Path, list[Finding]] = {path: [] for path in paths}
    configs: list[Config] = []
    experiments: dict[Path, Mapping[str, str]] = {}
    for path in paths:
        if is_task(path):
            findings[path] += check_task(path)
            continue
        config, problems = read(path)
        findings[path] += problems
        if config is None:
            continue
        if config.kind == "experiment":
            problems, experiments[path] = expand(path)
            findings[path] += problems
        else:
            configs.append(config)
    with tempfile.TemporaryDirectory() as folder:
        owners: dict[Path, Path] = {}
        for path, texts in experiments.items():
            for text in texts.values():
                recipe = Path(tempfile.mkdtemp(dir=folder)) / "train.yaml"
                recipe.write_text(text, encoding="utf-8")
                owners[recipe] = path
                config, _ = read(recipe)
                configs += [config] if config is not None else []
        recipes = (config for config in configs if config.is_recipe)
        for finding in (
            *_check_with_llamafactory(configs),
            *(finding for recipe in recipes for finding in check_paths(recipe)),
            *check_pairs(configs),
        ):
            file = owners.get(finding.file, finding.file)
            if (
                file in owners.values()
                and finding.severity == "warning"
                and finding.key in PREREQUISITES
            ):
                continue
            findings.setdefault(file, []).append(replace(finding, file=file))
    return [finding for group in findings.values() for finding in dict.fromkeys(group)]


CHECKED_AS = {
    "train": "a recipe: arguments as LLaMA-Factory parses them, model, data, files, SFT / DFT pair",
    "export": "an export recipe: arguments as LLaMA-Factory parses them, model and files",
    "inference": "an inference recipe: arguments as LLaMA-Factory parses them, model and files",
    "deepspeed": "a DeepSpeed configuration: what DeepSpeed accepts",
    "accelerate": "an accelerate configuration: what accelerate accepts",
    "experiment": "an experiment: its plan, every evaluation, the recipe of every run",
    "task": "a task: its fields, every row of data that is here",
}


def render_checks(paths: Sequence[Path], findings: Sequence[Finding]) -> str:
    """One line per file without an error: as what it was checked, and its warnings."""
    from dft_factory.validate.tasks import is_task

    lines = []
    for path in dict.fromkeys(paths):
        severities = [finding.severity for finding in findings if finding.file == path]
        if "error" in severities:
            continue
        config, _ = (None, []) if is_task(path) else read(path)
        warnings = len(severities)
        count = "no warning" if not warnings else f"{warnings} warning{'s' * (warnings > 1)}"
        what = CHECKED_AS["task" if config is None else config.kind]
        lines.append(f"{path}: no error, {count}. Checked as {what}.\n")
    return "".join(lines)


def _check_with_llamafactory(configs: Sequence[Config]) -> list[Finding]:
    if not configs:
        return []
    if importlib.util.find_spec("llamafactory") is None:
        raise MissingDependencyError(
            f"validate needs LLaMA-Factory, which is not installed. `{INSTALL_LLAMAFACTORY}`"
        )
    answers = _run_worker([_job(config) for config in configs])
    return [
        Finding(config.file, severity, key, message)
        for config, verdicts in zip(configs, answers, strict=True)
        for severity, key, message in verdicts
    ]


def _job(config: Config) -> dict[str, Any]:
    deepspeed = config.values.get("deepspeed")
    if isinstance(deepspeed, str):
        path = resolve(config, deepspeed)
        deepspeed = str(path.resolve()) if path.is_file() else None
    model = config.values.get("model_name_or_path")
    folder = resolve(config, model).resolve() if isinstance(model, str) else None
    values = dict(config.values)
    data = values.get("dataset_dir", "data")
    if config.kind == "train" and isinstance(data, str) and not is_remote(data):
        values["dataset_dir"] = str(resolve(config, data).resolve())
    task = values.get("score_task")
    if isinstance(task, str) and resolve(config, task).is_file():
        values["score_task"] = str(resolve(config, task).resolve())
    return {
        "kind": config.kind,
        "values": values,
        "deepspeed": deepspeed,
        "model": str(folder) if folder is not None and folder.is_dir() else None,
    }


def _environment() -> dict[str, str]:
    """One process, at most one GPU, no network: independent of the shell's settings."""
    environment = {
        key: value
        for key, value in single_process().items()
        if key not in (*OTHER_TRAINERS, "ALLOW_EXTRA_ARGS")
    }
    return environment | {"CUDA_VISIBLE_DEVICES": first_gpu(), "HF_HUB_OFFLINE": "1"}


def _run_worker(jobs: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    try:
        answers: list[list[Any]] = ask(
            "dft_factory.validate.worker",
            jobs,
            _environment(),
            failure="LLaMA-Factory cannot be run",
            fix="Run `dft-factory doctor`.",
            timeout=WORKER_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise UpstreamContractError(
            f"LLaMA-Factory took more than {WORKER_SECONDS} s for {len(jobs)} of these files. "
            "The machine is busy, or there are too many files. Try again, or give fewer."
        ) from error
    return answers
