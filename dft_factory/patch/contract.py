"""Which LLaMA-Factory sources the patches are tested with, told by fingerprint, not by version.

A version says little of a checkout of main, or of a fork. A fingerprint is a hash of the syntax
tree of one class or function: comments, docstrings and formatting do not count.

``python -m dft_factory.patch.contract FOLDER`` prints the fingerprints of another LLaMA-Factory, a
checkout or a site-packages folder. After ``scripts/test_against.sh`` has passed with it, add them.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FINGERPRINTS: dict[str, dict[str, tuple[str, ...]]] = {
    "llamafactory.hparams.finetuning_args.FinetuningArguments": {
        "c69507689a0c1197": ("0.9.4",),
        "5f829b587321139d": ("0.9.5",),
        "52ee6a298318beab": ("0.9.6.dev0",),
    },
    "llamafactory.hparams.parser._parse_train_args": {
        "6a61d88adb84db90": ("0.9.4", "0.9.5", "0.9.6.dev0"),
    },
    "llamafactory.hparams.parser._parse_train_mca_args": {
        "7e3010b489b054d1": ("0.9.4", "0.9.5", "0.9.6.dev0"),
    },
    "llamafactory.hparams.parser.get_train_args": {
        "1e47d5258675f6cd": ("0.9.4",),
        "7f41ee375de10106": ("0.9.5",),
        "67e256c9404dd5c9": ("0.9.6.dev0",),
    },
    "llamafactory.train.sft.trainer.CustomSeq2SeqTrainer": {
        "e7c1daf303f8f8af": ("0.9.4",),
        "35f1e0028f7061b8": ("0.9.5", "0.9.6.dev0"),
    },
    "llamafactory.train.sft.workflow.run_sft": {
        "7d9f498d288010c4": ("0.9.4",),
        "b38e70fc46a77e47": ("0.9.5", "0.9.6.dev0"),
    },
    "llamafactory.train.trainer_utils.create_modelcard_and_push": {
        "0cba749d295f6a01": ("0.9.4",),
        "e514ec45ba3a0be7": ("0.9.5", "0.9.6.dev0"),
    },
    "llamafactory.train.tuner._training_function": {
        "4d10ccf38b9cd4bb": ("0.9.4",),
        "e24a5264e3223e7b": ("0.9.5",),
        "2bdfd2a92140fdd1": ("0.9.6.dev0",),
    },
    "llamafactory.v1.config.arg_parser.get_args": {
        "90accc35abf0347d": ("0.9.4",),
        "d07d6a449446e2a0": ("0.9.5", "0.9.6.dev0"),
    },
}
"""Target -> fingerprint -> releases that have it.

The patched objects, and those that decide which parser, trainer and loss a run gets: a training
path added there would pass our refusals by.
"""


def llamafactory_folder() -> Path | None:
    """The package folder that ``import llamafactory`` would use; None where there is none."""
    try:
        spec = importlib.util.find_spec("llamafactory")
    except (ImportError, ValueError):
        return None
    folders = (spec.submodule_search_locations or []) if spec else []
    return next((Path(folder) for folder in folders if Path(folder).is_dir()), None)


def _shape(node: Any) -> Any:
    """The syntax tree as nested tuples, the same in every Python version."""
    if isinstance(node, list):
        return tuple(_shape(child) for child in node if not _is_docstring(child))
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return (type(node).__name__, *((name, _shape(value)) for name, value in fields))
    return repr(node)


def _is_docstring(node: Any) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@functools.cache
def fingerprints(folder: Path) -> dict[str, str | None]:
    """Target -> fingerprint in this package folder; None where the target is missing.

    Reads sources and imports nothing: about 50 ms, once a process.
    """
    trees: dict[Path, dict[str, ast.AST]] = {}
    hashes: dict[str, str | None] = {}
    for target in FINGERPRINTS:
        *packages, module, attribute = target.split(".")[1:]
        path = folder.joinpath(*packages, f"{module}.py")
        if path not in trees:
            try:
                body = ast.parse(path.read_bytes()).body
            except (OSError, SyntaxError, ValueError):
                body = []
            trees[path] = {node.name: node for node in body if hasattr(node, "name")}
        node = trees[path].get(attribute)
        text = repr(_shape(node)).encode()
        hashes[target] = None if node is None else hashlib.sha256(text).hexdigest()[:16]
    return hashes


def unknown_targets() -> list[str]:
    """Targets of the importable LLaMA-Factory that no tested release has in this form."""
    folder = llamafactory_folder()
    here = fingerprints(folder) if folder is not None else {}
    return [target for target, known in FINGERPRINTS.items() if here.get(target) not in known]


def _report(folder: Path) -> Iterator[str]:
    for target, fingerprint in fingerprints(folder).items():
        releases = FINGERPRINTS[target].get(fingerprint or "")
        yield f"{target}\n    {fingerprint}  {', '.join(releases) if releases else 'unknown'}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m dft_factory.patch.contract FOLDER")
    parts = ("src/llamafactory", "llamafactory", ".")
    packages = [Path(sys.argv[1], part) for part in parts]
    package = next((path for path in packages if (path / "hparams").is_dir()), None)
    if package is None:
        sys.exit(f"{sys.argv[1]}: holds no LLaMA-Factory package.")
    print("\n".join(_report(package)))
