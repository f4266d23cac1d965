"""Which evaluations of an experiment share a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dft_factory.experiments.schema import Evaluation

DECODING = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
"""Options by which a report tells decodings apart, with their defaults."""
FREE = (*DECODING, "samples", "batch_size", "seed", "gpus", "device_map")
"""Options in which decodings of the same items may differ."""


def reports(evaluations: Sequence[Evaluation]) -> list[list[str | None]]:
    """Names of the evaluations of each report.

    Decodings of the same benchmarks share one: all other options are the same. Everything else
    (other data, prompts, limits) has a report of its own.
    """
    groups: list[list[str | None]] = []
    for name in dict.fromkeys(entry.name for entry in evaluations):
        own = [entry for entry in evaluations if entry.name == name]
        for group in groups:
            if _are_decodings(own, [entry for entry in evaluations if entry.name in group]):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def _are_decodings(own: Sequence[Evaluation], others: Sequence[Evaluation]) -> bool:
    """Whether all of ``own`` are in ``others`` with another decoding, and with no other change."""
    items, decodings = _by_items(own), _by_items(others)
    return all(
        key in decodings and decodings[key].isdisjoint(values) for key, values in items.items()
    )


def _by_items(evaluations: Iterable[Evaluation]) -> dict[tuple[Any, ...], set[str]]:
    """Decodings by benchmark and the options that say what is asked."""
    by_items: dict[tuple[Any, ...], set[str]] = {}
    for entry in evaluations:
        asked = sorted((key, str(value)) for key, value in entry.options.items() if key not in FREE)
        decoding = [entry.options.get(name, neutral) for name, neutral in DECODING.items()]
        text = str([float(value) if isinstance(value, int) else value for value in decoding])
        for benchmark in entry.benchmarks:
            by_items.setdefault((benchmark, *asked), set()).add(text)
    return by_items
