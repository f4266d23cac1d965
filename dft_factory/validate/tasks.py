"""Task files of ``dft-factory eval``: their fields, and every row of data that is here."""

from __future__ import annotations

from pathlib import Path

import yaml

from dft_eval.benchmarks import own_benchmark
from dft_eval.errors import UsageError
from dft_eval.own_tasks.items import data_path, load_items
from dft_eval.own_tasks.task import InvalidTaskError, is_task_path, read_task
from dft_factory.validate.findings import WHOLE, Finding

_FIELDS = ("prompt", "metric")
"""Fields that no other kind of file has."""


def is_task(file: Path) -> bool:
    """Whether a file is a task, as far as it can be read."""
    if not is_task_path(file.name):
        return False
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(values, dict) and any(field in values for field in _FIELDS)


def check_task(file: Path) -> list[Finding]:
    """Findings of a task file and its data."""
    try:
        task_file = read_task(file)
        own_benchmark(task_file)
    except InvalidTaskError as error:
        return [Finding(file, "error", *problem) for problem in error.problems]
    except UsageError as error:
        return [Finding(file, "error", WHOLE, str(error))]
    path = data_path(task_file)
    if path is None:
        return []
    if not path.is_file():
        return [Finding(file, "warning", "data", f"{path} is not there yet.")]
    try:
        load_items(task_file)
    except UsageError as error:
        return [Finding(file, "error", "data", str(error))]
    return []
