"""Read configuration files as LLaMA-Factory, DeepSpeed and accelerate do, and detect their kind.

LLaMA-Factory reads YAML through OmegaConf, which parses numbers as in YAML 1.2 (``1e-5`` is a
float; plain PyYAML reads text) and rejects duplicate keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from dft_factory.validate.findings import WHOLE, Finding

Kind = Literal["train", "export", "inference", "deepspeed", "accelerate", "experiment"]

# Keys that occur in one kind of file only.
_TRAINING = {"do_train", "do_eval", "do_predict", "stage", "output_dir", "learning_rate"}
_TRAINING |= {"num_train_epochs", "max_steps", "per_device_train_batch_size", "dft_weight"}
_TRAINING |= {"deepspeed", "score_task"}
_INFERENCE = frozenset(
    ("model_name_or_path", "adapter_name_or_path", "template", "infer_backend", "finetuning_type")
)
_DEEPSPEED = frozenset(("zero_optimization", "train_batch_size", "train_micro_batch_size_per_gpu"))
_ACCELERATE = frozenset(
    ("compute_environment", "distributed_type", "fsdp_config", "num_machines", "num_processes")
)
KINDS = (
    "a LLaMA-Factory recipe for training (do_train, output_dir, ...), export (export_dir) or "
    "inference (model_name_or_path), a DeepSpeed configuration (zero_optimization, ...), an "
    "accelerate configuration (distributed_type, ...), an experiment (train, evaluate) or a task "
    "of dft-factory eval (data, prompt, metric)"
)


@dataclass(frozen=True)
class Config:
    """A readable file: its kind and its values."""

    file: Path
    kind: Kind
    values: dict[str, Any]

    @property
    def is_recipe(self) -> bool:
        """Whether it is a file for LLaMA-Factory."""
        return self.kind in ("train", "export", "inference")


def kind_of(values: dict[str, Any]) -> Kind | None:
    """The kind of file that has these keys; None if unknown."""
    keys = values.keys()
    if {"train", "evaluate"} <= keys:
        return "experiment"
    if "export_dir" in keys:
        return "export"
    if keys & _ACCELERATE:
        return "accelerate"
    if keys & _TRAINING:
        return "train"
    if keys & _DEEPSPEED:
        return "deepspeed"
    return "inference" if keys & _INFERENCE else None


def read(file: Path) -> tuple[Config | None, list[Finding]]:
    """The contents (None if they cannot be checked further) and the file's syntax errors."""

    def error(message: str, key: str = WHOLE) -> Finding:
        return Finding(file, "error", key, message)

    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None, [error("no such file.")]
    except IsADirectoryError:
        return None, [error(f"is a folder. Name its files, for example {file}/*.yaml.")]
    except UnicodeDecodeError as problem:
        return None, [error(f"is not UTF-8 text: byte {problem.start} is {problem.reason}.")]
    except OSError as problem:
        return None, [error(f"cannot be read: {problem.strerror}.")]

    findings: list[Finding] = []
    try:
        values = (
            _json(text, findings, file) if file.suffix == ".json" else _yaml(text, findings, file)
        )
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        detail = (problem.problem or problem.context or "").rstrip(".")
        return None, [*findings, error(f"is not YAML{line}: {detail}.")]
    except yaml.YAMLError as problem:
        return None, [*findings, error(f"is not YAML: {' '.join(str(problem).split())}.")]
    except json.JSONDecodeError as problem:
        return None, [*findings, error(f"is not JSON, line {problem.lineno}: {problem.msg}.")]
    except ValueError as problem:  # OmegaConf's own, malformed ${...} above all
        return None, [*findings, error(f"cannot be read: {str(problem).splitlines()[0]}.")]
    if not isinstance(values, dict):
        state = "is empty" if values is None else f"holds a {type(values).__name__}"
        return None, [*findings, error(f"{state}, not keys and values. Expected {KINDS}.")]
    for key in [key for key in values if not isinstance(key, str)]:
        findings.append(
            error(f"this key is a {type(key).__name__}, not a name. Remove it.", str(key))
        )
        del values[key]
    kind = kind_of(values)
    if kind is None:
        return None, [*findings, error(f"is of an unknown kind. Expected {KINDS}.")]
    config = Config(file, kind, values)
    if config.is_recipe and file.suffix == ".json":
        findings.append(error("llamafactory-cli 0.9.5 cannot read JSON recipes. Write it as YAML."))
    return config, findings


def _yaml(text: str, findings: list[Finding], file: Path) -> Any:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return None
    if not isinstance(root, yaml.MappingNode):
        return [] if isinstance(root, yaml.SequenceNode) else ""
    duplicates = list(_drop_duplicates(root))
    for key, first, last in duplicates:
        message = (
            f"is set twice, on lines {first} and {last}, and LLaMA-Factory rejects the file. "
            "Remove one of them."
        )
        findings.append(Finding(file, "error", key, message))
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(
            OmegaConf.create(yaml.serialize(root) if duplicates else text)
        )
    except (OmegaConfBaseException, RecursionError) as problem:
        raise ValueError(str(problem)) from problem


def _drop_duplicates(
    node: yaml.Node, path: str = "", ancestors: frozenset[int] = frozenset()
) -> Iterator[tuple[str, int, int]]:
    """(dotted key, first line, second line) of duplicate keys; removes all but the last."""
    if id(node) in ancestors:  # an alias of a node that contains it
        return
    ancestors |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _drop_duplicates(child, path, ancestors)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    entries: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for position, (key, value) in enumerate(node.value):
        is_name = isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"
        name = str(key.value) if is_name else f"\0{position}"
        line = key.start_mark.line + 1
        if name in lines:
            yield f"{path}{name}", lines[name], line
        lines[name] = line
        entries[name] = (key, value)
    node.value = list(entries.values())
    for name, (_, value) in entries.items():
        yield from _drop_duplicates(value, f"{path}{name}.", ancestors)


def _json(text: str, findings: list[Finding], file: Path) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in items:
            if key in values:
                message = "is set twice; only the last value counts. Remove one of them."
                findings.append(Finding(file, "error", key, message))
            values[key] = value
        return values

    return json.loads(text, object_pairs_hook=pairs)
