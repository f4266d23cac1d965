"""Learning curves and token probabilities: last values, and what is missing, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from dft_eval.report.files import CURVES, PROBE, TOKEN_PROBABILITIES, Points
from dft_eval.report.formats import number, percent, plural
from dft_eval.report.runs import Run, Variant
from dft_eval.report.scores import Table
from dft_eval.training_file import TRAINER_STATE


def _named(variants: Sequence[Variant]) -> list[tuple[str, Run]]:
    return [(variant.run_name(run), run) for variant in variants for run in variant.runs]


def _folders(runs: Iterable[tuple[str, Run]]) -> str:
    return ", ".join(f"{run.folder} ({name})" for name, run in runs)


def curves(variants: Sequence[Variant]) -> tuple[Table | None, tuple[str, ...]]:
    """Last logged values (``None`` if no run has any curve), and remarks."""
    runs = _named(variants)
    missing = [(name, run) for name, run in runs if run.curves is None]
    notes = []
    if missing:
        notes.append(
            f"No learning curves: no {TRAINER_STATE} in {_folders(missing)} or beside the model."
        )
    rows = []
    for name, run in runs:
        if run.curves is None:
            continue
        logged = [(f"training {curve}", run.curves.train.get(curve)) for curve in CURVES]
        logged += [(f"evaluation {curve}", run.curves.evaluation.get(curve)) for curve in CURVES]
        logged_curves = [points for _, points in logged if points]
        if not logged_curves:
            notes.append(
                f"No learning curves of {name}: {run.curves.path} logs neither "
                f"{' nor '.join(CURVES)}. A run of finetuning_type dft or sft logs both every "
                "logging_steps steps; any other logs its loss alone."
            )
            continue
        absent = [curve for curve, one in logged if one is None]
        if absent:
            notes.append(f"{name} has no {', no '.join(absent)} in its log.")
        bad = sum(not math.isfinite(value) for one in logged_curves for value in one.values)
        if bad:
            notes.append(f"{name}: {plural(bad, 'logged value')} not finite, a gap in the curve.")
        last = max(points.steps[-1] for points in logged_curves)
        rows.append((name, f"{last:,}", *(_last(one) for _, one in logged)))
    head = (
        *("run", "last step", "last training NLL", "last training probability"),
        *("last evaluation NLL", "last evaluation probability"),
    )
    return (Table(head, tuple(rows)) if rows else None), tuple(notes)


def _last(logged: Points | None) -> str:
    return number(logged.values[-1] if logged else None)


def probabilities(variants: Sequence[Variant]) -> tuple[Table | None, tuple[str, ...]]:
    """Statistics of the token probabilities (``None`` if no run has any), and remarks."""
    runs = _named(variants)
    missing = [(name, run) for name, run in runs if run.probabilities is None]
    notes = []
    if missing:
        notes.append(
            f"No token probabilities: no {TOKEN_PROBABILITIES} or {PROBE} in {_folders(missing)}."
        )
    rows = []
    for name, run in runs:
        if one := run.probabilities:
            numbers = (number(one.mean), number(one.median))
            shares = (percent(one.share_below), percent(one.share_above), number(one.nll))
            rows.append((name, one.model, one.dataset, f"{one.n_tokens:,}", *numbers, *shares))
    if len({row[2:4] for row in rows}) > 1:
        notes.append("The runs were probed on different tokens: compare their shapes with care.")
    head = (
        *("run", "model", "data set", "tokens", "mean", "median"),
        *("share below 0.1", "share above 0.9", "NLL (nats a token)"),
    )
    return (Table(head, tuple(rows)) if rows else None), tuple(notes)
