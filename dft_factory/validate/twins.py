"""SFT and DFT twins: recipes of one folder whose names differ in that word alone.

A comparison says something about DFT only if the two runs differ in nothing but the weight.
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
_ABSENT = "nothing"


def check_twins(configs: Iterable[Config]) -> Iterator[Finding]:
    """Findings about every pair of which at least one was asked about, on the DFT recipe."""
    asked = {config.file.resolve(): config for config in configs if config.kind == "train"}
    seen: set[Path] = set()
    for path, config in asked.items():
        word = _WORD.search(path.name)
        if word is None:
            continue
        names = {
            each: path.with_name(f"{path.name[: word.start()]}{each}{path.name[word.end() :]}")
            for each in ("sft", "dft")
        }
        if names["dft"] in seen:
            continue
        seen.add(names["dft"])
        other = names["sft" if word[0] == "dft" else "dft"]
        twin = asked.get(other)
        if twin is None and other.is_file():
            twin, _ = read(other)
        if twin is not None and twin.kind == "train":
            pair = {word[0]: config, "sft" if word[0] == "dft" else "dft": twin}
            yield from _compare(pair["sft"], pair["dft"])


def _shown(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else _ABSENT


def _compare(sft: Config, dft: Config) -> Iterator[Finding]:
    other = sft.file.name

    def warning(key: str, message: str) -> Finding:
        return Finding(dft.file, "warning", key, message)

    for key in [*dft.values, *(key for key in sft.values if key not in dft.values)]:
        if key not in MAY_DIFFER and _shown(sft.values, key) != _shown(dft.values, key):
            yield warning(
                key,
                f"{_shown(dft.values, key)} here and {_shown(sft.values, key)} in its twin "
                f"{other}: the comparison would be of that, too. Make them equal.",
            )
    types = {name: str(each.values.get("finetuning_type")) for name, each in _pair(sft, dft)}
    wanted = re.sub(r"^dft(?![a-z0-9])", "sft", types["dft"])
    if not types["dft"].startswith("dft") or types["sft"] != wanted:
        yield warning(
            "finetuning_type",
            f"{types['dft']!r} here and {types['sft']!r} in its twin {other}. Twins are dft and "
            "sft, or dft_lora and sft_lora, and so on: the same method, the same normalisation.",
        )
    place = dft.values.get("output_dir")
    if place is not None and place == sft.values.get("output_dir"):
        yield Finding(
            dft.file,
            "error",
            "output_dir",
            f"{place!r} is that of its twin {other}, too: the second run would go on from the "
            "checkpoints of the first. Give each its own.",
        )


def _pair(sft: Config, dft: Config) -> tuple[tuple[str, Config], tuple[str, Config]]:
    return ("sft", sft), ("dft", dft)
