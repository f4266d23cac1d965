"""Weights of each run, how its scores were computed, and settings that differ."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dft_eval.report.runs import Variant, benchmarks, key_name
from dft_eval.report.scores import Table

SHORT_SHA = 12
"""Number of checksum characters shown."""


def models(variants: Sequence[Variant]) -> Table:
    """Weights of each run."""
    rows = []
    for variant in variants:
        for run in variant.runs:
            sha = run.results.model_sha256
            short = sha[:SHORT_SHA] if sha else "none (a served model has no files to sum)"
            base = run.results.base_model or "not given"
            rows.append((variant.run_name(run), run.results.model, short, base))
    return Table(("run", "model", "SHA-256 of the weights", "base model"), tuple(rows))


def methods(variants: Sequence[Variant]) -> Table:
    """How each score was computed; runs scored in the same way share a row."""
    rows = []
    for key in benchmarks(variants):
        alike: dict[tuple[str, ...], list[str]] = {}
        for variant in variants:
            if pooled := variant.evaluations.get(key):
                row = pooled.row
                decoding = json.dumps(row.decoding, sort_keys=True, ensure_ascii=False)
                seeds = ", ".join(dict.fromkeys(str(row.seed) for row in pooled.rows))
                how = (row.harness, row.judge or "none", seeds, decoding)
                alike.setdefault(how, []).append(variant.label)
        rows += [(key_name(key), ", ".join(labels), *how) for how, labels in alike.items()]
    return Table(("benchmark", "runs", "harness", "judge", "seed", "decoding"), tuple(rows))


def settings(variants: Sequence[Variant]) -> Table | None:
    """Settings in which the variants differ on a benchmark; None where none do."""
    rows = []
    for key in benchmarks(variants):
        by_label = {
            variant.label: variant.evaluations[key].evaluations[0].settings
            for variant in variants
            if key in variant.evaluations
        }
        for name in dict.fromkeys(name for fields in by_label.values() for name in fields):
            cells = [
                json.dumps(by_label[variant.label].get(name), ensure_ascii=False)
                if variant.label in by_label
                else "not run"
                for variant in variants
            ]
            if len(set(cells) - {"not run"}) > 1:
                rows.append((f"{key_name(key)}: {name}", *cells))
    head = ("setting", *(variant.label for variant in variants))
    return Table(head, tuple(rows)) if rows else None
