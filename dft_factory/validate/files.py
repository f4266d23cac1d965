"""Read configuration files as their reader will see them, and tell their kinds apart.

LLaMA-Factory reads YAML through OmegaConf, whose numbers are YAML 1.2's (``1e-5`` is a float, text
for plain PyYAML) and which refuses a key that is given twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from dft_factory.validate.findings import WHOLE, Finding

Kind = Literal["train", "export", "inference", "deepspeed", "accelerate"]

# Keys that tell a kind, where no other kind has them.
_TRAINING = frozenset(
    (
        "do_train",
        "do_eval",
        "do_predict",
        "stage",
        "output_dir",
        "learning_rate",
        "num_train_epochs",
        "max_steps",
        "per_device_train_batch_size",
        "dft_weight",
        "deepspeed",
    )
)
_INFERENCE = frozenset(
    ("model_name_or_path", "adapter_name_or_path", "template", "infer_backend", "finetuning_type")
)
_DEEPSPEED = frozenset(("zero_optimization", "train_batch_size", "train_micro_batch_size_per_gpu"))
_ACCELERATE = frozenset(
    ("compute_environment", "distributed_type", "fsdp_config", "num_machines", "num_processes")
)
KINDS = (
    "a LLaMA-Factory recipe for training (do_train, output_dir, ...), export (export_dir) or "
    "inference (model_name_or_path), a DeepSpeed configuration (zero_optimization, ...) or an "
    "accelerate configuration (distributed_type, ...)"
)


@dataclass(frozen=True)
class Config:
    """One file that could be read: its kind and what its reader gets."""

    file: Path
    kind: Kind
    values: dict[str, Any]

    @property
    def is_recipe(self) -> bool:
        """Whether LLaMA-Factory reads it."""
        return self.kind in ("train", "export", "inference")


def kind_of(values: dict[str, Any]) -> Kind | None:
    """The kind that the keys tell; None where they tell none."""
    keys = values.keys()
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
    """The file's contents, if they can be judged any further, and what is wrong with its form."""

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

    found: list[Finding] = []
    try:
        values = _json(text, found, file) if file.suffix == ".json" else _yaml(text, found, file)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        said = (problem.problem or problem.context or "").rstrip(".")
        return None, [*found, error(f"is not YAML{line}: {said}.")]
    except yaml.YAMLError as problem:
        return None, [*found, error(f"is not YAML: {' '.join(str(problem).split())}.")]
    except json.JSONDecodeError as problem:
        return None, [*found, error(f"is not JSON, line {problem.lineno}: {problem.msg}.")]
    except ValueError as problem:  # OmegaConf's own, malformed ${...} above all
        return None, [*found, error(f"cannot be read: {str(problem).splitlines()[0]}.")]
    if not isinstance(values, dict):
        what = "is empty" if values is None else f"holds a {type(values).__name__}"
        return None, [*found, error(f"{what}, not keys and values. Expected {KINDS}.")]
    for key in [key for key in values if not isinstance(key, str)]:
        found.append(error(f"this key is a {type(key).__name__}, not a name. Remove it.", str(key)))
        del values[key]
    kind = kind_of(values)
    if kind is None:
        return None, [*found, error(f"is of no known kind. Expected {KINDS}.")]
    config = Config(file, kind, values)
    if config.is_recipe and file.suffix == ".json":
        found.append(error("llamafactory-cli 0.9.5 cannot read JSON recipes. Write it as YAML."))
    return config, found


def _yaml(text: str, found: list[Finding], file: Path) -> Any:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return None
    if not isinstance(root, yaml.MappingNode):
        return [] if isinstance(root, yaml.SequenceNode) else ""
    duplicates = list(_drop_duplicates(root))
    for key, first, last in duplicates:
        message = (
            f"is given twice, on lines {first} and {last}, and LLaMA-Factory refuses to read the "
            f"file. Remove one of the two."
        )
        found.append(Finding(file, "error", key, message))
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(
            OmegaConf.create(yaml.serialize(root) if duplicates else text)
        )
    except (OmegaConfBaseException, RecursionError) as problem:
        raise ValueError(str(problem)) from problem


def _drop_duplicates(
    node: yaml.Node, path: str = "", seen: frozenset[int] = frozenset()
) -> Iterator[tuple[str, int, int]]:
    """(dotted key, first line, second line) of keys given twice; only the last one stays."""
    if id(node) in seen:  # an alias inside of what it names
        return
    seen |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _drop_duplicates(child, path, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    kept: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for position, (key, value) in enumerate(node.value):
        is_name = isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"
        name = str(key.value) if is_name else f"\0{position}"
        line = key.start_mark.line + 1
        if name in lines:
            yield f"{path}{name}", lines[name], line
        lines[name] = line
        kept[name] = (key, value)
    node.value = list(kept.values())
    for name, (_, value) in kept.items():
        yield from _drop_duplicates(value, f"{path}{name}.", seen)


def _json(text: str, found: list[Finding], file: Path) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in items:
            if key in values:
                message = "is given twice; only the last value counts. Remove one of the two."
                found.append(Finding(file, "error", key, message))
            values[key] = value
        return values

    return json.loads(text, object_pairs_hook=pairs)
