"""Paired SFT and DFT recipes: in one folder, with file names that differ only in that word.

A comparison measures DFT only if the two runs differ only in the weight.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dft_factory.validate.files import Config, read
from dft_factory.validate.findings import Finding

MAY_DIFFER = frozenset({"finetuning_type", "dft_weight", "output_dir", "run_name"})
_WORD = re.compile(r"(?<![a-z0-9])(sft|dft)(?![a-z0-9])")


def check_pairs(configs: Iterable[Config]) -> Iterator[Finding]:
    """Findings on the DFT recipe of each pair with at least one member in ``configs``."""
    recipes = {config.file.resolve(): config for config in configs if config.kind == "train"}
    pairs = dict.fromkeys(
        tuple(path.with_name(_WORD.sub(word, path.name, count=1)) for word in ("sft", "dft"))
        for path in recipes
        if _WORD.search(path.name)
    )
    for pair in pairs:
        sft, dft = (recipes.get(path) or _read_recipe(path) for path in pair)
        if sft and dft:
            yield from _compare(sft, dft)


def _read_recipe(path: Path) -> Config | None:
    config, _ = read(path) if path.is_file() else (None, [])
    return config if config is not None and config.kind == "train" else None


def _repr(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "nothing"


def _compare(sft: Config, dft: Config) -> Iterator[Finding]:
    other = sft.file.name
    for key in dict.fromkeys([*dft.values, *sft.values]):
        here, there = _repr(dft.values, key), _repr(sft.values, key)
        if key not in MAY_DIFFER and here != there:
            message = (
                f"{here} here and {there} in the paired {other}: the comparison would measure "
                "that, too. Make them equal."
            )
            yield Finding(dft.file, "warning", key, message)
    types = [str(config.values.get("finetuning_type")) for config in (sft, dft)]
    if not types[1].startswith("dft") or types[0] != re.sub(r"^dft(?![a-z0-9])", "sft", types[1]):
        message = (
            f"{types[1]!r} here and {types[0]!r} in the paired {other}. Pair dft with sft, "
            "dft_lora with sft_lora, and so on: the same method and normalisation."
        )
        yield Finding(dft.file, "warning", "finetuning_type", message)
    folder = dft.values.get("output_dir")
    if folder is not None and folder == sft.values.get("output_dir"):
        message = (
            f"{folder!r} is also the output_dir of the paired {other}: the second run would resume "
            "from the checkpoints of the first. Use a different one for each."
        )
        yield Finding(dft.file, "error", "output_dir", message)
